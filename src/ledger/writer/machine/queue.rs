//! The queue: callers submit and cancel commands, and batches are taken from it.

use std::{collections::VecDeque, sync::Arc};

use super::{DOWN_AFTER, Lane, LaneState, RunningStage, Writer, WriterPhase, retry::TRIES};
use crate::ledger::writer::{Command, CommandKind, Key, Queued, SettleKind};

/// Reason why a command was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// Too many callers wait.
    Queue,
    /// The database cannot be reached.
    Down,
    /// Another transaction holds the account, and its lane is full or cannot reach the database.
    Held,
    /// The writer was closed.
    Shut,
}

impl SubmitError {
    pub(crate) fn reason(self) -> Arc<str> {
        match self {
            Self::Queue => "too many callers wait for the ledger",
            Self::Down => "the ledger cannot be reached",
            Self::Held => "another transaction holds the account",
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
    /// As unsent, because another transaction holds its account.
    Held,
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
        let (lane, one) = (self.lane_of(&command.key.tenant), &self.lanes[Lane::Second as usize]);
        // Callers of held accounts leave half of the room to others.
        if lane == Lane::Second && (one.is_down() || one.queue.len() >= self.max_waiting / 2) {
            return Err(SubmitError::Held);
        }
        self.waiting += 1;
        Ok(self.push(command, Some(to)))
    }

    /// Accepts a command without a caller, always: it settles an admission.
    pub(crate) fn enqueue(&mut self, command: Command) {
        // A duplicate is not told of an end before it is durable.
        if let CommandKind::Settle(settle) = &command.kind
            && settle.ends_job()
            && let Some(running) = self.running.get_mut(&command.key)
            && running.attempt == settle.attempt
        {
            let returns = settle.end == SettleKind::Void;
            running.stage = if returns { RunningStage::Returning } else { RunningStage::Ending };
        }
        self.push(command, None);
    }

    fn push(&mut self, command: Command, to: Option<R>) -> u64 {
        self.tickets += 1;
        let lane = self.lane_of(&command.key.tenant);
        let one = &mut self.lanes[lane as usize];
        one.answered = one.answered.saturating_sub(usize::from(to.is_some()));
        one.queue.push_back(Queued { held: lane == Lane::Second, ..Queued::new(self.tickets, command, to) });
        self.tickets
    }

    /// Cancels a command whose caller has waited for the whole time-out. If that was for a connection, later commands
    /// are refused at once.
    pub(crate) fn time_out(&mut self, ticket: u64) -> CancelResult {
        let held_in = |lane: Lane| {
            let one = &self.lanes[lane as usize];
            let found = one.queue.iter().chain(&one.batch).find(|queued| queued.ticket == ticket);
            found.map(|queued| (lane, queued.held))
        };
        let Some((lane, held)) = Lane::ALL.into_iter().find_map(held_in) else { return CancelResult::Answered };
        let one = &mut self.lanes[lane as usize];
        if let WriterPhase::Apart | WriterPhase::Connecting = one.phase {
            one.failures = one.failures.max(DOWN_AFTER);
        }
        match self.cancel(ticket) {
            CancelResult::Unsent if held && !self.is_down() => CancelResult::Held,
            cancelled => cancelled,
        }
    }

    /// Cancels a command whose caller has left.
    pub(crate) fn cancel(&mut self, ticket: u64) -> CancelResult {
        let is = |queued: &Queued<R>| queued.ticket == ticket;
        for one in &mut self.lanes {
            if let Some(at) = one.queue.iter().position(is) {
                let queued = &mut one.queue[at];
                self.waiting -= usize::from(queued.to.take().is_some());
                if queued.sent {
                    queued.left = true;
                    return CancelResult::Underway;
                }
                one.queue.remove(at);
                return CancelResult::Unsent;
            }
            let Some(at) = one.batch.iter().position(is) else { continue };
            if matches!(one.phase, WriterPhase::Beginning) && !one.batch[at].sent {
                one.batch.remove(at);
                return CancelResult::Unsent;
            }
            (one.batch[at].to, one.batch[at].left) = (None, true);
            return CancelResult::Underway;
        }
        CancelResult::Answered
    }

    /// Reverts the cancellation of a command that is under way: if it is stored, it stays, because the fallback admits
    /// it under the same id.
    pub(crate) fn keep(&mut self, command: u128) {
        let queued = self.lanes.iter_mut().flat_map(|one| one.queue.iter_mut().chain(&mut one.batch));
        queued.filter(|queued| queued.command.id == command).for_each(|queued| queued.left = false);
    }

    /// Whether the work of a named job is under way in this process, or its charge is being returned.
    pub(crate) fn is_running(&self, key: &Key) -> bool {
        self.running.get(key).is_some_and(|running| running.stage != RunningStage::Ending)
    }

    /// Ends at once and replies to all callers.
    pub(crate) fn give_up(&mut self, why: &Arc<str>) {
        for lane in Lane::ALL {
            let phase = std::mem::replace(&mut self.lanes[lane as usize].phase, WriterPhase::Ended);
            self.lost(lane, &phase);
        }
        for lane in Lane::ALL {
            self.turn_away(lane, why);
            self.lanes[lane as usize] = LaneState { phase: WriterPhase::Ended, ..LaneState::default() };
        }
        self.waiting = 0;
    }

    /// Moves the next commands of a lane into its batch: those of one held account, or those of all other accounts.
    pub(super) fn fill_batch(&mut self, lane: Lane) {
        let one = &mut self.lanes[lane as usize];
        let held = one.held.next(&one.queue);
        let size = one.halves.pop().unwrap_or(self.max_batch);
        let mut later = VecDeque::new();
        while one.batch.len() < size
            && let Some(queued) = one.queue.pop_front()
        {
            if !one.held.fits(&queued, held.as_ref()) {
                later.push_back(queued);
                continue;
            }
            // A command that failed too often is decided alone, because it makes others fail.
            let alone = queued.tries >= TRIES;
            if alone && !one.batch.is_empty() {
                later.push_back(queued);
                break;
            }
            one.batch.push(queued);
            if alone {
                break;
            }
        }
        later.into_iter().rev().for_each(|queued| one.queue.push_front(queued));
        self.waiting -= one.batch.iter().filter(|queued| queued.to.is_some()).count();
    }

    /// Returns the batch of a lane to the head of its queue.
    pub(super) fn put_back(&mut self, lane: Lane) {
        self.waiting += self.lanes[lane as usize].put_back();
    }
}
