//! A ledger that its layers share: the writer, and who looks after what is open.

use std::{
    collections::HashMap,
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout};

use super::{Database, Failure, Patience, Scribe, new_id};
use crate::{
    quota_store::Trouble,
    rule::ledger::{Act, Key, Order, Since},
};

/// A ledger, which ends when nobody has it any more: what is still to be written is written first.
pub(crate) struct Owner<D: Database> {
    pub(crate) scribe: Arc<Scribe<D>>,
    origins: AtomicU32,
    tended: AtomicBool,
    kept: Arc<Mutex<HashMap<u128, Kept>>>,
}

/// What is set aside for somebody who is at work in this process.
#[derive(Debug)]
struct Kept {
    key: Key,
    attempt: u32,
    since: Since,
    ttl: Duration,
    due: Instant,
}

/// How long a report may take.
const READ_ALL: Duration = Duration::from_secs(300);

/// How often it is looked for what is due.
const TEND_EVERY: Duration = Duration::from_secs(1);

/// So many reservations whose time has run out are ended at once.
const EXPIRED_AT_ONCE: usize = 256;

impl<D: Database> Owner<D> {
    pub(crate) fn new(database: D, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            scribe: Scribe::new(database, patience),
            origins: AtomicU32::new(1),
            tended: AtomicBool::new(false),
            kept: Arc::default(),
        })
    }

    pub(super) fn next_origin(&self) -> u32 {
        self.origins.fetch_add(1, Ordering::Relaxed)
    }

    /// Something that is read, if it comes in time.
    pub(super) async fn read<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<T, Trouble> {
        match timeout(self.scribe.patience(), read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err(Trouble::Unavailable),
        }
    }

    /// Something that reads a lot, and may take its time.
    pub(super) async fn read_all<T>(&self, read: impl Future<Output = Result<T, Failure>>) -> Result<T, Trouble> {
        match timeout(READ_ALL, read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err(Trouble::Unavailable),
        }
    }

    /// Sees to it that what is set aside stays so while somebody in this process works on it.
    pub(super) fn keep_open(self: &Arc<Self>, order: u128, key: &Key, attempt: u32, since: Since, ttl: Duration) {
        let kept = Kept { key: key.clone(), attempt, since, ttl, due: Instant::now() + ttl / 3 };
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(order, kept);
    }

    pub(super) fn let_go(&self, order: u128) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(&order);
    }

    /// Ends reservations whose time has run out, whoever made them, and puts off the end of those that are worked on; in a
    /// task of its own where there is a runtime for it.
    pub(crate) fn tend(self: &Arc<Self>) {
        if self.tended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.tended.swap(true, Ordering::AcqRel) {
            return;
        }
        let tending = Tending(Arc::downgrade(self));
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TEND_EVERY).await;
                let Some(owner) = tending.0.upgrade() else { return };
                owner.put_off();
                owner.expire().await;
            }
        });
    }

    fn put_off(&self) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for kept in kept.values_mut().filter(|kept| kept.due <= now) {
            kept.due = now + kept.ttl / 3;
            let ttl = crate::clock::nanos(kept.ttl);
            let act = Act::Renew { attempt: kept.attempt, since: kept.since.at, ttl };
            self.scribe.tell(Order { key: kept.key.clone(), id: new_id(), own: false, origin: 0, act });
        }
    }

    /// Ends what is due, and waits until it has: so no more is asked for than can be done.
    pub(crate) async fn expire(&self) {
        let Ok(due) = self.read(self.scribe.database.due(EXPIRED_AT_ONCE)).await else { return };
        let mut ends = tokio::task::JoinSet::new();
        for hold in due {
            let act = Act::Expire { attempt: hold.attempt, since: hold.since, charge: hold.charge };
            let order = Order { key: hold.key, id: new_id(), own: false, origin: 0, act };
            let scribe = Arc::clone(&self.scribe);
            ends.spawn(async move { scribe.ask(order).await });
        }
        while ends.join_next().await.is_some() {}
    }
}

/// Whoever looks after it; when a runtime has taken that one with it, another may.
struct Tending<D: Database>(Weak<Owner<D>>);

impl<D: Database> Drop for Tending<D> {
    fn drop(&mut self) {
        if let Some(owner) = self.0.upgrade() {
            owner.tended.store(false, Ordering::Release);
        }
    }
}

impl<D: Database> Drop for Owner<D> {
    fn drop(&mut self) {
        self.scribe.close();
    }
}
