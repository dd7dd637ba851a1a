//! The one who brings orders into a database, batch by batch: a machine that says what to do next and is told how it went.
//!
//! Whoever drives it performs one [`Step`] at a time and reports its [`StepResult`]. Between the two it is asked for what can be
//! [answered](Writer::answers). Callers come and go at any time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use super::{
    AdmitReply, Command, CommandKind, DbError, Key, Loaded, Reads, Reply, SettleCommand, SettleKind, Writes,
    batch::{self, Turn},
};
use crate::quota::{Amounts, account::Warning};

/// A writer whose callers are answered through `R`.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Writer<R> {
    queue: VecDeque<Queued<R>>,
    batch: Vec<Queued<R>>,
    phase: WriterPhase,
    answers: Vec<Answered<R>>,
    /// Reports that no caller waits for.
    notices: Vec<WriterNotice>,
    /// Named jobs whose work is under way in this process.
    running: HashMap<Key, RunningJob>,
    tickets: u64,
    /// Callers that wait in the queue.
    waiting: usize,
    most_waiting: usize,
    most_in_batch: usize,
    /// Sizes of the next batches, the last one first: the halves of a batch that the database refused.
    halves: Vec<usize>,
    /// Accounts that somebody else may hold: each is decided apart, in turn with all others together.
    held: BTreeSet<Arc<str>>,
    /// The one of them whose turn was last, and whether it is that of the others now.
    last_held: Option<Arc<str>>,
    others_now: bool,
    /// How often in a row the database could not be reached.
    failures: u32,
    resting: bool,
    shut: bool,
}

/// A named job whose work is under way, or whose charge is still to go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct RunningJob {
    command: u128,
    attempt: u32,
    /// It came to nothing: it is over when that is durable.
    goes_back: bool,
}

/// An answer, and whom to give it to.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Answered<R> {
    pub(crate) to: R,
    pub(crate) reply: Reply,
}

/// Something to report about an order, whether a caller waits for it or not.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct WriterNotice {
    pub(crate) origin: u32,
    pub(crate) key: Key,
    pub(crate) what: NoticeKind,
}

/// Content of a [`WriterNotice`].
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) enum NoticeKind {
    /// The client has come near to these limits.
    Near(Vec<Warning>),
    /// The database rejected the order for good, for this reason, and the order is dropped.
    Rejected(Arc<str>),
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Queued<R> {
    ticket: u64,
    command: Command,
    /// `None` where nobody waits: what settles a charge, and what a caller that has gone has left.
    to: Option<R>,
    /// Somebody waited, and went away while it was on its way.
    left: bool,
    /// A commit with it was sent: whether it took place is for the database to say.
    sent: bool,
    tries: u32,
    /// Number of times that the database rejected it alone.
    rejections: u32,
}

impl<R> Queued<R> {
    fn new(ticket: u64, command: Command, to: Option<R>) -> Self {
        Self { ticket, command, to, left: false, sent: false, tries: 0, rejections: 0 }
    }

    fn turn(&self) -> Turn<'_> {
        Turn { command: &self.command, sent: self.sent, left: self.left }
    }
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
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

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Clone, Hash))]
pub(crate) enum Step {
    /// Connect; the connection before, if there was one, is to be dropped.
    Connect,
    Begin(Reads),
    /// Write, as of the time that was read.
    Write(Writes, u64),
    Commit,
    RollBack,
    /// Drop the connection and wait so long, and a little longer.
    Rest(Duration),
    /// Wait until somebody comes.
    Wait,
    /// Drop the connection: it is over.
    End,
}

/// How a step went.
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

/// Why an order is not even taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubmitError {
    /// Too many are waiting.
    Queue,
    /// The database cannot be reached.
    Down,
    /// The writer was shut.
    Shut,
}

/// What becomes of an order whose caller leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CancelResult {
    /// It was not sent, and never will be.
    Unsent,
    /// It may be written; if so, it is given back.
    Underway,
    /// It was answered before.
    Answered,
}

/// So often a batch that others were in the way of is tried again as a whole.
const TRIES: u32 = 3;

