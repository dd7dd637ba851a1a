//! Queue of a spool, shared by its handles, its merging task and its writer thread.

use std::{
    any::Any,
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::oneshot;

use super::{
    local_share::Allowances,
    spool_format::Recovered,
    spool_state::{FEW, JobClaim, SpoolState, SpooledCommand},
};
use crate::{
    identity::Client,
    ledger::writer::{Command, CommandKind, Key, SettleKind},
    quota::{
        account::Duplicate,
        store::{StoreEvent, StoreListener},
    },
};

/// The queue. All its locks are held only for moments.
pub(in crate::ledger) struct SpoolQueue {
    pub(super) path: PathBuf,
    state: Mutex<SpoolState>,
    pub(super) wake: Condvar,
    /// Local shares of the ledger's layers.
    allowances: Mutex<Allowances>,
    /// Listeners of the layers; a layer that is dropped leaves a dead one.
    listeners: Mutex<Vec<SpoolListener>>,
    /// The open ledger to which the spool belongs.
    pub(super) owner: Mutex<Option<Weak<dyn Any + Send + Sync>>>,
    merging: AtomicBool,
}

type SpoolListener = Weak<dyn Fn(&StoreEvent) + Send + Sync>;

/// Commands of a round of merging.
#[derive(Debug, Default)]
pub(super) struct NextRound {
    pub(super) commands: Vec<Command>,
    /// Whether the ledger is probed.
    pub(super) probes_ledger: bool,
    /// Held accounts to probe.
    pub(super) probes: Vec<Arc<str>>,
}

/// End of a record that is no longer pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordEnd {
    Merged,
    /// Its job had been charged before.
    Duplicate,
    SetAside,
}

/// Result of a round of merging.
#[derive(Debug, Default)]
pub(super) struct MergeRound {
    /// Records that are no longer pending. Those of one account are its first, in their order.
    pub(super) ended: Vec<(Command, RecordEnd)>,
    /// Whether the ledger has decided any command.
    pub(super) reached: bool,
    /// Accounts that other transactions hold.
    pub(super) held: HashSet<Arc<str>>,
    /// Accounts that were probed and can be written.
    pub(super) free: Vec<Arc<str>>,
}

impl SpoolQueue {
    /// Returns the queue of a file with these contents.
    pub(super) fn new(path: &Path, file: Recovered) -> Self {
        Self {
            path: path.into(),
            state: Mutex::new(SpoolState::new(file)),
            wake: Condvar::new(),
            allowances: Mutex::default(),
            listeners: Mutex::default(),
            owner: Mutex::new(None),
            merging: AtomicBool::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SpoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn allowances(&self) -> MutexGuard<'_, Allowances> {
        self.allowances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notifies `listener` for as long as it lives.
    pub(in crate::ledger) fn listen(&self, listener: &StoreListener) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(listener));
    }

