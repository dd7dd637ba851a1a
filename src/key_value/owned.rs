//! A running record and its owner: the lease is renewed while the work is polled, and the end is stored.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};

use super::{
    error::{KeyValueError, KeyValueErrorKind},
    port::StoreFuture,
    record::{Begun, Claim, Completion, Owner, Ownership, RecordKey, RecordStore},
};

/// Waits before the second and the third attempt to store an end.
const RETRIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];

/// A running record of this owner.
#[derive(Clone)]
pub(crate) struct OwnedRecord {
    pub(crate) store: Arc<dyn RecordStore>,
    pub(crate) key: RecordKey,
    pub(crate) owner: Owner,
    pub(crate) lease: Duration,
}

/// Waits between the attempts to free a record in the background: 2 minutes in all.
const ABANDON_WAITS: [Duration; 8] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(800),
    Duration::from_secs(3),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// Result of [`OwnedRecord::finish`].
#[derive(Debug)]
pub(crate) enum Finished {
    /// The end is stored, with or without its answer.
    Stored { retained: bool },
    /// Another owner has the record.
    Lost,
    /// The store did not take the end, which it may have stored all the same.
    Failed,
}

impl OwnedRecord {
    pub(crate) fn new(store: Arc<dyn RecordStore>, claim: &Claim) -> Self {
        Self { store, key: claim.key, owner: claim.owner, lease: claim.lease }
    }

    /// Begins the operation; asks once more if the reply was lost. What may have begun all the same is abandoned.
    pub(crate) async fn begin(&self, claim: &Claim) -> Result<Begun, KeyValueError> {
        let mut begun = self.store.begin(claim).await;
        if matches!(&begun, Err(error) if error.is_indeterminate()) {
            begun = self.store.begin(claim).await;
            if begun.is_err() {
                self.clone().abandon_detached();
            }
        }
        begun
    }

    /// Polls the work where it is, and renews the lease at each third of it, until `until` if it is given. Calls `ticked`
    /// each time.
    pub(crate) async fn hold<F: Future>(&self, work: F, until: Option<Instant>, mut ticked: impl FnMut()) -> F::Output {
        let mut work = pin!(work);
        let mut renewal = pin!(LeaseRenewal { record: self, wait: sleep(self.lease / 3), call: None, until });
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            renewal.as_mut().poll_renewals(cx, &mut ticked);
            Poll::Pending
        })
        .await
    }

    /// Stores the end. An answer for which there is no room, or that is too long, is not retained.
    pub(crate) async fn finish(&self, completion: &Completion, life: Duration) -> Finished {
        let mut completion = completion;
        let mut retries = RETRIES.into_iter();
        loop {
            match self.store.complete(&self.key, &self.owner, completion, life).await {
                Ok(Ownership::Held) => {
                    return Finished::Stored { retained: *completion != Completion::NotRetained };
                }
                Ok(Ownership::Lost) => return Finished::Lost,
                Err(error) => match error.kind() {
                    KeyValueErrorKind::Full | KeyValueErrorKind::Invalid if *completion != Completion::NotRetained => {
                        completion = &Completion::NotRetained;
                    }
                    KeyValueErrorKind::Unavailable | KeyValueErrorKind::Indeterminate => match retries.next() {
                        Some(wait) => sleep(wait).await,
                        None => return Finished::Failed,
                    },
                    _ => return Finished::Failed,
                },
            }
        }
    }

    /// Removes the record, so that another may carry the operation out. If the store fails, it is tried again in the
    /// background, for as long as the store may come back soon.
    pub(crate) async fn abandon(&self) {
        if let Err(error) = self.store.abandon(&self.key, &self.owner).await
            && matches!(error.kind(), KeyValueErrorKind::Unavailable | KeyValueErrorKind::Indeterminate)
        {
            self.clone().abandon_detached();
        }
    }

    /// Removes the record in the background, if a runtime is there.
    ///
    /// A record that is not there is looked for once more, after a lease: a call that began it and was dropped may have been
    /// under way.
    pub(crate) fn abandon_detached(self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for wait in ABANDON_WAITS {
                match self.store.abandon(&self.key, &self.owner).await {
                    Ok(Ownership::Held) => return,
                    Ok(Ownership::Lost) => {
                        sleep(self.lease).await;
                        let _ = self.store.abandon(&self.key, &self.owner).await;
                        return;
                    }
                    Err(_) => sleep(wait).await,
                }
            }
        });
    }
}

pin_project_lite::pin_project! {
    /// Renewals of a lease, one after another.
    struct LeaseRenewal<'a> {
        record: &'a OwnedRecord,
        #[pin]
        wait: Sleep,
        call: Option<StoreFuture<'a, Ownership>>,
        until: Option<Instant>,
    }
}

impl LeaseRenewal<'_> {
    /// Renews the lease when it is time; calls `ticked` then. A renewal that failed is repeated a third later, and one that
    /// has not ended by then is given up for the next.
    fn poll_renewals(self: Pin<&mut Self>, cx: &mut Context<'_>, ticked: &mut impl FnMut()) {
        let mut this = self.project();
        while this.until.is_none_or(|until| Instant::now() < until) && this.wait.as_mut().poll(cx).is_ready() {
            let record = *this.record;
            ticked();
            this.wait.as_mut().reset(Instant::now() + record.lease / 3);
            *this.call = Some(record.store.renew(&record.key, &record.owner, record.lease));
        }
        if this.call.as_mut().is_some_and(|call| call.as_mut().poll(cx).is_ready()) {
            *this.call = None;
        }
    }
}
