//! The writer's state machine: stores commands batch by batch and performs no I/O.
//!
//! Its driver performs one [`Step`] of each lane at a time and reports the [`StepResult`]. Between two steps it delivers
//! the [replies](Writer::replies). Callers may submit and cancel commands at any time.

mod held;
mod queue;
mod replies;
mod retry;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

pub(crate) use held::Lane;
use held::LaneState;
pub(crate) use queue::{CancelResult, SubmitError};
pub(crate) use replies::{NoticeKind, WriterNotice};
use replies::{RunningJob, RunningStage};
use retry::DOWN_AFTER;

use super::{CommandKind, DbError, Decided, Key, Loaded, Queued, Reads, Reply, Writes, batch};

/// A writer that replies to its callers through `R`.
#[derive(Clone, Debug)]
pub(crate) struct Writer<R> {
    lanes: [LaneState<R>; 2],
    /// Accounts of the second lane.
    second: BTreeSet<Arc<str>>,
    /// Whether the main lane skips accounts that are held. A database that one transaction locks as a whole has one lane.
    skips: bool,
    replies: Vec<(R, Reply)>,
    /// Reports that no caller waits for.
    notices: Vec<WriterNotice>,
    /// Named jobs whose work is under way in this process.
    running: HashMap<Key, RunningJob>,
    /// Number of the latest ticket.
    tickets: u64,
    /// Number of callers that wait in the queues.
    waiting: usize,
    max_waiting: usize,
    max_batch: usize,
    closed: bool,
    #[cfg(test)]
    pub(in crate::ledger::writer) planted: Option<PlantedFault>,
}

/// A fault that the explorer must find.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger::writer) enum PlantedFault {
    /// Submits commands to the main lane, whichever lane their account is in.
    ForgetsLanes,
    /// Accounts stay in the second lane when it has no connection.
    StrandsAccounts,
}

/// State of the connection and its transaction.
#[derive(Clone, Debug)]
enum WriterPhase {
    /// There is no connection.
    Apart,
    Connecting,
    Idle,
    Beginning,
    Writing(Vec<Decided>),
    Committing(Vec<Decided>),
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
    Write(Box<Writes>, u64),
    Commit,
    RollBack,
    /// Drop the connection and wait for this duration plus a jitter.
    Rest(Duration),
    /// Let callers that were answered submit again, while the writer [awaits](Writer::awaits_callers) any, for a few
    /// turns of the runtime.
    Rejoin,
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
    Rejoined,
    Failed(DbError),
}

/// Rest after the first failure, doubled with each further one.
const REST: Duration = Duration::from_millis(50);
/// Number of failures from which the rest does not grow.
const DOUBLINGS: u32 = 6;
/// Longest rest.
const MAX_REST: Duration = Duration::from_secs(2);

impl<R> Writer<R> {
    /// Creates a writer with two lanes if `skips`, with one otherwise.
    pub(crate) fn new(max_waiting: usize, max_batch: usize, skips: bool) -> Self {
        Self {
            lanes: Default::default(),
            second: BTreeSet::new(),
            skips,
            replies: Vec::new(),
            notices: Vec::new(),
            running: HashMap::new(),
            tickets: 0,
            waiting: 0,
            max_waiting,
            max_batch: max_batch.max(1),
            closed: false,
            #[cfg(test)]
            planted: None,
        }
    }

    /// Takes the result of the previous step of a lane, if there was one, and returns its next step.
    pub(crate) fn step(&mut self, lane: Lane, result: Option<StepResult>) -> Step {
        if let Some(step) = result.and_then(|result| self.advance(lane, result)) {
            return step;
        }
        // Accounts may move between the lanes until all is settled.
        let ends = self.closed && self.backlog() == 0;
        let awaits_callers = self.awaits_callers(lane);
        let one = &mut self.lanes[lane as usize];
        let waits = one.queue.is_empty() && !one.is_down();
        match one.phase {
            WriterPhase::Apart | WriterPhase::Idle if ends => {
                one.phase = WriterPhase::Ended;
                Step::End
            }
            WriterPhase::Apart if one.resting => {
                one.resting = false;
                Step::Rest(REST.saturating_mul(1 << one.failures.min(DOUBLINGS)).min(MAX_REST))
            }
            WriterPhase::Apart if waits => Step::Wait,
            WriterPhase::Apart => {
                one.phase = WriterPhase::Connecting;
                Step::Connect
            }
            WriterPhase::Idle if one.resting => {
                one.phase = WriterPhase::Apart;
                self.step(lane, None)
            }
            WriterPhase::Idle if awaits_callers => Step::Rejoin,
            WriterPhase::Idle if waits => Step::Wait,
            // After an outage an empty transaction tests whether the database can be read, before callers wait for it.
            WriterPhase::Idle => self.begin(lane),
            WriterPhase::Ended => Step::End,
            // A driver that asks without a result in the middle of a step has cancelled that step.
            _ => {
                let phase = std::mem::replace(&mut one.phase, WriterPhase::Apart);
                self.lost(lane, &phase);
                self.step(lane, None)
            }
        }
    }