    /// Calls the listeners without the lock: one may build a layer, which adds a listener, or drop the last of one.
    pub(super) fn notify(&self, event: &StoreEvent) {
        let mut alive = Vec::new();
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).retain(|listener| {
            let listener = listener.upgrade();
            let lives = listener.is_some();
            alive.extend(listener);
            lives
        });
        alive.iter().for_each(|listener| listener(event));
    }

    /// Whether the ledger is asked about an account.
    pub(in crate::ledger) fn asks(&self, tenant: &str) -> bool {
        let state = self.lock();
        !state.away && !state.pending.is_held(tenant)
    }

    /// Records that another transaction holds an account: its requests pass without the ledger.
    pub(in crate::ledger) fn hold(&self, tenant: &Arc<str>) {
        let new = self.lock().pending.hold(tenant);
        if new {
            self.notify(&StoreEvent::Held(Client::named(Arc::clone(tenant))));
        }
    }

    /// Whether no record waits for the ledger.
    pub(in crate::ledger) fn is_empty(&self) -> bool {
        self.lock().left() == 0
    }

    /// Records that the ledger has not decided.
    pub(in crate::ledger) fn lost(&self, why: &Arc<str>) {
        let was_away = std::mem::replace(&mut self.lock().away, true);
        if !was_away {
            self.notify(&StoreEvent::Lost(Arc::clone(why)));
        }
    }

    /// Claims a job until it is released; refuses a duplicate.
    pub(in crate::ledger) fn claim(
        &self,
        key: &Key,
        command: u128,
        fingerprint: Option<u128>,
    ) -> Result<(), Duplicate> {
        let mut state = self.lock();
        if let Some(known) = state.claims.get(key) {
            return Err(known.reply(fingerprint));
        }
        let claim = JobClaim { command, fingerprint, running: true, done: false, merged: false, passed: false };
        state.claims.insert(key.clone(), claim);
        Ok(())
    }

    /// Releases the claim of a caller that the ledger has answered, or that has left.
    pub(in crate::ledger) fn release(&self, key: &Key, command: u128) {
        let mut state = self.lock();
        if state.claims.get(key).is_some_and(|claim| claim.command == command && !claim.passed) {
            state.claims.remove(key);
        }
    }

    /// Records that the work of a job that passed has ended: it was done, or interrupted.
    pub(in crate::ledger) fn finish(&self, key: &Key, command: u128, done: bool) {
        let mut state = self.lock();
        if let Some(claim) = state.claims.get_mut(key).filter(|claim| claim.command == command) {
            (claim.running, claim.done) = (false, done);
            if claim.merged {
                state.release(key);
            }
        }
    }

    /// Records the reply to duplicates of a job that the ledger has charged, once the job does not run here.
    pub(in crate::ledger) fn remember(&self, key: &Key, fingerprint: Option<u128>, known: Duplicate) {
        self.lock().recent.add(key, fingerprint, known);
    }

    /// Records that the work of a job that the ledger has charged was done.
    pub(in crate::ledger) fn remember_done(&self, key: &Key) {
        self.lock().recent.finish(key);
    }

    /// Returns the state of a job that is being decided, or that passed and is not merged or still runs.
    pub(in crate::ledger) fn claimed(&self, key: &Key) -> Option<Duplicate> {
        self.lock().claims.get(key).map(JobClaim::state)
    }

    /// Returns the reply to a duplicate of a job that passed, and is not merged or still runs.
    pub(in crate::ledger) fn passed(&self, key: &Key, fingerprint: Option<u128>) -> Option<Duplicate> {
        self.lock().claims.get(key).filter(|claim| claim.passed).map(|claim| claim.reply(fingerprint))
    }

    pub(in crate::ledger) fn forget(&self, key: &Key) {
        self.lock().recent.forget(key);
    }

    /// Whether a job that is about to pass was charged before, as far as this process remembers.
    pub(in crate::ledger) fn knows(&self, key: &Key, fingerprint: Option<u128>) -> Option<Duplicate> {
        self.lock().recent.get(key).map(|known| known.reply(fingerprint))
    }

    /// Writes a charge that passes, and waits for the disk. Returns false if there is no room for it or it cannot be
    /// written.
    pub(in crate::ledger) async fn keep(&self, command: Command) -> bool {
        let kept = {
            let mut state = self.lock();
            let Some(body) = state.encode(&command) else { return false };
            if state.size_with(&body) > state.most || state.broken || state.closed {
                let new = !std::mem::replace(&mut state.full, true);
                drop(state);
                if new {
                    self.notify(&StoreEvent::Full);
                }
                return false;
            }
            if let Some(claim) = state.claims.get_mut(&command.key).filter(|claim| claim.command == command.id) {
                claim.passed = true;
            }
            let (reply, kept) = oneshot::channel();
            state.add(SpooledCommand { command: unowned(command), body, reply: Some(reply) });
            kept
        };
        self.wake.notify_one();
        kept.await.unwrap_or(false)
    }

    /// Writes the settlement of a charge that passed, even without room, and does not wait.
    pub(in crate::ledger) fn settle(&self, command: Command) {
        let mut state = self.lock();
        let Some(body) = state.encode(&command) else { return };
        if let CommandKind::SettleOf { of, settle } = &command.kind
            && settle.end == SettleKind::Void
        {
            state.free(&command.key, *of);
        }
        state.add(SpooledCommand { command: unowned(command), body, reply: None });
        drop(state);
        self.wake.notify_one();
    }

    /// Returns the commands to submit next, and what to probe, at most `most` of each. Accounts take turns. While no
    /// ledger is named for the records in the file, the ledger is probed, and they wait.
    pub(super) fn next(&self, most: usize) -> NextRound {
        let mut state = self.lock();
        state.names |= state.unnamed && state.ledger.is_some();
        if state.names {
            self.wake.notify_one();
        }
        let most_records = if state.unnamed { 0 } else { most };
        NextRound {
            commands: state.pending.next(most_records),
            probes_ledger: state.away || (state.unnamed && state.ledger.is_none()),
            probes: state.pending.next_probes(most),
        }
    }

    /// Records the result of a round.
    pub(super) fn end_round(&self, round: MergeRound) {
        let mut events = Vec::new();
        {
            let mut state = self.lock();
            for (command, end) in round.ended {
                state.pending.pop(&command.key.tenant);
                state.has(&command);
                state.merged += u64::from(end != RecordEnd::SetAside);
                state.duplicates += u64::from(end == RecordEnd::Duplicate);
            }
            for tenant in round.held {
                if state.pending.hold(&tenant) {
                    events.push(StoreEvent::Held(Client::named(tenant)));
                }
            }
            for tenant in round.free {
                if state.pending.len_of(&tenant) <= FEW {
                    state.pending.release(&tenant);
                }
            }
            let left = state.left();
            if left == 0 && state.merged > 0 {
                let (records, duplicates) = (std::mem::take(&mut state.merged), std::mem::take(&mut state.duplicates));
                events.push(StoreEvent::Merged { records, duplicates });
            }
            let waiting = left - state.pending.len() + state.pending.free_len();
            if state.away && round.reached && waiting <= FEW {
                state.away = false;
                events.push(StoreEvent::Back);
            }
        }
        self.wake.notify_one();
        events.iter().for_each(|event| self.notify(event));
    }

    /// Starts merging; false if a task is merging already.
    pub(in crate::ledger) fn begin_merging(&self) -> bool {
        !self.merging.swap(true, Ordering::AcqRel)
    }

    pub(in crate::ledger) fn end_merging(&self) {
        self.merging.store(false, Ordering::Release);
    }

    /// Ends the writer thread once it has written all commands.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }
}

/// Returns a command that is no layer's: the spool reports its end, to all layers.
fn unowned(command: Command) -> Command {
    Command { origin: 0, ..command }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI32;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_outage_is_reported_once_at_its_start_and_end(steps in proptest::collection::vec((any::<bool>(), 0..2_000_usize), 0..50)) {
            let queue = SpoolQueue::new(Path::new("none"), Recovered::default());
            let outages = Arc::new(AtomicI32::new(0));
            let counted = Arc::clone(&outages);
            let listener: StoreListener = Arc::new(move |event| match event {
                StoreEvent::Lost(_) => _ = counted.fetch_add(1, Ordering::Relaxed),
                StoreEvent::Back => _ = counted.fetch_sub(1, Ordering::Relaxed),
                _ => {}
            });
            queue.listen(&listener);
            for (lost, left) in steps {
                queue.lock().writing = left;
                let reached = MergeRound { reached: true, ..MergeRound::default() };
                if lost { queue.lost(&"gone".into()) } else { queue.end_round(reached) }
                let away = queue.lock().away;
                prop_assert_eq!(outages.load(Ordering::Relaxed), i32::from(away));
                prop_assert!(!lost || away);
                prop_assert!(lost || left > FEW || !away);
            }
        }
    }
}
