//! The one who brings orders into a database, batch by batch: a machine that says what to do next and is told how it went.
//!
//! Whoever drives it performs one [`Step`] at a time and reports its [`Event`]. Between the two it is asked for what can be
//! [answered](Writer::answers). Callers come and go at any time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use super::{
    Act, Admitted, End, Key, Loaded, Order, Reads, Settle, Verdict, Writes,
    batch::{self, Turn},
};
use crate::quota::{Amounts, account::Warning};

/// A writer whose callers are answered through `R`.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Writer<R> {
    queue: VecDeque<Pending<R>>,
    batch: Vec<Pending<R>>,
    phase: Phase,
    answers: Vec<Answered<R>>,
    /// Reports that no caller waits for.
    notices: Vec<Notice>,
    /// Named jobs whose work is under way in this process.
    running: HashMap<Key, Running>,
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
struct Running {
    order: u128,
    attempt: u32,
    /// It came to nothing: it is over when that is durable.
    goes_back: bool,
}

/// An answer, and whom to give it to.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Answered<R> {
    pub(crate) to: R,
    pub(crate) verdict: Verdict,
}

/// Something to report about an order, whether a caller waits for it or not.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Notice {
    pub(crate) origin: u32,
    pub(crate) key: Key,
    pub(crate) what: Report,
}