/// So often an order is rejected alone before it is dropped: what it is decided by may have been written in between.
const REJECTIONS: u32 = 2;

/// So often in a row the database must not be reached before nobody waits for it.
const DOWN_AFTER: u32 = 3;

/// The first rest after a failure, and the longest.
const REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(2);

impl<R> Writer<R> {
    pub(crate) fn new(most_waiting: usize, most_in_batch: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            batch: Vec::new(),
            phase: WriterPhase::Apart,
            answers: Vec::new(),
            notices: Vec::new(),
            running: HashMap::new(),
            tickets: 0,
            waiting: 0,
            most_waiting,
            most_in_batch: most_in_batch.max(1),
            halves: Vec::new(),
            held: BTreeSet::new(),
            last_held: None,
            others_now: false,
            failures: 0,
            resting: false,
            shut: false,
        }
    }

    /// Takes an order whose caller waits for the answer.
    pub(crate) fn submit(&mut self, command: Command, to: R) -> Result<u64, (SubmitError, R)> {
        if self.shut {
            return Err((SubmitError::Shut, to));
        }
        if self.is_down() {
            return Err((SubmitError::Down, to));
        }
        if self.waiting >= self.most_waiting {
            return Err((SubmitError::Queue, to));
        }
        self.waiting += 1;
        Ok(self.push(command, Some(to)))
    }

    /// Takes an order that nobody waits for, always: it settles what was admitted.
    pub(crate) fn enqueue(&mut self, command: Command) {
        if let CommandKind::Settle(SettleCommand { end: SettleKind::Void, attempt, .. }) = &command.kind {
            // Nobody is told that it was done, whether it was said to be over before or is afterwards.
            let finished = || RunningJob { command: command.id, attempt: *attempt, goes_back: true };
            let running = self.running.entry(command.key.clone()).or_insert_with(finished);
            running.goes_back |= running.attempt == *attempt;
        }
        self.push(command, None);
    }

    /// The caller has waited long enough. Where it was for a connection, nobody else is asked to wait for that.
    pub(crate) fn time_out(&mut self, ticket: u64) -> CancelResult {
        if let WriterPhase::Apart | WriterPhase::Connecting = self.phase {
            self.failures = self.failures.max(DOWN_AFTER);
        }
        self.cancel(ticket)
    }

    /// The caller waits no more.
    pub(crate) fn cancel(&mut self, ticket: u64) -> CancelResult {
        if let Some(at) = self.queue.iter().position(|pending| pending.ticket == ticket) {
            let pending = &mut self.queue[at];
            if pending.to.take().is_some() {
                self.waiting -= 1;
            }
            if pending.sent {
                pending.left = true;
                return CancelResult::Underway;
            }
            self.queue.remove(at);
            return CancelResult::Unsent;
        }
        let begun = matches!(self.phase, WriterPhase::Beginning);
        let Some(at) = self.batch.iter().position(|pending| pending.ticket == ticket) else {
            return CancelResult::Answered;
        };
        if begun && !self.batch[at].sent {
            self.batch.remove(at);
            return CancelResult::Unsent;
        }
        (self.batch[at].to, self.batch[at].left) = (None, true);
        CancelResult::Underway
    }

    /// Whoever left an order under way wants it all the same: if it is written, it stays.
    pub(crate) fn keep(&mut self, ticket: u64) {
        if let Some(kept) = self.queue.iter_mut().chain(&mut self.batch).find(|pending| pending.ticket == ticket) {
            kept.left = false;
        }
    }

    /// Whether the work of a named job is under way in this process.
    pub(crate) fn is_running(&self, key: &Key) -> bool {
        self.running.contains_key(key)
    }

    /// The work of a named job is over: duplicates are told so; where it came to nothing, once its id is free again.
    pub(crate) fn finish(&mut self, key: &Key, command: u128) {
        if self.running.get(key).is_some_and(|running| running.command == command && !running.goes_back) {
            self.running.remove(key);
        }
    }

    /// Takes no more orders, and ends when all it has are settled.
    pub(crate) fn close(&mut self) {
        self.shut = true;
    }

    /// Whether it takes no more orders.
    pub(crate) fn is_closed(&self) -> bool {
        self.shut
    }

    /// Whether the database could not be reached for some time.
    pub(crate) fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// How many orders are not settled yet.
    pub(crate) fn backlog(&self) -> usize {
        self.queue.len() + self.batch.len()
    }

    /// What can be answered now.
    pub(crate) fn answers(&mut self) -> Vec<Answered<R>> {
        std::mem::take(&mut self.answers)
    }

    /// Returns the reports that are due.
    pub(crate) fn notices(&mut self) -> Vec<WriterNotice> {
        std::mem::take(&mut self.notices)
    }

    /// Answers everybody who waits, because it is over.
    pub(crate) fn give_up(&mut self, why: &Arc<str>) {
        let phase = std::mem::replace(&mut self.phase, WriterPhase::Ended);
        self.lost(&phase);
        self.turn_away(why);
        self.queue.clear();
        (self.waiting, self.phase) = (0, WriterPhase::Ended);
    }

    /// How the last step went, if there was one; what to do next.
    pub(crate) fn step(&mut self, event: Option<StepResult>) -> Step {
        if let Some(step) = event.and_then(|event| self.heard(event)) {
            return step;
        }
        match self.phase {
            WriterPhase::Apart if self.shut && self.queue.is_empty() => self.end(),
            WriterPhase::Apart if self.resting => {
                self.resting = false;
                Step::Rest(REST.saturating_mul(1 << self.failures.min(10)).min(LONGEST_REST))
            }
            WriterPhase::Apart if self.queue.is_empty() && !self.is_down() => Step::Wait,
            WriterPhase::Apart => {
                self.phase = WriterPhase::Connecting;
                Step::Connect
            }
            WriterPhase::Idle if self.resting => {
                self.phase = WriterPhase::Apart;
                self.step(None)
            }
            WriterPhase::Idle if self.queue.is_empty() && self.shut => self.end(),
            // Before anybody is asked to wait again: can it be read?
            WriterPhase::Idle if self.queue.is_empty() && self.is_down() => self.begin(),
            WriterPhase::Idle if self.queue.is_empty() => Step::Wait,
            WriterPhase::Idle => self.begin(),
            WriterPhase::Ended => Step::End,
            // Whoever asks without a report in the middle of a step has cancelled it.
            _ => {
                let phase = std::mem::replace(&mut self.phase, WriterPhase::Apart);
                self.lost(&phase);
                self.step(None)
            }
        }
    }

    fn end(&mut self) -> Step {
        self.phase = WriterPhase::Ended;
        Step::End
    }

    fn begin(&mut self) -> Step {
        let whose = self.whose_turn();
        let fits = |pending: &Queued<R>| match &whose {
            Some(tenant) => pending.command.key.tenant == *tenant,
            None => self.held.is_empty() || !self.held.contains(&pending.command.key.tenant),
        };
        let apart = |pending: &Queued<R>| pending.tries >= TRIES; // it has made others fail
        let mut most = self.halves.pop().unwrap_or(self.most_in_batch);
        let mut later = VecDeque::new();
        while self.batch.len() < most
            && let Some(pending) = self.queue.pop_front()
        {
            match fits(&pending) {
                true if self.batch.is_empty() || !apart(&pending) => {
                    if apart(&pending) {
                        most = 1;
                    }
                    self.batch.push(pending);
                }
                fits => {
                    later.push_back(pending);
                    if fits {
                        break; // by itself, when its turn comes
                    }
                }
            }
        }
        while let Some(pending) = later.pop_back() {
            self.queue.push_front(pending);
        }
        self.waiting -= self.batch.iter().filter(|pending| pending.to.is_some()).count();
        self.phase = WriterPhase::Beginning;
        Step::Begin(batch::reads(self.batch.iter().map(Queued::turn)))
    }

    /// The account that is decided apart now; `None` where it is the turn of all others.
    fn whose_turn(&mut self) -> Option<Arc<str>> {
        let waits = |tenant: &Arc<str>| self.queue.iter().any(|pending| pending.command.key.tenant == *tenant);
        let others = || self.queue.iter().any(|pending| !self.held.contains(&pending.command.key.tenant));
        if self.held.is_empty() || (self.others_now && others()) {
            self.others_now = false;
            return None;
        }
        let after = self.last_held.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.held.range((after, Bound::Unbounded)).chain(&self.held).find(|tenant| waits(tenant)).cloned();
        (self.others_now, self.last_held) = (next.is_some(), next.clone());
        next
    }

    /// Goes on from a report; `None` where what comes next depends on the queue.
    fn heard(&mut self, event: StepResult) -> Option<Step> {
        match (event, std::mem::replace(&mut self.phase, WriterPhase::Idle)) {
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
            (StepResult::Failed(fault), phase) => self.failed(fault, phase),
            (_, phase) => {
                self.lost(&phase);
                None
            }
        }
    }

    fn decide(&mut self, loaded: Loaded) -> Step {
        let now = loaded.now;
        if !self.held.is_empty() {
            for pending in &self.batch {
                self.held.remove(&pending.command.key.tenant);
            }
        }
        let (writes, replies) = batch::decide(self.batch.iter().map(Queued::turn), loaded);
        if writes.is_empty() {
            // Nothing but refusals and what was durable before.
            self.conclude(replies);
            self.phase = WriterPhase::RollingBack;
            return Step::RollBack;
        }
        self.phase = WriterPhase::Writing(replies);
        Step::Write(writes, now)
    }

    /// Answers a batch whose verdicts are durable.
    fn conclude(&mut self, replies: Vec<Reply>) {
        let batch = std::mem::take(&mut self.batch);
        let (mut back, mut again) = (Vec::new(), Vec::new());
        for (pending, mut reply) in batch.into_iter().zip(replies) {
            let goes_back = |key: &Key| back.iter().any(|void: &Command| void.key == *key);
            match &mut reply {
                Reply::Admitted(admitted) if pending.left => back.extend(taken_back(pending.command, admitted)),
                // What it was measured by is about to go back.
                Reply::Replay { .. } | Reply::Conflict if goes_back(&pending.command.key) => again.push(pending),
                _ => self.answer(pending, reply),
            }
        }
        self.batch = again;
        self.put_back();
        for command in back.into_iter().rev() {
            self.tickets += 1;
            let ticket = self.tickets;
            // Before whoever comes with the same id again.
            self.queue.push_front(Queued::new(ticket, command, None));
        }
    }

    /// Answers an order whose verdict is durable.
    fn answer(&mut self, pending: Queued<R>, mut reply: Reply) {
        let Queued { command, to, .. } = pending;
        let (key, origin) = (command.key.clone(), command.origin);
        match (&mut reply, &command.kind) {
            // Of what nobody waited for nobody would tell the end.
            (Reply::Admitted(admitted), _) if !command.own && to.is_some() => {
                let running = RunningJob { command: command.id, attempt: admitted.attempt, goes_back: false };
                self.running.insert(command.key, running);
            }
            (Reply::Replay { running, .. }, _) => *running = self.running.contains_key(&command.key),
            (Reply::Settled(..), CommandKind::Settle(SettleCommand { end: SettleKind::Void, attempt, .. })) => {
                self.gone_back(&command.key, *attempt);
            }
            _ => {}
        }
        match (to, reply) {
            (Some(to), reply) => self.answers.push(Answered { to, reply }),
            (None, Reply::Settled(_, near)) if !near.is_empty() => {
                self.notices.push(WriterNotice { origin, key, what: NoticeKind::Near(near) });
            }
            _ => {}
        }
    }

    /// An attempt has gone back: the job's id is free again.
    fn gone_back(&mut self, key: &Key, attempt: u32) {
        if self.running.get(key).is_some_and(|running| running.goes_back && running.attempt == attempt) {
            self.running.remove(key);
        }
    }

    fn failed(&mut self, error: DbError, phase: WriterPhase) -> Option<Step> {
        let why = &Arc::from(error.reason());
        match (error, phase) {
            (DbError::Lost(_), phase)
            | (
                DbError::Again(_) | DbError::Rejected(_) | DbError::Refused(_),
                phase @ (WriterPhase::Connecting | WriterPhase::RollingBack),
            ) => {
                self.lost(&phase);
                if self.is_down() {
                    self.turn_away(why);
                }
                None
            }
            (DbError::Rejected(_), phase) => {
                self.reject(why, matches!(phase, WriterPhase::Writing(_) | WriterPhase::Committing(_)));
                self.roll_back()
            }
            (DbError::Again(_) | DbError::Refused(_), WriterPhase::Committing(_)) => {
                // The database has said that it did not take place; what was sent before that may still have.
                self.retry(why, false);
                self.roll_back()
            }
            (DbError::Again(_), WriterPhase::Beginning) => {
                self.in_the_way(why);
                self.roll_back()
            }
            (DbError::Again(_), _) => {
                self.retry(why, false);
                self.roll_back()
            }
            (DbError::Refused(_), _) if self.halve() => self.roll_back(),
            (DbError::Refused(_), _) => {
                // Whatever takes no writes, a file that is read-only or a server that has become a standby, another
                // connection may find one that does.
                self.retry(why, true);
                self.phase = WriterPhase::Apart;
                None
            }
        }
    }

    fn roll_back(&mut self) -> Option<Step> {
        self.phase = WriterPhase::RollingBack;
        Some(Step::RollBack)
    }

    /// The connection is gone: what was under way is first in the queue again.
    fn lost(&mut self, phase: &WriterPhase) {
        if let WriterPhase::Committing(_) = phase {
            self.batch.iter_mut().for_each(|pending| pending.sent = true);
        }
        self.phase = WriterPhase::Apart;
        self.failures = self.failures.saturating_add(1);
        self.resting = self.failures > 1;
        self.put_back();
    }

    fn put_back(&mut self) {
        for pending in self.batch.drain(..).rev() {
            if pending.left && !pending.sent {
                continue; // it never will be
            }
            self.waiting += usize::from(pending.to.is_some());
            self.queue.push_front(pending);
        }
    }

    /// Somebody else holds one of these accounts, and nobody says which: they are tried again one by one, and keep nobody
    /// else. Whoever has been tried often enough is told.
    fn in_the_way(&mut self, why: &Arc<str>) {
        self.held.retain(|tenant| self.queue.iter().any(|pending| pending.command.key.tenant == *tenant));
        for mut pending in std::mem::take(&mut self.batch) {
            self.held.insert(Arc::clone(&pending.command.key.tenant));
            pending.tries += 1;
            if pending.tries >= TRIES {
                let Some(kept) = self.tell_tired(pending, why) else { continue };
                pending = Queued { tries: TRIES - 1, ..kept }; // by no fault of its own
                self.resting = true;
            }
            self.batch.push(pending);
        }
        self.put_back();
    }

    /// Tells whoever waits that nothing more is tried for it; gives what is kept, because it is tried until the database
    /// takes it, or may have been written.
    fn tell_tired(&mut self, mut pending: Queued<R>, why: &Arc<str>) -> Option<Queued<R>> {
        match pending.to.take() {
            Some(to) if pending.sent => {
                pending.left = true;
                self.answers.push(Answered { to, reply: Reply::Indeterminate });
                Some(pending)
            }
            Some(to) => {
                self.answers.push(Answered { to, reply: Reply::Unavailable(Arc::clone(why)) });
                None
            }
            None => Some(pending).filter(|pending| pending.sent || !pending.left),
        }
    }

    /// The database rejects something in the batch and would reject it again. Halves the batch until one order is left,
    /// tries that once more over rows that are read anew, and drops it; all others are decided without it.
    ///
    /// `decided`: the rows of the batch were read before, and an order that was [sent](Queued::sent) is not among them.
    fn reject(&mut self, why: &Arc<str>, decided: bool) {
        if self.halve() {
            return;
        }
        let Some(mut pending) = self.batch.pop() else { return };
        pending.rejections += 1;
        if pending.rejections < REJECTIONS {
            self.batch.push(pending);
            self.halves.push(1);
            self.put_back();
            return;
        }
        let Queued { command, to, sent, .. } = pending;
        if let CommandKind::Settle(SettleCommand { end: SettleKind::Void, attempt, .. }) = &command.kind {
            self.gone_back(&command.key, *attempt);
        }
        if let Some(to) = to {
            let reply = if sent && !decided { Reply::Indeterminate } else { Reply::Rejected(Arc::clone(why)) };
            self.answers.push(Answered { to, reply });
        }
        self.notices.push(WriterNotice {
            origin: command.origin,
            key: command.key,
            what: NoticeKind::Rejected(Arc::clone(why)),
        });
    }

    /// Puts a batch of several orders back, to be tried in two halves; false where it has one order, or none.
    fn halve(&mut self) -> bool {
        let many = self.batch.len();
        if many > 1 {
            self.halves.extend([many - many / 2, many / 2]);
            self.put_back();
        }
        many > 1
    }

    /// The transaction came to nothing: it is tried again, order by order where that was of no use; whoever cannot be helped
    /// is told.
    fn retry(&mut self, why: &Arc<str>, refused: bool) {
        self.batch.iter_mut().for_each(|pending| pending.tries += 1);
        let tired = self.batch.iter().any(|pending| pending.tries >= TRIES);
        if self.batch.len() > 1 {
            self.put_back(); // once they are tired, one by one
            return;
        }
        let Some(pending) = self.batch.pop() else { return };
        if !refused && !tired {
            self.batch.push(pending);
            self.put_back();
            return;
        }
        // Nothing that was served is lost: it is tried until the database takes it, after everybody else.
        if let Some(kept) = self.tell_tired(pending, why) {
            self.resting = true;
            self.queue.push_back(Queued { tries: TRIES, ..kept });
        }
    }

    /// Nobody waits for a database that is not there. What was sent stays: it may have been written.
    fn turn_away(&mut self, why: &Arc<str>) {
        let mut kept = VecDeque::with_capacity(self.queue.len());
        for pending in std::mem::take(&mut self.queue) {
            self.waiting -= usize::from(pending.to.is_some());
            kept.extend(self.tell_tired(pending, why));
        }
        self.queue = kept;
    }

    fn push(&mut self, command: Command, to: Option<R>) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.queue.push_back(Queued::new(ticket, command, to));
        ticket
    }
}

