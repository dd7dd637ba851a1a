//! One circuit: its machine behind a short lock, and the tickets by which calls report their results.

use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

use super::{
    classifier::ResultClassifier,
    handle::Counts,
    machine::{BreakerMode, CircuitDecision, CircuitState, Machine, Recovery, Transition},
    trip::Trip,
    window::{
        CallResult, Tally,
        generation::{FastPath, FastPaths, Stripe},
    },
};
use crate::{
    classify::Verdict,
    gate::{Event, PolicyContext},
    identity::Digest,
    refusal::{Reason, Refusal},
    sync::{AtomicU64, Lease, Mutex, MutexGuard, Ordering},
    time::Moment,
};

/// Settings that all circuits of a breaker share.
pub(crate) struct BreakerConfig {
    pub(crate) context: PolicyContext,
    pub(crate) trip: Trip,
    pub(crate) recovery: Recovery,
    pub(crate) classifier: ResultClassifier,
}

impl BreakerConfig {
    pub(crate) fn refusal(&self, wait: Duration) -> Refusal {
        Refusal::new(Reason::CircuitOpen, self.context.name.clone()).with_retry_after(wait)
    }

    #[inline]
    pub(crate) fn is_slow(&self, took: Duration) -> bool {
        took >= self.trip.slow_bound()
    }
}

/// A circuit that many threads share. No lock is held while an observer or a classifier runs.
pub(crate) struct Circuit {
    pub(crate) config: Arc<BreakerConfig>,
    /// Key of the circuit, if each key has its own.
    key: Option<Digest>,
    /// Start and end of the span in which all calls are refused without the lock, in nanoseconds. `shut_until` is 0
    /// while calls pass.
    shut_since: AtomicU64,
    shut_until: AtomicU64,
    pub(crate) fast_paths: FastPaths,
    core: Mutex<Core>,
}

struct Core {
    machine: Machine,
    /// Transitions that are not emitted yet.
    pending: VecDeque<Transition>,
    /// Set while a thread emits transitions, so that their order is kept.
    emitting: bool,
}

impl Circuit {
    /// Creates a closed circuit with `stripes` stripes, a power of two, into which threads write.
    pub(crate) fn new(config: Arc<BreakerConfig>, stripes: usize, key: Option<Digest>) -> Arc<Self> {
        let machine = Machine::new(config.recovery, fastrand::u64(..));
        let circuit = Arc::new(Self {
            config,
            key,
            shut_since: AtomicU64::new(0),
            shut_until: AtomicU64::new(0),
            fast_paths: FastPaths::new(stripes),
            core: Mutex::new(Core { machine, pending: VecDeque::new(), emitting: false }),
        });
        circuit.publish(&circuit.lock().machine);
        circuit
    }

