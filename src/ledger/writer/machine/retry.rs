//! Failed steps: reconnecting, retrying, halving rejected batches, and giving up single commands.

use std::sync::Arc;

use super::{Lane, NoticeKind, Step, Writer, WriterPhase};
use crate::ledger::writer::{DbError, LAPSES, Queued, Reply};

/// Number of failures of a batch as a whole. Then its commands are tried one by one, and the caller of a command that
/// fails alone gets its reply.
pub(super) const TRIES: u32 = 3;

/// Number of rejections alone after which a command is dropped. At the first, rows that it depends on may have been
/// written in between.
const REJECTIONS: u32 = 2;

/// Number of consecutive failures to reach the database after which callers no longer wait for it.
pub(super) const DOWN_AFTER: u32 = 3;

impl<R> Writer<R> {
    pub(super) fn failed(&mut self, lane: Lane, error: &DbError, phase: &WriterPhase) -> Option<Step> {
        let why = &Arc::from(error.reason());
        match (error, phase) {
            (DbError::Lost(_), _) | (_, WriterPhase::Connecting | WriterPhase::RollingBack) => {
                self.lost(lane, phase);
                if self.is_down() {
                    self.turn_away(Lane::Main, why);
                }
                return None;
            }
            (DbError::Rejected(_), _) => {
                self.reject(lane, why, matches!(phase, WriterPhase::Writing(_) | WriterPhase::Committing(_)));
            }
            // A missing account that another transaction creates cannot be skipped.
            (DbError::Again(_), WriterPhase::Beginning) if self.skips && lane == Lane::Main => {
                let tenants = |queued: &Queued<R>| Arc::clone(&queued.command.key.tenant);
                let tenants: Vec<_> = self.lanes[lane as usize].batch.iter().map(tenants).collect();
                self.skip(tenants);
            }
            (DbError::Again(_), WriterPhase::Beginning) => self.hold(lane, why),
            // After a commit, the database says that it did not take place. An earlier one with the same command may
            // have.
            (DbError::Again(_), _) | (DbError::Refused(_), WriterPhase::Committing(_)) => {
                self.retry(lane, why, false);
            }
            (DbError::Refused(_), _) if self.halve(lane) => {}
            (DbError::Refused(_), _) => {
                // A file may be read-only, a server a standby: another connection may reach one that takes writes.
                self.retry(lane, why, true);
                self.lanes[lane as usize].phase = WriterPhase::Apart;
                return None;
            }
        }
        Some(self.roll_back(lane))
    }

    /// Drops the connection and returns the batch to the head of the queue, which the second lane hands to the main lane.
    pub(super) fn lost(&mut self, lane: Lane, phase: &WriterPhase) {
        let one = &mut self.lanes[lane as usize];
        if let WriterPhase::Committing(_) = phase {
            one.batch.iter_mut().for_each(|queued| queued.sent = true);
        }
        one.phase = WriterPhase::Apart;
        one.failures = one.failures.saturating_add(1);
        one.resting = one.failures > 1;
        one.locked.clear(); // its locks may be held still
        self.put_back(lane);
        self.return_all(lane);
    }

    /// Marks the accounts of the batch as held, because the database does not say which lock did not come. They are
    /// tried one by one and delay no others. Callers of commands that failed too often get their reply.
    fn hold(&mut self, lane: Lane, why: &Arc<str>) {
        let one = &mut self.lanes[lane as usize];
        one.held.retain_queued(&one.queue);
        for mut queued in std::mem::take(&mut one.batch) {
            self.lanes[lane as usize].held.hold(&queued.command.key.tenant);
            queued.tries += 1;
            if queued.tries >= TRIES {
                let Some(kept) = self.release_caller(lane, queued, why) else { continue };
                queued = Queued { tries: TRIES - 1, ..kept }; // the lock is at fault, not the command
                self.lanes[lane as usize].resting = true;
            }
            self.lanes[lane as usize].batch.push(queued);
        }
        self.put_back(lane);
    }

