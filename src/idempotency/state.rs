//! State that the services of a layer share: calls that run, duplicates that wait, bytes that are held, handlers without a client.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

use dashmap::{DashMap, Entry};
use tokio::sync::Notify;

use super::config::{IdempotencyConfig, Replay};
use crate::key_value::{AfterLease, OwnedRecord, RecordKey};

/// Duplicates that wait for one key, and for all.
const WAITING_FOR_ONE: usize = 64;
const WAITING: usize = 4_096;

/// State that the services of a layer share.
#[derive(Default)]
pub(super) struct IdempotencyState {
    running: DashMap<RecordKey, Arc<RunningCall>>,
    waiting: AtomicUsize,
    waiting_by_key: DashMap<RecordKey, usize>,
    buffered: AtomicUsize,
    detached: AtomicUsize,
    /// Notified when no handler runs without a client.
    pub(super) idle: Notify,
    pub(super) tallies: Tallies,
}

/// Numbers of requests since the layer was made.
#[derive(Default)]
pub(super) struct Tallies {
    pub(super) executed: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) not_stored: AtomicU64,
}

/// A call that runs in this process.
#[derive(Default)]
pub(super) struct RunningCall {
    pub(super) ended: Notify,
}

/// Counts up to a bound; counts down when it is dropped.
struct BoundedCount<'a>(&'a AtomicUsize, usize);

impl<'a> BoundedCount<'a> {
    fn take(counter: &'a AtomicUsize, more: usize, most: usize) -> Option<Self> {
        let sum = |used: usize| used.checked_add(more).filter(|sum| *sum <= most);
        counter.fetch_update(Relaxed, Relaxed, sum).ok().map(|_| Self(counter, more))
    }
}

impl Drop for BoundedCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Relaxed);
    }
}

impl IdempotencyState {
    /// Returns the call of a key that runs in this process.
    pub(super) fn running(&self, key: &RecordKey) -> Option<Arc<RunningCall>> {
        self.running.get(key).map(|call| Arc::clone(&call))
    }

    /// Returns the number of handlers that run without a client.
    pub(super) fn detached(&self) -> usize {
        self.detached.load(Relaxed)
    }

    /// Returns the number of bytes of bodies that are held.
    pub(super) fn buffered(&self) -> usize {
        self.buffered.load(Relaxed)
    }
}

/// Place of a duplicate that waits.
pub(super) struct WaitingPlace {
    state: Arc<IdempotencyState>,
    key: RecordKey,
}

impl WaitingPlace {
    /// Takes a place; `None` if all are taken, or all of the key.
    pub(super) fn take(state: &Arc<IdempotencyState>, key: RecordKey) -> Option<Self> {
        let all = BoundedCount::take(&state.waiting, 1, WAITING)?;
        let mut of_key = state.waiting_by_key.entry(key).or_insert(0);
        if *of_key >= WAITING_FOR_ONE {
            return None;
        }
        *of_key += 1;
        std::mem::forget(all); // given back by the drop of this place
        Some(Self { state: Arc::clone(state), key })
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        drop(BoundedCount(&self.state.waiting, 1));
        if let Entry::Occupied(mut of_key) = self.state.waiting_by_key.entry(self.key) {
            *of_key.get_mut() -= 1;
            if *of_key.get() == 0 {
                of_key.remove();
            }
        }
    }
}

/// Bytes of a body that are held.
pub(super) struct BufferedBytes {
    state: Arc<IdempotencyState>,
    bytes: usize,
}

impl BufferedBytes {
    /// Takes room for a body; `None` if there is none.
    pub(super) fn take(state: &Arc<IdempotencyState>, bytes: usize, most: usize) -> Option<Self> {
        std::mem::forget(BoundedCount::take(&state.buffered, bytes, most)?); // given back by the drop of these bytes
        Some(Self { state: Arc::clone(state), bytes })
    }

    /// Returns the number of bytes, which is the greatest length of the body.
    pub(super) const fn length(&self) -> usize {
        self.bytes
    }

    /// Gives back what a body of this length does not need.
    pub(super) fn shrink(&mut self, length: usize) {
        if let Some(less) = self.bytes.checked_sub(length) {
            self.bytes = length;
            self.state.buffered.fetch_sub(less, Relaxed);
        }
    }
}

impl Drop for BufferedBytes {
    fn drop(&mut self) {
        drop(BoundedCount(&self.state.buffered, self.bytes));
    }
}

/// A handler that runs without a client.
pub(super) struct DetachedPlace(Arc<IdempotencyState>);

impl DetachedPlace {
    /// Takes a place; `None` if all are taken.
    pub(super) fn take(state: &Arc<IdempotencyState>, most: usize) -> Option<Self> {
        std::mem::forget(BoundedCount::take(&state.detached, 1, most)?); // given back by the drop of this place
        Some(Self(Arc::clone(state)))
    }
}

impl Drop for DetachedPlace {
    fn drop(&mut self) {
        if self.0.detached.fetch_sub(1, Relaxed) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// A record that this process has begun, until its end is stored. Dropped before, it is left to its lease or abandoned.
pub(super) struct RunningRecord {
    state: Arc<IdempotencyState>,
    call: Arc<RunningCall>,
    pub(super) record: OwnedRecord,
    /// Whether the handler may run again after it was dropped, and after a panic.
    may_rerun: bool,
    may_rerun_after_panic: bool,
    is_settled: bool,
}

impl RunningRecord {
    pub(super) fn new(state: &Arc<IdempotencyState>, config: &IdempotencyConfig, record: OwnedRecord) -> Self {
        let call = Arc::new(RunningCall::default());
        state.running.insert(record.key, Arc::clone(&call)); // in place of an owner that was late
        let may_rerun = config.after_lease == AfterLease::Rerun;
        let may_rerun_after_panic = may_rerun || config.replay == Replay::Final;
        Self { state: Arc::clone(state), call, record, may_rerun, may_rerun_after_panic, is_settled: false }
    }

    /// Says that the end is stored, or cannot be; returns whether this is the first time.
    pub(super) fn settle(&mut self) -> bool {
        !std::mem::replace(&mut self.is_settled, true)
    }
}

impl Drop for RunningRecord {
    fn drop(&mut self) {
        if let Entry::Occupied(present) = self.state.running.entry(self.record.key)
            && Arc::ptr_eq(present.get(), &self.call)
        {
            present.remove();
        }
        let may_rerun = if std::thread::panicking() { self.may_rerun_after_panic } else { self.may_rerun };
        if !self.is_settled && may_rerun {
            self.record.clone().abandon_detached();
        }
        self.call.ended.notify_waiters();
    }
}