    /// Whether the circuit is open or half-open, so that a call is refused or a probe.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.shut_until.load(Ordering::Acquire) != 0
    }

    /// Returns the time for which calls are still refused, if it is known without the lock.
    #[inline]
    fn shut_for(&self, now: Moment) -> Option<Duration> {
        let until = self.shut_until.load(Ordering::Acquire);
        if until == 0 {
            return None;
        }
        if until == Moment::MAX.as_nanos() {
            return Some(self.config.recovery.open.first);
        }
        let shut = (self.shut_since.load(Ordering::Acquire)..until).contains(&now.as_nanos());
        shut.then(|| Moment::from_nanos(until).since(now))
    }

    /// Admits a call, or returns the time to wait.
    #[inline]
    pub(crate) fn admit(self: &Arc<Self>, now: Moment) -> Result<Ticket, Duration> {
        if let Some(wait) = self.shut_for(now) {
            return Err(wait);
        }
        match self.fast_paths.ticket() {
            Some(ticket) => Ok(ticket),
            None => self.admit_by_machine(now),
        }
    }

    fn admit_by_machine(self: &Arc<Self>, now: Moment) -> Result<Ticket, Duration> {
        let mut decision = CircuitDecision::Uncounted;
        self.update(|machine| {
            let transition;
            (decision, transition) = machine.admit(now);
            transition
        });
        match decision {
            CircuitDecision::Uncounted => Ok(Ticket::Uncounted),
            CircuitDecision::Refused(wait) => Err(wait),
            CircuitDecision::Probe { generation, acquired } => {
                if acquired.reclaimed {
                    let PolicyContext { name: policy, observers, .. } = &self.config.context;
                    observers.emit(&Event::Reclaimed { policy });
                }
                Ok(self.probe(generation, Some(acquired.lease)))
            }
            // If the circuit has opened again in between, the result would be too late to count.
            CircuitDecision::Counted => Ok(self.fast_paths.ticket().unwrap_or(Ticket::Uncounted)),
        }
    }

    fn probe(self: &Arc<Self>, generation: u64, lease: Option<Lease>) -> Ticket {
        Ticket::Probe(Box::new(Probe { circuit: Arc::clone(self), generation, lease }))
    }

    /// Counts a failure of the service before it could take a call.
    pub(crate) fn unready(self: &Arc<Self>, verdict: Verdict, now: Moment) {
        // While half-open the failure counts as that of a probe which holds no lease.
        let without_lease = || self.probe(self.lock().machine.generation(), None);
        self.fast_paths.ticket().unwrap_or_else(without_lease).report(verdict, false, now);
    }

    /// Applies an operator's command.
    pub(crate) fn command(self: &Arc<Self>, mode: BreakerMode, cause: &'static str) {
        self.update(|machine| machine.command(mode, cause));
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.lock().machine.state()
    }

    /// Returns the counts of the present generation.
    pub(crate) fn counts(&self, now: Moment) -> Counts {
        let core = self.lock();
        let (Tally { calls, failures, slow }, consecutive) = self.fast_paths.tally(now);
        Counts { calls, failures, slow, consecutive, generation: core.machine.generation() }
    }

    /// Whether the circuit is closed, not by command, and has no bad call, so that a new circuit replaces it without
    /// loss.
    pub(crate) fn is_clean(&self, now: Moment) -> bool {
        let counts = self.counts(now);
        self.state() == CircuitState::Closed && counts.failures == 0 && counts.slow == 0
    }

    /// Changes the machine. When it returns, a new generation or a new open time is in force, and the transition is
    /// emitted or queued for the thread that emits.
    pub(crate) fn update(self: &Arc<Self>, change: impl FnOnce(&mut Machine) -> Option<Transition>) {
        let mut core = self.lock();
        let before = (core.machine.generation(), core.machine.shut());
        let transition = change(&mut core.machine);
        if (core.machine.generation(), core.machine.shut()) != before {
            self.publish(&core.machine);
        }
        core.pending.extend(transition);
        if core.emitting {
            return;
        }
        core.emitting = true;
        while let Some(Transition { from, to, cause }) = core.pending.pop_front() {
            drop(core); // other threads add theirs meanwhile
            let PolicyContext { name: policy, observers, .. } = &self.config.context;
            observers.emit(&Event::Transition { policy, key: self.key, from, to, cause });
            core = self.lock();
        }
        core.emitting = false;
    }

    fn publish(self: &Arc<Self>, machine: &Machine) {
        let (since, until) = machine.shut().unwrap_or_default();
        match machine.state() {
            _ if machine.counts() => self.fast_paths.count(self, machine.generation()),
            CircuitState::Disabled => self.fast_paths.replace(|_| FastPath::Uncounted),
            _ => self.fast_paths.replace(|_| FastPath::Closed),
        }
        self.shut_since.store(since.as_nanos(), Ordering::Release);
        self.shut_until.store(until.as_nanos(), Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of an admitted call to report a result to the generation that admitted it.
pub(crate) enum Ticket {
    /// Right of a call of a closed circuit: its result goes into the window.
    Counted(Arc<Stripe>),
    /// Right of a probe. Boxed, because probes are rare and a small ticket is cheaper to move.
    Probe(Box<Probe>),
    /// The result is not counted.
    Uncounted,
}

/// A call that finds out whether the service has recovered.
pub(crate) struct Probe {
    pub(crate) circuit: Arc<Circuit>,
    generation: u64,
    /// `None` once the probe has reported.
    lease: Option<Lease>,
}

impl Ticket {
    /// Returns the breaker's settings, the time, and whether a call from `started` is slow by now. `None` if the result
    /// is not counted; the clock is then not read.
    #[inline]
    pub(crate) fn elapsed(&self, started: Moment) -> Option<(&BreakerConfig, Moment, bool)> {
        let config = match self {
            Self::Counted(stripe) => stripe.config(),
            Self::Probe(probe) => &probe.circuit.config,
            Self::Uncounted => return None,
        };
        let now = config.context.clock.now();
        Some((config, now, config.is_slow(now.since(started))))
    }

    /// Reports the result of a call; `slow` tells whether it was slow.
    #[inline]
    pub(crate) fn report(&mut self, verdict: Verdict, slow: bool, now: Moment) {
        match self {
            Self::Counted(stripe) => {
                let failure = match verdict {
                    Verdict::Success => false,
                    Verdict::Failure => true,
                    Verdict::Ignore => return,
                    Verdict::Trip => return stripe.trip(None, "classifier", now),
                    Verdict::TripFor(wait) => return stripe.trip(Some(wait), "retry_after", now),
                };
                stripe.record(CallResult { failure, slow }, now);
            }
            Self::Probe(probe) => probe.report(verdict, slow, now),
            Self::Uncounted => {}
        }
    }
}

impl Probe {
    /// Reports a result. After the first one only a failure counts.
    fn report(&mut self, verdict: Verdict, slow: bool, now: Moment) {
        let is_bad = slow && self.circuit.config.trip.has_slow_rate();
        let (generation, lease) = (self.generation, self.lease.take());
        self.circuit.update(|machine| match verdict {
            Verdict::Success if !is_bad => lease.and_then(|lease| machine.probe_passed(generation, lease)),
            Verdict::Ignore => lease.and_then(|lease| machine.release_probe(generation, lease)),
            Verdict::TripFor(wait) => machine.probe_failed(generation, lease, Some(wait), now),
            Verdict::Success | Verdict::Failure | Verdict::Trip => machine.probe_failed(generation, lease, None, now),
        });
    }

    /// Renews the lease of a probe whose body delivers.
    pub(crate) fn renew(&self, now: Moment) {
        if let Some(lease) = self.lease {
            self.circuit.update(|machine| machine.renew_probe(self.generation, lease, now));
        }
    }
}