/// Gives back what was admitted for a caller who has gone without knowing it: nothing was worked on.
fn taken_back(command: Command, admitted: &AdmitReply) -> Option<Command> {
    let CommandKind::Admit(admit) = command.kind else { return None };
    let settle = SettleCommand {
        plan: admit.plan,
        attempt: admitted.attempt,
        since: admitted.since,
        end: SettleKind::Void,
        used: Amounts::new(),
        part: 0,
    };
    let id = command.id ^ 1; // an id of its own: those of orders are even
    Some(Command { key: command.key, id, own: false, origin: command.origin, kind: CommandKind::Settle(settle) })
}

/// What tells two writers apart: an order is known by its id, a ticket by nobody.
#[cfg(test)]
impl<R: std::hash::Hash> std::hash::Hash for Writer<R> {
    fn hash<H: std::hash::Hasher>(&self, into: &mut H) {
        let pending = |pending: &Queued<R>, into: &mut H| {
            let settles = match &pending.command.kind {
                CommandKind::Settle(settle) => Some((settle.attempt, settle.since)),
                _ => None,
            };
            (pending.command.id, settles, &pending.to, pending.left, pending.sent, pending.tries, pending.rejections)
                .hash(into);
        };
        (self.queue.len(), self.batch.len()).hash(into);
        self.queue.iter().chain(&self.batch).for_each(|one| pending(one, into));
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
        (&self.held, &self.last_held, self.others_now).hash(into);
        (&self.halves, self.failures, self.resting, self.shut).hash(into);
    }
}
