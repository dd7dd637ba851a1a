//! One circuit: its machine behind a short lock, and the way round the lock while it is closed.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use super::{
    machine::{Admission, Change, Machine, Mode},
    trip::Tally,
};
use super::{
    setup::BreakerConfig,
    state::Counts,
    ticket::{Probe, Ticket},
    window::{
        current::{Current, Regime},
        epoch::Epoch,
    },
};
use crate::{
    classify::Verdict,
    gate::Event,
    identity::Digest,
    sync::{AtomicU64, Lease, Mutex, MutexGuard, Ordering},
    time::Moment,
};

/// A circuit that many threads ask and tell. No lock is held while anybody else's code runs.
#[derive(Debug)]
pub(crate) struct Circuit {
    me: Weak<Self>,
    setup: Arc<BreakerConfig>,
    /// Whose circuit it is, where each key has one of its own.
    key: Option<Digest>,
    /// Everybody is refused from and until here, in nanoseconds; the second is 0 when all pass as a rule.
    shut_since: AtomicU64,
    shut_until: AtomicU64,
    current: Current,
    core: Mutex<Core>,
}

#[derive(Debug)]
struct Core {
    machine: Machine,
    /// Changes that nobody has heard of yet, and whether somebody is telling them.
    news: VecDeque<Change>,
    telling: bool,
}

impl Circuit {
    /// A closed circuit that up to `seats` threads, a power of two, write to side by side.
    pub(crate) fn new(setup: Arc<BreakerConfig>, seats: usize, key: Option<Digest>) -> Arc<Self> {
        let circuit = Arc::new_cyclic(|me| {
            let machine = Machine::new(setup.recovery, fastrand::u64(..));
            let current = Current::new(seats);
            let core = Mutex::new(Core { machine, news: VecDeque::new(), telling: false });
            let (shut_since, shut_until) = (AtomicU64::new(0), AtomicU64::new(0));
            Self { me: Weak::clone(me), setup, key, shut_since, shut_until, current, core }
        });
        circuit.publish(&circuit.lock().machine);
        circuit
    }

    pub(crate) fn setup(&self) -> &BreakerConfig {
        &self.setup
    }

