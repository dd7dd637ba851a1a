//! Failed steps: reconnecting, retrying, halving rejected batches, and giving up single commands.

use std::sync::Arc;

use super::{NoticeKind, Step, Writer, WriterPhase};
use crate::ledger::writer::{DbError, Queued, Reply};

/// Number of failures of a batch as a whole. Then its commands are tried one by one, and the caller of a command that
/// fails alone gets its reply.
pub(super) const TRIES: u32 = 3;

/// Number of rejections alone after which a command is dropped. At the first, rows that it depends on may have been
/// written in between.
const REJECTIONS: u32 = 2;

/// Number of consecutive failures to reach the database after which callers no longer wait for it.
pub(super) const DOWN_AFTER: u32 = 3;

impl<R> Writer<R> {
    pub(super) fn failed(&mut self, error: &DbError, phase: &WriterPhase) -> Option<Step> {
        let why = &Arc::from(error.reason());
        match (error, phase) {
            (DbError::Lost(_), _) | (_, WriterPhase::Connecting | WriterPhase::RollingBack) => {
                self.lost(phase);
                if self.is_down() {
                    self.turn_away(why);
                }
                return None;
            }
            (DbError::Rejected(_), _) => {
                self.reject(why, matches!(phase, WriterPhase::Writing(_) | WriterPhase::Committing(_)));
            }
            (DbError::Again(_), WriterPhase::Beginning) => self.hold(why),
            // After a commit, the database says that it did not take place. An earlier one with the same command may
            // have.
            (DbError::Again(_), _) | (DbError::Refused(_), WriterPhase::Committing(_)) => self.retry(why, false),
            (DbError::Refused(_), _) if self.halve() => {}
            (DbError::Refused(_), _) => {
                // A file may be read-only, a server a standby: another connection may reach one that takes writes.
                self.retry(why, true);
                self.phase = WriterPhase::Apart;
                return None;
            }
        }
        Some(self.roll_back())
    }

    /// Drops the connection and returns the batch to the head of the queue.
    pub(super) fn lost(&mut self, phase: &WriterPhase) {
        if let WriterPhase::Committing(_) = phase {
            self.batch.iter_mut().for_each(|queued| queued.sent = true);
        }
        self.phase = WriterPhase::Apart;
        self.failures = self.failures.saturating_add(1);
        self.resting = self.failures > 1;
        self.put_back();
    }

    /// Marks the accounts of the batch as held, because the database does not say which lock did not come. They are
    /// tried one by one and delay no others. Callers of commands that failed too often get their reply.
    fn hold(&mut self, why: &Arc<str>) {
        self.held.retain_queued(&self.queue);
        for mut queued in std::mem::take(&mut self.batch) {
            self.held.hold(&queued.command.key.tenant);
            queued.tries += 1;
            if queued.tries >= TRIES {
                let Some(kept) = self.release_caller(queued, why) else { continue };
                queued = Queued { tries: TRIES - 1, ..kept }; // the lock is at fault, not the command
                self.resting = true;
            }
            self.batch.push(queued);
        }
        self.put_back();
    }

    /// Replies to the caller that the command is no longer waited for. Returns the command if it stays queued, because
    /// it settles an admission or may have been stored.
    fn release_caller(&mut self, mut queued: Queued<R>, why: &Arc<str>) -> Option<Queued<R>> {
        let Some(to) = queued.to.take() else {
            return Some(queued).filter(|queued| queued.sent || !queued.left);
        };
        let reply = if queued.sent { Reply::Indeterminate } else { Reply::Unavailable(Arc::clone(why)) };
        self.replies.push((to, reply));
        queued.left = true;
        Some(queued).filter(|queued| queued.sent)
    }

    /// Handles a batch of which the database rejects something, and would again. Halves the batch until one command is
    /// left, tries that once more over rows that are read anew, and drops it; all others are decided without it.
    ///
    /// `decided`: the rows of the batch had been read, and a command that was [sent](Queued::sent) is not among them.
    fn reject(&mut self, why: &Arc<str>, decided: bool) {
        if self.halve() {
            return;
        }
        let Some(mut queued) = self.batch.pop() else { return };
        queued.rejections += 1;
        if queued.rejections < REJECTIONS {
            self.batch.push(queued);
            self.halves.push(1);
            self.put_back();
            return;
        }
        let Queued { command, to, sent, .. } = queued;
        self.voided(&command);
        if let Some(to) = to {
            let reply = if sent && !decided { Reply::Indeterminate } else { Reply::Rejected(Arc::clone(why)) };
            self.replies.push((to, reply));
        }
        self.notify(command, NoticeKind::Rejected(Arc::clone(why)));
    }

    /// Returns a batch of several commands to the queue, to be tried in two halves; `false` if it has one or none.
    fn halve(&mut self) -> bool {
        let size = self.batch.len();
        if size > 1 {
            self.halves.extend([size - size / 2, size / 2]);
            self.put_back();
        }
        size > 1
    }

    /// Retries a batch that was rolled back; after [`TRIES`] command by command. The caller of a command that fails
    /// alone gets its reply.
    fn retry(&mut self, why: &Arc<str>, refused: bool) {
        self.batch.iter_mut().for_each(|queued| queued.tries += 1);
        let [queued] = &*self.batch else { return self.put_back() };
        if !refused && queued.tries < TRIES {
            return self.put_back();
        }
        let kept = self.batch.pop().and_then(|queued| self.release_caller(queued, why));
        // A settlement is never dropped: it is tried after all others until the database takes it.
        if let Some(kept) = kept {
            self.resting = true;
            self.queue.push_back(Queued { tries: TRIES, ..kept });
        }
    }

    /// Replies to all callers that the database is out of reach. Commands that may have been stored stay queued.
    pub(super) fn turn_away(&mut self, why: &Arc<str>) {
        self.waiting -= self.queue.iter().filter(|queued| queued.to.is_some()).count();
        let queue = std::mem::take(&mut self.queue);
        self.queue = queue.into_iter().filter_map(|queued| self.release_caller(queued, why)).collect();
    }
}