    /// Advances a lane by the result of a step; `None` if the next step depends on the queue.
    fn advance(&mut self, lane: Lane, result: StepResult) -> Option<Step> {
        let one = &mut self.lanes[lane as usize];
        match (result, std::mem::replace(&mut one.phase, WriterPhase::Idle)) {
            (StepResult::Connected, WriterPhase::Connecting) => None,
            (StepResult::RolledBack, WriterPhase::RollingBack) => {
                one.failures = 0;
                self.return_locked(lane);
                None
            }
            (StepResult::Rested, _) => {
                one.phase = WriterPhase::Apart;
                None
            }
            (StepResult::Rejoined, WriterPhase::Idle) => {
                one.answered = 0;
                None
            }
            (StepResult::Loaded(loaded), WriterPhase::Beginning) => Some(self.decide(lane, loaded)),
            (StepResult::Wrote, WriterPhase::Writing(decided)) => {
                one.phase = WriterPhase::Committing(decided);
                Some(Step::Commit)
            }
            (StepResult::Committed, WriterPhase::Committing(decided)) => {
                one.failures = 0;
                self.conclude(lane, decided);
                self.return_locked(lane);
                None
            }
            (StepResult::Failed(error), phase) => self.failed(lane, &error, &phase),
            (_, phase) => {
                self.lost(lane, &phase);
                None
            }
        }
    }

    fn begin(&mut self, lane: Lane) -> Step {
        self.fill_batch(lane);
        let one = &mut self.lanes[lane as usize];
        one.phase = WriterPhase::Beginning;
        one.answered = 0;
        let skips_held = self.skips && lane == Lane::Main;
        Step::Begin(Reads { skips_held, ..batch::reads(&one.batch) })
    }

    fn decide(&mut self, lane: Lane, loaded: Loaded) -> Step {
        self.skip(loaded.held.clone());
        let (now, one) = (loaded.now, &mut self.lanes[lane as usize]);
        let locked = || one.batch.iter().map(|queued| &queued.command.key.tenant);
        one.held.release(locked());
        if lane == Lane::Second {
            one.locked = locked().cloned().collect();
        }
        for Queued { command, .. } in &mut one.batch {
            if let CommandKind::SettleJob { running, .. } = &mut command.kind {
                *running = self.running.contains_key(&command.key);
            }
        }
        let (writes, decided) = batch::decide(&one.batch, loaded);
        if writes.is_empty() {
            // All commands were refused or had been stored before.
            self.conclude(lane, decided);
            return self.roll_back(lane);
        }
        one.phase = WriterPhase::Writing(decided);
        Step::Write(Box::new(writes), now)
    }

    fn roll_back(&mut self, lane: Lane) -> Step {
        self.lanes[lane as usize].phase = WriterPhase::RollingBack;
        Step::RollBack
    }

    /// Whether the database has been out of reach for [`DOWN_AFTER`] attempts.
    pub(crate) fn is_down(&self) -> bool {
        self.lanes[Lane::Main as usize].is_down()
    }

    /// Returns the number of commands that are not settled yet.
    pub(crate) fn backlog(&self) -> usize {
        Lane::ALL.into_iter().map(|lane| self.backlog_of(lane)).sum()
    }

    /// Returns the number of commands of a lane that are not settled yet.
    pub(crate) fn backlog_of(&self, lane: Lane) -> usize {
        let one = &self.lanes[lane as usize];
        one.queue.len() + one.batch.len()
    }

    /// Whether callers that were answered may submit commands that join the next batch, which has room for them. Accounts
    /// of the second lane return to the main lane, so that its callers do not join its next batch.
    pub(crate) fn awaits_callers(&self, lane: Lane) -> bool {
        let one = &self.lanes[lane as usize];
        let size = one.halves.last().copied().unwrap_or(self.max_batch);
        lane == Lane::Main && !self.closed && one.answered > 0 && one.queue.len() < size
    }

    /// Accepts no more commands, and ends when all accepted ones are settled.
    pub(crate) fn close(&mut self) {
        self.closed = true;
    }

    /// Whether it accepts no more commands.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns the accounts that the commands of a lane name.
    #[cfg(test)]
    pub(in crate::ledger::writer) fn tenants_of(&self, lane: Lane) -> BTreeSet<&Arc<str>> {
        let one = &self.lanes[lane as usize];
        one.queue.iter().chain(&one.batch).map(|queued| &queued.command.key.tenant).collect()
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
        for one in &self.lanes {
            (one.queue.len(), one.batch.len()).hash(into);
            for Queued { command, to, left, sent, tries, rejections, .. } in one.queue.iter().chain(&one.batch) {
                let settles = match &command.kind {
                    CommandKind::Settle(settle) => Some((settle.attempt, settle.since)),
                    _ => None,
                };
                (command.id, settles, to, left, sent, tries, rejections).hash(into);
            }
            std::mem::discriminant(&one.phase).hash(into);
            if let WriterPhase::Writing(decided) | WriterPhase::Committing(decided) = &one.phase {
                for Decided { reply, .. } in decided {
                    std::mem::discriminant(reply).hash(into);
                    if let Reply::Admitted(admitted) = reply {
                        (admitted.attempt, admitted.since).hash(into);
                    }
                }
            }
            (&one.held, &one.locked, &one.halves, one.failures.min(DOUBLINGS), one.resting).hash(into);
            one.answered.hash(into);
        }
        let mut running: Vec<_> = self.running.iter().collect();
        running.sort_unstable();
        running.hash(into);
        (&self.second, self.closed).hash(into);
    }
}