/// Content of a [`Notice`].
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) enum Report {
    /// The client has come near to these limits.
    Near(Vec<Warning>),
    /// The database rejected the order for good, for this reason, and the order is dropped.
    Rejected(Arc<str>),
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Pending<R> {
    ticket: u64,
    order: Order,
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

impl<R> Pending<R> {
    fn new(ticket: u64, order: Order, to: Option<R>) -> Self {
        Self { ticket, order, to, left: false, sent: false, tries: 0, rejections: 0 }
    }

    fn turn(&self) -> Turn<'_> {
        Turn { order: &self.order, sent: self.sent, left: self.left }
    }
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
enum Phase {
    /// There is no connection.
    Apart,
    Connecting,
    Idle,
    Beginning,
    Writing(Vec<Verdict>),
    Committing(Vec<Verdict>),
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
pub(crate) enum Event {
    Connected,
    Loaded(Loaded),
    Wrote,
    Committed,
    RolledBack,
    Rested,
    Failed(Fault),
}

/// Why a step came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Others were in the way; the transaction came to nothing.
    Again(Arc<str>),
    /// The database rejects what one of the orders reads or writes, and would again; the transaction came to nothing.
    Rejected(Arc<str>),
    /// The connection is of no use any more.
    Lost(Arc<str>),
    /// The database takes no writes at present; the transaction came to nothing.
    Refused(Arc<str>),
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
            phase: Phase::Apart,
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
    pub(crate) fn ask(&mut self, order: Order, to: R) -> Result<u64, (SubmitError, R)> {
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
        Ok(self.push(order, Some(to)))
    }

    /// Takes an order that nobody waits for, always: it settles what was admitted.
    pub(crate) fn tell(&mut self, order: Order) {
        if let Act::Settle(Settle { end: End::Void, attempt, .. }) = &order.act {
            // Nobody is told that it was done, whether it was said to be over before or is afterwards.
            let finished = || Running { order: order.id, attempt: *attempt, goes_back: true };
            let running = self.running.entry(order.key.clone()).or_insert_with(finished);
            running.goes_back |= running.attempt == *attempt;
        }
        self.push(order, None);
    }

    /// The caller has waited long enough. Where it was for a connection, nobody else is asked to wait for that.
    pub(crate) fn late(&mut self, ticket: u64) -> CancelResult {
        if let Phase::Apart | Phase::Connecting = self.phase {
            self.failures = self.failures.max(DOWN_AFTER);
        }
        self.leave(ticket)
    }

    /// The caller waits no more.
    pub(crate) fn leave(&mut self, ticket: u64) -> CancelResult {
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
        let begun = matches!(self.phase, Phase::Beginning);
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
    pub(crate) fn finish(&mut self, key: &Key, order: u128) {
        if self.running.get(key).is_some_and(|running| running.order == order && !running.goes_back) {
            self.running.remove(key);
        }
    }

    /// Takes no more orders, and ends when all it has are settled.
    pub(crate) fn shut(&mut self) {
        self.shut = true;
    }

    /// Whether it takes no more orders.
    pub(crate) fn is_shut(&self) -> bool {
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
    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// Answers everybody who waits, because it is over.
    pub(crate) fn give_up(&mut self, why: &Arc<str>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Ended);
        self.lost(&phase);
        self.turn_away(why);
        self.queue.clear();
        (self.waiting, self.phase) = (0, Phase::Ended);
    }

    /// How the last step went, if there was one; what to do next.
    pub(crate) fn step(&mut self, event: Option<Event>) -> Step {
        if let Some(step) = event.and_then(|event| self.heard(event)) {
            return step;
        }
        match self.phase {
            Phase::Apart if self.shut && self.queue.is_empty() => self.end(),
            Phase::Apart if self.resting => {
                self.resting = false;
                Step::Rest(REST.saturating_mul(1 << self.failures.min(10)).min(LONGEST_REST))
            }
            Phase::Apart if self.queue.is_empty() && !self.is_down() => Step::Wait,
            Phase::Apart => {
                self.phase = Phase::Connecting;
                Step::Connect
            }
            Phase::Idle if self.resting => {
                self.phase = Phase::Apart;
                self.step(None)
            }
            Phase::Idle if self.queue.is_empty() && self.shut => self.end(),
            // Before anybody is asked to wait again: can it be read?
            Phase::Idle if self.queue.is_empty() && self.is_down() => self.begin(),
            Phase::Idle if self.queue.is_empty() => Step::Wait,
            Phase::Idle => self.begin(),
            Phase::Ended => Step::End,
            // Whoever asks without a report in the middle of a step has cancelled it.
            _ => {
                let phase = std::mem::replace(&mut self.phase, Phase::Apart);
                self.lost(&phase);
                self.step(None)
            }
        }
    }

    fn end(&mut self) -> Step {
        self.phase = Phase::Ended;
        Step::End
    }

    fn begin(&mut self) -> Step {
        let whose = self.whose_turn();
        let fits = |pending: &Pending<R>| match &whose {
            Some(tenant) => pending.order.key.tenant == *tenant,
            None => self.held.is_empty() || !self.held.contains(&pending.order.key.tenant),
        };
        let apart = |pending: &Pending<R>| pending.tries >= TRIES; // it has made others fail
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
        self.phase = Phase::Beginning;
        Step::Begin(batch::reads(self.batch.iter().map(Pending::turn)))
    }

    /// The account that is decided apart now; `None` where it is the turn of all others.
    fn whose_turn(&mut self) -> Option<Arc<str>> {
        let waits = |tenant: &Arc<str>| self.queue.iter().any(|pending| pending.order.key.tenant == *tenant);
        let others = || self.queue.iter().any(|pending| !self.held.contains(&pending.order.key.tenant));
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
    fn heard(&mut self, event: Event) -> Option<Step> {
        match (event, std::mem::replace(&mut self.phase, Phase::Idle)) {
            (Event::Connected, Phase::Connecting) => None,
            (Event::RolledBack, Phase::RollingBack) => {
                self.failures = 0;
                None
            }
            (Event::Rested, _) => {
                self.phase = Phase::Apart;
                None
            }
            (Event::Loaded(loaded), Phase::Beginning) => Some(self.decide(loaded)),
            (Event::Wrote, Phase::Writing(verdicts)) => {
                self.phase = Phase::Committing(verdicts);
                Some(Step::Commit)
            }
            (Event::Committed, Phase::Committing(verdicts)) => {
                self.failures = 0;
                self.conclude(verdicts);
                None
            }
            (Event::Failed(fault), phase) => self.failed(fault, phase),
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
                self.held.remove(&pending.order.key.tenant);
            }
        }
        let (writes, verdicts) = batch::decide(self.batch.iter().map(Pending::turn), loaded);
        if writes.is_empty() {
            // Nothing but refusals and what was durable before.
            self.conclude(verdicts);
            self.phase = Phase::RollingBack;
            return Step::RollBack;
        }
        self.phase = Phase::Writing(verdicts);
        Step::Write(writes, now)
    }

    /// Answers a batch whose verdicts are durable.
    fn conclude(&mut self, verdicts: Vec<Verdict>) {
        let batch = std::mem::take(&mut self.batch);
        let (mut back, mut again) = (Vec::new(), Vec::new());
        for (pending, mut verdict) in batch.into_iter().zip(verdicts) {
            let goes_back = |key: &Key| back.iter().any(|void: &Order| void.key == *key);
            match &mut verdict {
                Verdict::Admitted(admitted) if pending.left => back.extend(taken_back(pending.order, admitted)),
                // What it was measured by is about to go back.
                Verdict::Replay { .. } | Verdict::Conflict if goes_back(&pending.order.key) => again.push(pending),
                _ => self.answer(pending, verdict),
            }
        }
        self.batch = again;
        self.put_back();
        for order in back.into_iter().rev() {
            self.tickets += 1;
            let ticket = self.tickets;
            // Before whoever comes with the same id again.
            self.queue.push_front(Pending::new(ticket, order, None));
        }
    }

    /// Answers an order whose verdict is durable.
    fn answer(&mut self, pending: Pending<R>, mut verdict: Verdict) {
        let Pending { order, to, .. } = pending;
        let (key, origin) = (order.key.clone(), order.origin);
        match (&mut verdict, &order.act) {
            // Of what nobody waited for nobody would tell the end.
            (Verdict::Admitted(admitted), _) if !order.own && to.is_some() => {
                let running = Running { order: order.id, attempt: admitted.attempt, goes_back: false };
                self.running.insert(order.key, running);
            }
            (Verdict::Replay { running, .. }, _) => *running = self.running.contains_key(&order.key),
            (Verdict::Settled(..), Act::Settle(Settle { end: End::Void, attempt, .. })) => {
                self.gone_back(&order.key, *attempt);
            }
            _ => {}
        }
        match (to, verdict) {
            (Some(to), verdict) => self.answers.push(Answered { to, verdict }),
            (None, Verdict::Settled(_, near)) if !near.is_empty() => {
                self.notices.push(Notice { origin, key, what: Report::Near(near) });
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

    fn failed(&mut self, fault: Fault, phase: Phase) -> Option<Step> {
        match (fault, phase) {
            (Fault::Lost(why), phase)
            | (
                Fault::Again(why) | Fault::Rejected(why) | Fault::Refused(why),
                phase @ (Phase::Connecting | Phase::RollingBack),
            ) => {
                self.lost(&phase);
                if self.is_down() {
                    self.turn_away(&why);
                }
                None
            }
            (Fault::Rejected(why), phase) => {
                self.reject(&why, matches!(phase, Phase::Writing(_) | Phase::Committing(_)));
                self.roll_back()
            }
            (Fault::Again(why) | Fault::Refused(why), Phase::Committing(_)) => {
                // The database has said that it did not take place; what was sent before that may still have.
                self.retry(&why, false);
                self.roll_back()
            }
            (Fault::Again(why), Phase::Beginning) => {
                self.in_the_way(&why);
                self.roll_back()
            }
            (Fault::Again(why), _) => {
                self.retry(&why, false);
                self.roll_back()
            }
            (Fault::Refused(_), _) if self.halve() => self.roll_back(),
            (Fault::Refused(why), _) => {
                // Whatever takes no writes, a file that is read-only or a server that has become a standby, another
                // connection may find one that does.
                self.retry(&why, true);
                self.phase = Phase::Apart;
                None
            }
        }
    }

    fn roll_back(&mut self) -> Option<Step> {
        self.phase = Phase::RollingBack;
        Some(Step::RollBack)
    }

    /// The connection is gone: what was under way is first in the queue again.
    fn lost(&mut self, phase: &Phase) {
        if let Phase::Committing(_) = phase {
            self.batch.iter_mut().for_each(|pending| pending.sent = true);
        }
        self.phase = Phase::Apart;
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
        self.held.retain(|tenant| self.queue.iter().any(|pending| pending.order.key.tenant == *tenant));
        for mut pending in std::mem::take(&mut self.batch) {
            self.held.insert(Arc::clone(&pending.order.key.tenant));
            pending.tries += 1;
            if pending.tries >= TRIES {
                let Some(kept) = self.tell_tired(pending, why) else { continue };
                pending = Pending { tries: TRIES - 1, ..kept }; // by no fault of its own
                self.resting = true;
            }
            self.batch.push(pending);
        }
        self.put_back();
    }

    /// Tells whoever waits that nothing more is tried for it; gives what is kept, because it is tried until the database
    /// takes it, or may have been written.
    fn tell_tired(&mut self, mut pending: Pending<R>, why: &Arc<str>) -> Option<Pending<R>> {
        match pending.to.take() {
            Some(to) if pending.sent => {
                pending.left = true;
                self.answers.push(Answered { to, verdict: Verdict::Indeterminate });
                Some(pending)
            }
            Some(to) => {
                self.answers.push(Answered { to, verdict: Verdict::Unavailable(Arc::clone(why)) });
                None
            }
            None => Some(pending).filter(|pending| pending.sent || !pending.left),
        }
    }

    /// The database rejects something in the batch and would reject it again. Halves the batch until one order is left,
    /// tries that once more over rows that are read anew, and drops it; all others are decided without it.
    ///
    /// `decided`: the rows of the batch were read before, and an order that was [sent](Pending::sent) is not among them.
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
        let Pending { order, to, sent, .. } = pending;
        if let Act::Settle(Settle { end: End::Void, attempt, .. }) = &order.act {
            self.gone_back(&order.key, *attempt);
        }
        if let Some(to) = to {
            let verdict = if sent && !decided { Verdict::Indeterminate } else { Verdict::Rejected(Arc::clone(why)) };
            self.answers.push(Answered { to, verdict });
        }
        self.notices.push(Notice { origin: order.origin, key: order.key, what: Report::Rejected(Arc::clone(why)) });
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
            self.queue.push_back(Pending { tries: TRIES, ..kept });
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

    fn push(&mut self, order: Order, to: Option<R>) -> u64 {
        self.tickets += 1;
        let ticket = self.tickets;
        self.queue.push_back(Pending::new(ticket, order, to));
        ticket
    }
}

/// Gives back what was admitted for a caller who has gone without knowing it: nothing was worked on.
fn taken_back(order: Order, admitted: &Admitted) -> Option<Order> {
    let Act::Admit(admit) = order.act else { return None };
    let settle = Settle {
        plan: admit.plan,
        attempt: admitted.attempt,
        since: admitted.since,
        end: End::Void,
        used: Amounts::new(),
        part: 0,
    };
    let id = order.id ^ 1; // an id of its own: those of orders are even
    Some(Order { key: order.key, id, own: false, origin: order.origin, act: Act::Settle(settle) })
}

/// What tells two writers apart: an order is known by its id, a ticket by nobody.
#[cfg(test)]
impl<R: std::hash::Hash> std::hash::Hash for Writer<R> {
    fn hash<H: std::hash::Hasher>(&self, into: &mut H) {
        let pending = |pending: &Pending<R>, into: &mut H| {
            let settles = match &pending.order.act {
                Act::Settle(settle) => Some((settle.attempt, settle.since)),
                _ => None,
            };
            (pending.order.id, settles, &pending.to, pending.left, pending.sent, pending.tries, pending.rejections)
                .hash(into);
        };
        (self.queue.len(), self.batch.len()).hash(into);
        self.queue.iter().chain(&self.batch).for_each(|one| pending(one, into));
        std::mem::discriminant(&self.phase).hash(into);
        if let Phase::Writing(verdicts) | Phase::Committing(verdicts) = &self.phase {
            for verdict in verdicts {
                std::mem::discriminant(verdict).hash(into);
                if let Verdict::Admitted(admitted) = verdict {
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