    /// Replies to the caller that the command is no longer waited for. Returns the command if it stays queued, because
    /// it settles an admission or may have been stored.
    fn release_caller(&mut self, lane: Lane, mut queued: Queued<R>, why: &Arc<str>) -> Option<Queued<R>> {
        let Some(to) = queued.to.take() else {
            return Some(queued).filter(|queued| queued.sent || !queued.left);
        };
        let reply = match lane {
            _ if queued.sent => Reply::Indeterminate,
            Lane::Main => Reply::Unavailable(Arc::clone(why)),
            Lane::Second => Reply::Held,
        };
        self.replies.push((to, reply));
        queued.left = true;
        Some(queued).filter(|queued| queued.sent)
    }

    /// Handles a batch of which the database rejects something, and would again. Halves the batch until one command is
    /// left, tries that once more over rows that are read anew, and drops it; all others are decided without it.
    ///
    /// `decided`: the rows of the batch had been read, and a command that was [sent](Queued::sent) is not among them.
    fn reject(&mut self, lane: Lane, why: &Arc<str>, decided: bool) {
        if self.halve(lane) {
            return;
        }
        let one = &mut self.lanes[lane as usize];
        let Some(mut queued) = one.batch.pop() else { return };
        queued.rejections += 1;
        if queued.rejections < REJECTIONS {
            one.batch.push(queued);
            one.halves.push(1);
            self.put_back(lane);
            return;
        }
        let Queued { command, to, sent, .. } = queued;
        self.ended(&command);
        let mut why = Arc::clone(why);
        if let Some(to) = to {
            let reply = if sent && !decided { Reply::Indeterminate } else { Reply::Rejected(Arc::clone(&why)) };
            self.replies.push((to, reply));
        } else if let Some(lapse) = command.lapse(!command.id) {
            // Without a caller nothing else settles it. The id is not that of the admission, as `^ 1` of a void's would be:
            // after a lost commit its rows would show the lapse as written.
            self.tickets += 1;
            self.lanes[lane as usize].queue.push_front(Queued::new(self.tickets, lapse, None));
            why = format!("{why}{LAPSES}").into();
        }
        self.notify(&command, NoticeKind::Rejected(why));
    }

    /// Returns a batch of several commands to the queue, to be tried in two halves; `false` if it has one or none.
    fn halve(&mut self, lane: Lane) -> bool {
        let one = &mut self.lanes[lane as usize];
        let size = one.batch.len();
        if size > 1 {
            one.halves.extend([size - size / 2, size / 2]);
            self.put_back(lane);
        }
        size > 1
    }

    /// Retries a batch that was rolled back; after [`TRIES`] command by command. The caller of a command that fails
    /// alone gets its reply.
    fn retry(&mut self, lane: Lane, why: &Arc<str>, refused: bool) {
        let one = &mut self.lanes[lane as usize];
        one.batch.iter_mut().for_each(|queued| queued.tries += 1);
        if one.batch.len() != 1 || (!refused && one.batch[0].tries < TRIES) {
            return self.put_back(lane);
        }
        let kept = one.batch.pop().and_then(|queued| self.release_caller(lane, queued, why));
        // A settlement is never dropped: it is tried after all others until the database takes it.
        if let Some(kept) = kept {
            let one = &mut self.lanes[lane as usize];
            one.resting = true;
            one.queue.push_back(Queued { tries: TRIES, ..kept });
        }
    }

    /// Replies to all callers of a lane that the database is out of reach. Commands that may have been stored stay
    /// queued.
    pub(super) fn turn_away(&mut self, lane: Lane, why: &Arc<str>) {
        let queue = std::mem::take(&mut self.lanes[lane as usize].queue);
        self.waiting -= queue.iter().filter(|queued| queued.to.is_some()).count();
        let kept = queue.into_iter().filter_map(|queued| self.release_caller(lane, queued, why)).collect();
        self.lanes[lane as usize].queue = kept;
    }
}
