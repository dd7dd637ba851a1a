//! The writer's state machine: stores commands batch by batch and performs no I/O.
//!
//! Its driver performs one [`Step`] at a time and reports the [`StepResult`]. Between two steps it delivers the
//! [replies](Writer::replies). Callers may submit and cancel commands at any time.

mod held;
mod queue;
mod replies;
mod retry;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use held::HeldAccounts;
pub(crate) use queue::{CancelResult, SubmitError};
use replies::RunningJob;
pub(crate) use replies::{NoticeKind, WriterNotice};
use retry::DOWN_AFTER;

#[cfg(test)]
use super::CommandKind;
use super::{DbError, Key, Loaded, Queued, Reads, Reply, Writes, batch};

/// A writer that replies to its callers through `R`.
#[derive(Clone, Debug)]
pub(crate) struct Writer<R> {
    queue: VecDeque<Queued<R>>,
    batch: Vec<Queued<R>>,
    phase: WriterPhase,
    replies: Vec<(R, Reply)>,
    /// Reports that no caller waits for.
    notices: Vec<WriterNotice>,
    /// Named jobs whose work is under way in this process.
    running: HashMap<Key, RunningJob>,
    /// Number of the latest ticket.
    tickets: u64,
    /// Number of callers that wait in the queue.
    waiting: usize,
    max_waiting: usize,
    max_batch: usize,
    /// Sizes of the next batches, the next one last: the halves of a batch that the database rejected.
    halves: Vec<usize>,
    held: HeldAccounts,
    /// Number of consecutive failures to reach the database.
    failures: u32,
    resting: bool,
    closed: bool,
}

/// State of the connection and its transaction.
#[derive(Clone, Debug)]
enum WriterPhase {
    /// There is no connection.
    Apart,
    Connecting,
    Idle,
    Beginning,
    Writing(Vec<Reply>),
    Committing(Vec<Reply>),
    RollingBack,
    Ended,
}

/// Next operation of the driver.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Step {
    /// Connect, after dropping the previous connection, if there is one.
    Connect,
    Begin(Reads),
    /// Write, as of the time that was read.
    Write(Writes, u64),
    Commit,
    RollBack,
    /// Drop the connection and wait for this duration plus a jitter.
    Rest(Duration),
    /// Wait for a command.
    Wait,
    /// Drop the connection; the writer has ended.
    End,
}

/// Result of a [`Step`].
#[derive(Debug)]
pub(crate) enum StepResult {
    Connected,
    Loaded(Loaded),
    Wrote,
    Committed,
    RolledBack,
    Rested,
    Failed(DbError),
}

/// Rest after the first failure, doubled with each further one.
const REST: Duration = Duration::from_millis(50);
/// Longest rest.
const MAX_REST: Duration = Duration::from_secs(2);

