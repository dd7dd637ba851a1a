//! A record store that counts its calls, and fails when a test says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use tollgate::key_value::{
    Answer, Begun, Claim, Completion, KeyValueError, KeyValueErrorKind, Owner, Ownership, RecordKey, RecordStore,
    StoreFuture, UnknownPage,
};

/// Fault of the next call of an operation.
#[allow(dead_code, reason = "each binary uses a part of it")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The store does not do it.
    Unavailable,
    /// The store does it, and its reply is lost.
    LostReply,
    /// The call never ends.
    Hangs,
    /// The call takes this time, and is then carried out.
    Takes(Duration),
}

pub(crate) struct FaultyStore {
    store: Arc<dyn RecordStore>,
    calls: Mutex<BTreeMap<&'static str, usize>>,
    faults: Mutex<Vec<(&'static str, Fault)>>,
}

impl FaultyStore {
    pub(crate) fn new(store: impl RecordStore) -> Arc<Self> {
        Arc::new(Self { store: Arc::new(store), calls: Mutex::default(), faults: Mutex::default() })
    }

    /// Returns the number of calls of an operation.
    pub(crate) fn calls(&self, operation: &str) -> usize {
        self.calls.lock().unwrap().get(operation).copied().unwrap_or(0)
    }

    /// Lets the next call of an operation fail, after those that fail already.
    pub(crate) fn fail(&self, operation: &'static str, fault: Fault) {
        self.faults.lock().unwrap().push((operation, fault));
    }

    fn call<'a, T: Send + 'a>(&'a self, operation: &'static str, call: StoreFuture<'a, T>) -> StoreFuture<'a, T> {
        *self.calls.lock().unwrap().entry(operation).or_default() += 1;
        let mut faults = self.faults.lock().unwrap();
        let at = faults.iter().position(|(of, _)| *of == operation);
        let fault = at.map(|at| faults.remove(at).1);
        Box::pin(async move {
            // Other callers come first, as with a store that is far away. A caller may poll once more in one go.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            match fault {
                None => call.await,
                Some(Fault::Unavailable) => {
                    Err(KeyValueError::new(KeyValueErrorKind::Unavailable, "the store is away"))
                }
                Some(Fault::LostReply) => {
                    call.await?;
                    Err(KeyValueError::new(KeyValueErrorKind::Indeterminate, "the reply was lost"))
                }
                Some(Fault::Hangs) => std::future::pending().await,
                Some(Fault::Takes(time)) => {
                    tokio::time::sleep(time).await;
                    call.await
                }
            }
        })
    }
}

impl RecordStore for FaultyStore {
    fn begin<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Begun> {
        self.call("begin", self.store.begin(claim))
    }

    fn find<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, Option<Answer>> {
        self.call("find", self.store.find(key))
    }

    fn renew<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner, lease: Duration) -> StoreFuture<'a, Ownership> {
        self.call("renew", self.store.renew(key, owner, lease))
    }

    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Ownership> {
        self.call("complete", self.store.complete(key, owner, completion, life))
    }

    fn abandon<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner) -> StoreFuture<'a, Ownership> {
        self.call("abandon", self.store.abandon(key, owner))
    }

    fn unknown<'a>(&'a self, after: Option<&'a RecordKey>, limit: usize) -> StoreFuture<'a, UnknownPage> {
        self.call("unknown", self.store.unknown(after, limit))
    }

    fn settle<'a>(&'a self, key: &'a RecordKey, completion: &'a Completion, life: Duration) -> StoreFuture<'a, bool> {
        self.call("settle", self.store.settle(key, completion, life))
    }

    fn release<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, bool> {
        self.call("release", self.store.release(key))
    }

    fn max_answer(&self) -> usize {
        self.store.max_answer()
    }
}
