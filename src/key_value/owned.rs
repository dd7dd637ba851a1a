//! A running record and its owner: the lease is renewed while the work is polled, and the end is stored.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep, timeout};

use super::{
    error::{KeyValueError, KeyValueErrorKind},
    port::StoreFuture,
    record::{Begun, Claim, Completion, Owner, Ownership, RecordKey, RecordStore},
};

/// Waits before the second and the third attempt to store an end.
const RETRIES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(200)];

/// Rounds of attempts to store an end in the background, and the wait before the first, which doubles: 2 minutes in all.
const ROUNDS: u32 = 8;
const ROUND_WAIT: Duration = Duration::from_millis(500);

/// Longest wait for a call of the store, which is the lease between these bounds: a store that hangs must hold nothing up.
const SHORTEST_CALL: Duration = Duration::from_secs(5);
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// Records of this process that end in the background at once. One more is left to its lease.
const MAX_ENDING: usize = 4_096;
static ENDING: AtomicUsize = AtomicUsize::new(0);

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

    /// Waits for a call of the store, for as long as one may take.
    pub(crate) async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, KeyValueError>>,
    ) -> Result<T, KeyValueError> {
        let most = self.lease.clamp(SHORTEST_CALL, LONGEST_CALL);
        timeout(most, call).await.unwrap_or_else(|_| {
            let reason = format!("the record store has not answered within {most:?}");
            Err(KeyValueError::new(KeyValueErrorKind::Indeterminate, reason))
        })
    }

    /// Begins the operation; asks once more if the reply was lost. What may have begun all the same is abandoned.
    pub(crate) async fn begin(&self, claim: &Claim) -> Result<Begun, KeyValueError> {
        let begun = self.in_time(async {
            match self.store.begin(claim).await {
                Err(error) if error.is_indeterminate() => self.store.begin(claim).await,
                begun => begun,
            }
        });
        let begun = begun.await;
        if matches!(&begun, Err(error) if error.is_indeterminate()) {
            self.clone().abandon_detached();
        }
        begun
    }

    /// Polls the work where it is, and renews the lease at each third of it, until `until` if it is given. Calls `ticked`
    /// each time.
    pub(crate) async fn hold<F: Future>(&self, work: F, until: Option<Instant>, mut ticked: impl FnMut()) -> F::Output {
        let mut work = pin!(work);
        let mut renewal = pin!(LeaseRenewal { record: self, wait: sleep(self.lease / 3), calls: [None, None], until });
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(output);
            }
            renewal.as_mut().poll_renewals(cx, &mut ticked);
            Poll::Pending
        })
        .await
    }

    /// Stores the end, and renews the lease meanwhile. An answer for which there is no room, or that is too long, is not
    /// retained.
    pub(crate) async fn finish(&self, completion: &Completion, life: Duration) -> Finished {
        let stored = self.in_time(async { Ok(self.try_finish(completion, life).await) });
        self.hold(stored, None, || {}).await.unwrap_or(Finished::Failed)
    }

    async fn try_finish(&self, completion: &Completion, life: Duration) -> Finished {
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

    /// Stores the end in the background, if a runtime is there and not too many records end already; drops `place` then.
    pub(crate) fn finish_detached(self, completion: Completion, life: Duration, place: impl Send + 'static) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(ending) = EndingRecord::take() else { return };
        runtime.spawn(async move {
            let _places = (ending, place);
            for round in 0..ROUNDS {
                if !matches!(self.finish(&completion, life).await, Finished::Failed) {
                    return;
                }
                self.hold(sleep(ROUND_WAIT * (1 << round)), None, || {}).await;
            }
        });
    }

    /// Removes the record, so that another may carry the operation out. If the store fails, it is tried again in the
    /// background, for as long as the store may come back soon.
    pub(crate) async fn abandon(&self) {
        if let Err(error) = self.in_time(self.store.abandon(&self.key, &self.owner)).await
            && matches!(error.kind(), KeyValueErrorKind::Unavailable | KeyValueErrorKind::Indeterminate)
        {
            self.clone().abandon_detached();
        }
    }

    /// Removes the record in the background, if a runtime is there and not too many records end already.
    ///
    /// A record that is not there is looked for once more later: a call that began it and was dropped may have been under way.
    pub(crate) fn abandon_detached(self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let Some(place) = EndingRecord::take() else { return };
        runtime.spawn(async move {
            let _place = place;
            for wait in ABANDON_WAITS {
                match self.in_time(self.store.abandon(&self.key, &self.owner)).await {
                    Ok(Ownership::Held) => return,
                    Ok(Ownership::Lost) => {
                        sleep(self.lease.min(LONGEST_CALL)).await;
                        let _ = self.in_time(self.store.abandon(&self.key, &self.owner)).await;
                        return;
                    }
                    Err(_) => sleep(wait).await,
                }
            }
        });
    }
}

/// A record that ends in the background.
struct EndingRecord;

impl EndingRecord {
    fn take() -> Option<Self> {
        let sum = |count: usize| Some(count + 1).filter(|sum| *sum <= MAX_ENDING);
        ENDING.fetch_update(Relaxed, Relaxed, sum).ok().map(|_| Self)
    }
}

impl Drop for EndingRecord {
    fn drop(&mut self) {
        ENDING.fetch_sub(1, Relaxed);
    }
}

/// A renewal that is under way, and the time at which it began.
type RenewalCall<'a> = (Instant, StoreFuture<'a, Ownership>);

pin_project_lite::pin_project! {
    /// Renewals of a lease. A slow one goes on beside the next, and two at most are under way.
    struct LeaseRenewal<'a> {
        record: &'a OwnedRecord,
        #[pin]
        wait: Sleep,
        calls: [Option<RenewalCall<'a>>; 2],
        until: Option<Instant>,
    }
}

impl LeaseRenewal<'_> {
    /// Renews the lease when it is time; calls `ticked` then. A renewal that has not ended within a lease is given up.
    fn poll_renewals(self: Pin<&mut Self>, cx: &mut Context<'_>, ticked: &mut impl FnMut()) {
        let mut this = self.project();
        while this.until.is_none_or(|until| Instant::now() < until) && this.wait.as_mut().poll(cx).is_ready() {
            let (record, now) = (*this.record, Instant::now());
            ticked();
            this.wait.as_mut().reset(now + record.lease / 3);
            let is_over =
                |call: &Option<RenewalCall<'_>>| call.as_ref().is_none_or(|(at, _)| now - *at >= record.lease);
            if let Some(free) = this.calls.iter_mut().find(|call| is_over(call)) {
                *free = Some((now, record.store.renew(&record.key, &record.owner, record.lease)));
            }
        }
        let mut is_renewed = false;
        for call in this.calls.iter_mut() {
            match call.as_mut().map(|(_, call)| call.as_mut().poll(cx)) {
                Some(Poll::Ready(renewed)) => {
                    *call = None;
                    is_renewed |= renewed.is_ok();
                }
                Some(Poll::Pending) | None => {}
            }
        }
        if is_renewed {
            *this.calls = [None, None]; // the other has nothing to add
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_end_in_the_background_are_bounded() {
        let all: Vec<_> = std::iter::from_fn(EndingRecord::take).take(MAX_ENDING + 1).collect();
        assert_eq!(all.len(), MAX_ENDING);
        drop(all);
        assert!(EndingRecord::take().is_some());
    }
}
