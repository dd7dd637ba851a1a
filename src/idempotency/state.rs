//! State that the services of a layer share: calls that run, duplicates that wait, bytes that are held, handlers without a client.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use dashmap::{DashMap, Entry};
use tokio::sync::Notify;

use super::config::{IdempotencyConfig, Replay};
use crate::{
    key_value::{AfterLease, Completion, OwnedRecord, RecordKey},
    sync::{Share, ShareBounds, Shares},
};

/// Duplicates that wait for one key, and for all.
const WAITING: ShareBounds = ShareBounds { all: 4_096, each: 64 };

/// Ends that are stored in the background at once.
const STORING: usize = 1_024;

/// Digest of a client.
pub(super) type ClientBytes = [u8; 16];

/// State that the services of a layer share.
#[derive(Default)]
pub(super) struct IdempotencyState {
    running: DashMap<RecordKey, Arc<RunningCall>>,
    waiting: Arc<Shares<RecordKey>>,
    /// Bytes of bodies and answers.
    pub(super) buffered: Arc<Shares<ClientBytes>>,
    detached: Arc<Shares<ClientBytes>>,
    storing: Arc<Shares<ClientBytes>>,
    /// Notified when a handler without a client has ended, or an end is stored.
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
    pub(super) not_retained: AtomicU64,
}

/// A call that runs in this process, or a duplicate that asks the store for others too.
#[derive(Default)]
pub(super) struct RunningCall {
    pub(super) ended: Notify,
}

impl IdempotencyState {
    /// Returns the call of a key that runs in this process.
    pub(super) fn running(&self, key: &RecordKey) -> Option<Arc<RunningCall>> {
        self.running.get(key).map(|call| Arc::clone(&call))
    }

    /// Returns the number of handlers that run without a client.
    pub(super) fn detached(&self) -> usize {
        self.detached.used()
    }

    /// Returns whether no handler runs without a client, and no end is stored in the background.
    pub(super) fn is_idle(&self) -> bool {
        self.detached.used() == 0 && self.storing.used() == 0
    }

    /// Takes the place of a duplicate that waits; `None` if all are taken, or all of the key.
    pub(super) fn wait(&self, key: RecordKey) -> Option<Share<RecordKey>> {
        self.waiting.take(key, 1, WAITING).ok()
    }

    fn remove(&self, key: RecordKey, call: &Arc<RunningCall>) {
        if let Entry::Occupied(present) = self.running.entry(key)
            && Arc::ptr_eq(present.get(), call)
        {
            present.remove();
        }
        call.ended.notify_waiters();
    }
}

/// Work without a client: a handler, or an end that is stored.
pub(super) struct Background {
    state: Arc<IdempotencyState>,
    share: Option<Share<ClientBytes>>,
}

impl Background {
    /// Takes the place of a handler; `None` if all are taken, or all of its client.
    pub(super) fn handler(state: &Arc<IdempotencyState>, client: ClientBytes, most: usize) -> Option<Self> {
        Self::of(state, state.detached.take(client, 1, ShareBounds::halved(most)).ok())
    }

    fn end(state: &Arc<IdempotencyState>, client: ClientBytes) -> Option<Self> {
        Self::of(state, state.storing.take(client, 1, ShareBounds::halved(STORING)).ok())
    }

    fn of(state: &Arc<IdempotencyState>, share: Option<Share<ClientBytes>>) -> Option<Self> {
        share.map(|share| Self { state: Arc::clone(state), share: Some(share) })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.share = None;
        if self.state.is_idle() {
            self.state.idle.notify_waiters();
        }
    }
}

/// A duplicate that asks the store for an operation which another process carries out. Other duplicates in this process wait
/// for it.
pub(super) struct Asker {
    state: Arc<IdempotencyState>,
    key: RecordKey,
    call: Arc<RunningCall>,
}

impl Asker {
    /// Returns the asker of a key; `None` if another call of this process runs or asks.
    pub(super) fn of(state: &Arc<IdempotencyState>, key: RecordKey) -> Option<Self> {
        let Entry::Vacant(vacant) = state.running.entry(key) else { return None };
        let call = Arc::clone(&vacant.insert(Arc::default()));
        Some(Self { state: Arc::clone(state), key, call })
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        self.state.remove(self.key, &self.call);
    }
}

/// Progress of a call, which decides what becomes of it when it is dropped.
#[derive(Default)]
pub(super) struct Progress {
    /// Whether the record may be this call's.
    pub(super) begun: AtomicBool,
    /// Whether the call goes on without its client.
    pub(super) hung_up: AtomicBool,
    /// Whether the code of the handler is on the stack. A call that is dropped then is dropped by its panic.
    pub(super) in_handler: AtomicBool,
}

/// A record that this process has begun, until its end is stored. Dropped before, it is left to its lease or abandoned.
pub(super) struct RunningRecord {
    state: Arc<IdempotencyState>,
    config: Arc<IdempotencyConfig>,
    progress: Arc<Progress>,
    client: ClientBytes,
    call: Arc<RunningCall>,
    pub(super) record: OwnedRecord,
    is_settled: bool,
}

impl RunningRecord {
    pub(super) fn new(
        state: &Arc<IdempotencyState>,
        config: &Arc<IdempotencyConfig>,
        progress: &Arc<Progress>,
        client: ClientBytes,
        record: OwnedRecord,
    ) -> Self {
        let call = Arc::new(RunningCall::default());
        state.running.insert(record.key, Arc::clone(&call)); // in place of an owner that was late
        let (state, config, progress) = (Arc::clone(state), Arc::clone(config), Arc::clone(progress));
        Self { state, config, progress, client, call, record, is_settled: false }
    }

    /// Says that the end is stored, or cannot be; returns whether this is the first time.
    pub(super) fn settle(&mut self) -> bool {
        !std::mem::replace(&mut self.is_settled, true)
    }

    /// Stores an end in the background, for as long as the store may come back soon, if not too many are stored already.
    pub(super) fn complete_detached(&self, completion: Completion) {
        if let Some(place) = Background::end(&self.state, self.client) {
            self.record.clone().finish_detached(completion, self.config.life, place);
        }
    }
}

impl Drop for RunningRecord {
    fn drop(&mut self) {
        if self.settle() {
            let has_panicked = self.progress.in_handler.load(Relaxed);
            match (has_panicked, self.config.replay, self.config.after_lease) {
                (true, Replay::EvenFailures, _) => self.complete_detached(Completion::NotRetained),
                (true, Replay::Final, _) | (false, _, AfterLease::Rerun) => self.record.clone().abandon_detached(),
                (false, _, AfterLease::Hold) => {}
            }
        }
        self.state.remove(self.record.key, &self.call);
    }
}
