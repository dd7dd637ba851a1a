//! The queue: callers submit and cancel commands, and batches are taken from it.

use std::{collections::VecDeque, sync::Arc};

use super::{DOWN_AFTER, RunningJob, Writer, WriterPhase, retry::TRIES};
use crate::ledger::writer::{Command, CommandKind, Key, Queued, SettleCommand, SettleKind};

/// Reason why a command was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// Too many callers wait.
    Queue,
    /// The database cannot be reached.
    Down,
    /// The writer was closed.
    Shut,
}

impl SubmitError {
    pub(crate) fn reason(self) -> Arc<str> {
        match self {
            Self::Queue => "too many callers wait for the ledger",
            Self::Down => "the ledger cannot be reached",
            Self::Shut => "the ledger is shut",
        }
        .into()
    }
}

/// Fate of a command whose caller leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelResult {
    /// It was not sent, and never will be.
    Unsent,
    /// It may be stored; if so, it is voided.
    Underway,
    /// It was answered before.
    Answered,
}

impl<R> Writer<R> {
    /// Accepts a command whose caller waits for the reply, and returns its ticket.
    pub(crate) fn submit(&mut self, command: Command, to: R) -> Result<u64, SubmitError> {
        if self.closed {
            return Err(SubmitError::Shut);
        }
        if self.is_down() {
            return Err(SubmitError::Down);
        }
        if self.waiting >= self.max_waiting {
            return Err(SubmitError::Queue);
        }
        self.waiting += 1;
        Ok(self.push(command, Some(to)))
    }

    /// Accepts a command without a caller, always: it settles an admission.
    pub(crate) fn enqueue(&mut self, command: Command) {
        if let CommandKind::Settle(SettleCommand { end: SettleKind::Void, attempt, .. }) = &command.kind {
            // Nothing reports the void, so that the job may be finished before or after it.
            let voided = || RunningJob { command: command.id, attempt: *attempt, goes_back: true };
            let running = self.running.entry(command.key.clone()).or_insert_with(voided);
            running.goes_back |= running.attempt == *attempt;
        }
        self.push(command, None);
    }

    fn push(&mut self, command: Command, to: Option<R>) -> u64 {
        self.tickets += 1;
        self.queue.push_back(Queued::new(self.tickets, command, to));
        self.tickets
    }

    /// Cancels a command whose caller has waited for the whole time-out. If that was for a connection, later commands
    /// are refused at once.
    pub(crate) fn time_out(&mut self, ticket: u64) -> CancelResult {
        if let WriterPhase::Apart | WriterPhase::Connecting = self.phase {
            self.failures = self.failures.max(DOWN_AFTER);
        }
        self.cancel(ticket)
    }

    /// Cancels a command whose caller has left.
    pub(crate) fn cancel(&mut self, ticket: u64) -> CancelResult {
        let is = |queued: &Queued<R>| queued.ticket == ticket;
        if let Some(at) = self.queue.iter().position(is) {
            let queued = &mut self.queue[at];
            self.waiting -= usize::from(queued.to.take().is_some());
            if queued.sent {
                queued.left = true;
                return CancelResult::Underway;
            }
            self.queue.remove(at);
            return CancelResult::Unsent;
        }
        let Some(at) = self.batch.iter().position(is) else { return CancelResult::Answered };
        if matches!(self.phase, WriterPhase::Beginning) && !self.batch[at].sent {
            self.batch.remove(at);
            return CancelResult::Unsent;
        }
        (self.batch[at].to, self.batch[at].left) = (None, true);
        CancelResult::Underway
    }

    /// Reverts the cancellation of a command that is under way: if it is stored, it stays.
    pub(crate) fn keep(&mut self, ticket: u64) {
        if let Some(kept) = self.queue.iter_mut().chain(&mut self.batch).find(|queued| queued.ticket == ticket) {
            kept.left = false;
        }
    }

    /// Whether the work of a named job is under way in this process.
    pub(crate) fn is_running(&self, key: &Key) -> bool {
        self.running.contains_key(key)
    }

    /// Ends the work of a named job. Later duplicates learn that it is done; if it was voided, only once its id is
    /// free.
    pub(crate) fn finish(&mut self, key: &Key, command: u128) {
        if self.running.get(key).is_some_and(|running| running.command == command && !running.goes_back) {
            self.running.remove(key);
        }
    }

    /// Ends at once and replies to all callers.
    pub(crate) fn give_up(&mut self, why: &Arc<str>) {
        let phase = std::mem::replace(&mut self.phase, WriterPhase::Ended);
        self.lost(&phase);
        self.turn_away(why);
        self.queue.clear();
        (self.waiting, self.phase) = (0, WriterPhase::Ended);
    }

    /// Moves the next commands into the batch: those of one held account, or those of all other accounts.
    pub(super) fn fill_batch(&mut self) {
        let held = self.held.next(&self.queue);
        let size = self.halves.pop().unwrap_or(self.max_batch);
        let mut later = VecDeque::new();
        while self.batch.len() < size
            && let Some(queued) = self.queue.pop_front()
        {
            if !self.held.fits(&queued, held.as_ref()) {
                later.push_back(queued);
                continue;
            }
            // A command that failed too often is decided alone, because it makes others fail.
            let alone = queued.tries >= TRIES;
            if alone && !self.batch.is_empty() {
                later.push_back(queued);
                break;
            }
            self.batch.push(queued);
            if alone {
                break;
            }
        }
        later.into_iter().rev().for_each(|queued| self.queue.push_front(queued));
        self.waiting -= self.batch.iter().filter(|queued| queued.to.is_some()).count();
    }

    /// Returns the batch to the head of the queue.
    pub(super) fn put_back(&mut self) {
        for queued in self.batch.drain(..).rev().filter(|queued| queued.sent || !queued.left) {
            self.waiting += usize::from(queued.to.is_some());
            self.queue.push_front(queued);
        }
    }
}