    /// Whether it is open or half-open, so that a call is refused or a probe.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.shut_until.load(Ordering::Acquire) != 0
    }

    /// How long everybody is still refused, when that needs no further look.
    #[inline]
    fn shut_for(&self, now: Moment) -> Option<Duration> {
        let until = self.shut_until.load(Ordering::Acquire);
        if until == 0 {
            return None;
        }
        if until == Moment::MAX.as_nanos() {
            return Some(self.setup.recovery.open.first);
        }
        let shut = (self.shut_since.load(Ordering::Acquire)..until).contains(&now.as_nanos());
        shut.then(|| Moment::from_nanos(until).since(now))
    }

    /// Lets a call pass, or says how long to wait.
    #[inline]
    pub(crate) fn admit(self: &Arc<Self>, now: Moment) -> Result<Ticket, Duration> {
        if let Some(wait) = self.shut_for(now) {
            return Err(wait);
        }
        match self.current.ticket() {
            Some(ticket) => Ok(ticket),
            None => self.ask(now),
        }
    }

    /// Asks the machine.
    fn ask(self: &Arc<Self>, now: Moment) -> Result<Ticket, Duration> {
        match self.with(|machine| machine.admit(now)) {
            Admission::Free => Ok(Ticket::Free),
            Admission::Refused(wait) => Err(wait),
            Admission::Probe { generation, acquired } => {
                if acquired.reclaimed {
                    self.setup.observers.emit(&Event::Reclaimed { policy: &self.setup.name });
                }
                let probe = Probe { circuit: Arc::clone(self), generation, lease: Some(acquired.lease) };
                Ok(Ticket::Probe(Box::new(probe)))
            }
            // Where the circuit has opened again in between, the result would come too late to count.
            Admission::Counted => Ok(self.current.ticket().unwrap_or(Ticket::Free)),
        }
    }

    pub(crate) fn trip(&self, generation: u64, at_least: Option<Duration>, cause: &'static str, now: Moment) {
        self.with(|machine| ((), machine.trip(generation, at_least, cause, now)));
    }

    pub(crate) fn probe_passed(&self, generation: u64, lease: Lease) {
        self.with(|machine| ((), machine.probe_passed(generation, lease)));
    }

    pub(crate) fn probe_failed(&self, generation: u64, lease: Option<Lease>, at_least: Option<Duration>, now: Moment) {
        self.with(|machine| ((), machine.probe_failed(generation, lease, at_least, now)));
    }

    pub(crate) fn probe_delivers(&self, generation: u64, lease: Lease, now: Moment) {
        self.with(|machine| (machine.probe_delivers(generation, lease, now), None));
    }

    pub(crate) fn give_back(&self, generation: u64, lease: Lease) {
        self.with(|machine| (machine.give_back(generation, lease), None));
    }

    /// The service failed before it could take a call: that counts although nobody was admitted.
    pub(crate) fn unready(&self, verdict: Verdict, now: Moment) {
        let at_least = match (self.current.ticket(), verdict) {
            (Some(mut ticket), _) => return ticket.tell(verdict, false, now),
            (None, Verdict::Success | Verdict::Ignore) => return,
            (None, Verdict::TripFor(wait)) => Some(wait),
            (None, Verdict::Failure | Verdict::Trip) => None,
        };
        self.with(|machine| ((), machine.probe_failed(machine.generation(), None, at_least, now)));
    }

    pub(crate) fn order(&self, mode: Mode, cause: &'static str) {
        self.with(|machine| ((), machine.order(mode, cause)));
    }

    /// Shows the machine.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Machine) -> T) -> T {
        look(&self.lock().machine)
    }

    /// What the present generation has counted.
    pub(crate) fn counts(&self, now: Moment) -> Counts {
        let core = self.lock();
        let (tally, consecutive) = self.current.tally(now);
        let Tally { calls, failures, slow } = tally;
        Counts { calls, failures, slow, consecutive, generation: core.machine.generation() }
    }

    /// Whether it is closed by itself and nothing tells against it: then a new circuit is as good.
    pub(crate) fn is_clean(&self, now: Moment) -> bool {
        let counts = self.counts(now);
        self.look(|machine| machine.label() == "closed") && counts.failures == 0 && counts.slow == 0
    }

    /// Whether calls are under way whose results are to be counted.
    pub(crate) fn has_calls(&self) -> bool {
        self.current.has_calls()
    }

    /// Whether no operator has ordered anything.
    pub(crate) fn decides_itself(&self) -> bool {
        self.look(|machine| machine.mode() == Mode::Automatic)
    }

    /// Changes the machine; a new generation, or an open time that a clock moved, is in force, and what changed is on
    /// its way to be told, when it returns.
    fn with<T>(&self, change: impl FnOnce(&mut Machine) -> (T, Option<Change>)) -> T {
        let mut core = self.lock();
        let before = (core.machine.generation(), core.machine.shut());
        let (value, news) = change(&mut core.machine);
        if (core.machine.generation(), core.machine.shut()) != before {
            self.publish(&core.machine);
        }
        core.news.extend(news);
        let tell = !core.telling && !core.news.is_empty();
        core.telling |= tell;
        drop(core);
        if tell {
            self.tell();
        }
        value
    }

    fn publish(&self, machine: &Machine) {
        let (since, until) = machine.shut().unwrap_or_default();
        if machine.counts() {
            let epoch = Epoch::new(machine.generation(), &self.me, &self.setup, self.current.seats());
            self.current.replace(|number| Regime::Counted(epoch.seat(number)));
        } else if machine.mode() == Mode::Disabled {
            self.current.replace(|_| Regime::Free);
        } else {
            self.current.replace(|_| Regime::Ask);
        }
        self.shut_since.store(since.as_nanos(), Ordering::Release);
        self.shut_until.store(until.as_nanos(), Ordering::Release);
    }

    /// Tells the news in order, outside the lock. Whoever brings more meanwhile leaves it here.
    fn tell(&self) {
        loop {
            let mut core = self.lock();
            let Some(Change { from, to, cause }) = core.news.pop_front() else {
                core.telling = false;
                return;
            };
            drop(core);
            let policy = &self.setup.name;
            self.setup.observers.emit(&Event::Transition { policy, key: self.key, from, to, cause });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