impl<R> Writer<R> {
    pub(crate) fn new(max_waiting: usize, max_batch: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            batch: Vec::new(),
            phase: WriterPhase::Apart,
            replies: Vec::new(),
            notices: Vec::new(),
            running: HashMap::new(),
            tickets: 0,
            waiting: 0,
            max_waiting,
            max_batch: max_batch.max(1),
            halves: Vec::new(),
            held: HeldAccounts::default(),
            failures: 0,
            resting: false,
            closed: false,
        }
    }

    /// Takes the result of the previous step, if there was one, and returns the next step.
    pub(crate) fn step(&mut self, result: Option<StepResult>) -> Step {
        if let Some(step) = result.and_then(|result| self.advance(result)) {
            return step;
        }
        let empty = self.queue.is_empty();
        match self.phase {
            WriterPhase::Apart | WriterPhase::Idle if self.closed && empty => {
                self.phase = WriterPhase::Ended;
                Step::End
            }
            WriterPhase::Apart if self.resting => {
                self.resting = false;
                Step::Rest(REST.saturating_mul(1 << self.failures.min(10)).min(MAX_REST))
            }
            WriterPhase::Apart if empty && !self.is_down() => Step::Wait,
            WriterPhase::Apart => {
                self.phase = WriterPhase::Connecting;
                Step::Connect
            }
            WriterPhase::Idle if self.resting => {
                self.phase = WriterPhase::Apart;
                self.step(None)
            }
            WriterPhase::Idle if empty && !self.is_down() => Step::Wait,
            // After an outage an empty transaction tests whether the database can be read, before callers wait for it.
            WriterPhase::Idle => self.begin(),
            WriterPhase::Ended => Step::End,
            // A driver that asks without a result in the middle of a step has cancelled that step.
            _ => {
                let phase = std::mem::replace(&mut self.phase, WriterPhase::Apart);
                self.lost(&phase);
                self.step(None)
            }
        }
    }

    /// Advances by the result of a step; `None` if the next step depends on the queue.
    fn advance(&mut self, result: StepResult) -> Option<Step> {
        match (result, std::mem::replace(&mut self.phase, WriterPhase::Idle)) {
            (StepResult::Connected, WriterPhase::Connecting) => None,
            (StepResult::RolledBack, WriterPhase::RollingBack) => {
                self.failures = 0;
                None
            }
            (StepResult::Rested, _) => {
                self.phase = WriterPhase::Apart;
                None
            }
            (StepResult::Loaded(loaded), WriterPhase::Beginning) => Some(self.decide(loaded)),
            (StepResult::Wrote, WriterPhase::Writing(replies)) => {
                self.phase = WriterPhase::Committing(replies);
                Some(Step::Commit)
            }
            (StepResult::Committed, WriterPhase::Committing(replies)) => {
                self.failures = 0;
                self.conclude(replies);
                None
            }
            (StepResult::Failed(error), phase) => self.failed(&error, &phase),
            (_, phase) => {
                self.lost(&phase);
                None
            }
        }
    }

    fn begin(&mut self) -> Step {
        self.fill_batch();
        self.phase = WriterPhase::Beginning;
        Step::Begin(batch::reads(&self.batch))
    }

    fn decide(&mut self, loaded: Loaded) -> Step {
        let now = loaded.now;
        self.held.release(self.batch.iter().map(|queued| &queued.command.key.tenant));
        let (writes, replies) = batch::decide(&self.batch, loaded);
        if writes.is_empty() {
            // All commands were refused or had been stored before.
            self.conclude(replies);
            return self.roll_back();
        }
        self.phase = WriterPhase::Writing(replies);
        Step::Write(writes, now)
    }

    fn roll_back(&mut self) -> Step {
        self.phase = WriterPhase::RollingBack;
        Step::RollBack
    }

    /// Whether the database has been out of reach for [`DOWN_AFTER`] attempts.
    pub(crate) fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// Returns the number of commands that are not settled yet.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.len() + self.batch.len()
    }

    /// Accepts no more commands, and ends when all accepted ones are settled.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether it accepts no more commands.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the replies that are due, each with its receiver.
    pub(crate) fn replies(&mut self) -> Vec<(R, Reply)> {
        std::mem::take(&mut self.replies)
    }

    /// Takes the notices that are due.
    pub(crate) fn notices(&mut self) -> Vec<WriterNotice> {
        std::mem::take(&mut self.notices)
    }
}

/// Identity of a writer's state, for the explorer: commands are told apart by their ids, tickets are ignored.
#[cfg(test)]
impl<R: std::hash::Hash> std::hash::Hash for Writer<R> {
    fn hash<H: std::hash::Hasher>(&self, into: &mut H) {
        (self.queue.len(), self.batch.len()).hash(into);
        for Queued { command, to, left, sent, tries, rejections, .. } in self.queue.iter().chain(&self.batch) {
            let settles = match &command.kind {
                CommandKind::Settle(settle) => Some((settle.attempt, settle.since)),
                _ => None,
            };
            (command.id, settles, to, left, sent, tries, rejections).hash(into);
        }
        std::mem::discriminant(&self.phase).hash(into);
        if let WriterPhase::Writing(replies) | WriterPhase::Committing(replies) = &self.phase {
            for reply in replies {
                std::mem::discriminant(reply).hash(into);
                if let Reply::Admitted(admitted) = reply {
                    (admitted.attempt, admitted.since).hash(into);
                }
            }
        }
        let mut running: Vec<_> = self.running.iter().collect();
        running.sort_unstable();
        running.hash(into);
        (&self.held, &self.halves, self.failures, self.resting, self.closed).hash(into);
    }
}
