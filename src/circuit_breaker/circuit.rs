//! One circuit: its machine behind a short lock, and the tickets by which calls report their results.

use std::{
    sync::{Arc, OnceLock, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use super::{
    generation::{FastPaths, Stripe},
    handle::Counts,
    machine::{BreakerMode, CircuitDecision, Machine, Passage, Recovery, Transition},
    policy::{CircuitBreakerPermit, ResultClassifier},
    trip::Trip,
    window::{CallResult, Tally},
};
use crate::{
    circuit_state::CircuitState,
    classify::Verdict,
    gate::{Event, PolicyContext},
    identity::Digest,
    refusal::{Reason, Refusal},
    sync::{AtomicBool, Lease, Mutex, MutexGuard, Ordering},
    time::Moment,
};

/// Name, clock, observers and settings that all circuits of a breaker share.
pub(crate) struct CircuitShared {
    pub(crate) context: PolicyContext,
    pub(crate) trip: Trip,
    pub(crate) recovery: Recovery,
    pub(crate) classifier: ResultClassifier,
}

impl CircuitShared {
    /// Returns the time: the one that was read, else a new reading. A clock waits for all work before it, so that it is
    /// read only where a decision or a count depends on it, and once for each.
    #[inline]
    pub(crate) fn time(&self, read: Option<Moment>) -> Moment {
        read.unwrap_or_else(|| self.context.clock.now())
    }

    /// Whether calls are timed: slow ones can open the circuit, their bound was set, or a client may give up on one.
    /// Otherwise no call counts as slow, and no clock is read for it.
    #[inline]
    pub(crate) fn times_calls(&self) -> bool {
        self.trip.has_slow_rate() || self.trip.has_slow_after() || self.classifier.default.is_client
    }

    /// Returns the verdict on an answer. A client counts a late one as slow even if its verdict is to ignore it, where
    /// slowness can open the circuit: a service that hangs may answer each call with its own time-out.
    #[inline]
    pub(crate) fn answered(&self, verdict: Verdict, slow: bool) -> Verdict {
        let is_late = verdict == Verdict::Ignore && slow && self.classifier.default.is_client;
        if is_late && self.trip.has_slow_rate() { Verdict::Success } else { verdict }
    }
}

/// A circuit that many threads share. No lock is held while an observer or a classifier runs.
pub(crate) struct Circuit {
    pub(crate) shared: Arc<CircuitShared>,
    /// Key of the circuit, if each key has its own.
    key: Option<Digest>,
    /// Host of the circuit, if each host has its own, once a request has named it.
    pub(crate) host: OnceLock<Box<str>>,
    /// Whether the circuit is open or half-open.
    shut: AtomicBool,
    pub(crate) fast_paths: FastPaths,
    /// Nanosecond at which a circuit with a key was last looked up.
    pub(crate) last_used: AtomicU64,
    core: Mutex<Core>,
}

struct Core {
    machine: Machine,
    /// Generation and passage that the fast paths show. `None` at first, so that a new circuit allocates its window at
    /// its first call, not under a lock of all circuits.
    published: Option<(u64, Passage)>,
    /// Set while a thread emits transitions, so that their order is kept.
    emitting: bool,
}

impl Circuit {
    /// Creates a closed circuit with `stripes` stripes, a power of two, into which threads write.
    pub(crate) fn new(shared: Arc<CircuitShared>, stripes: usize, key: Option<Digest>) -> Arc<Self> {
        let machine = Machine::new(shared.recovery, fastrand::u64(..));
        Arc::new(Self {
            shared,
            key,
            host: OnceLock::new(),
            shut: AtomicBool::new(false),
            fast_paths: FastPaths::new(stripes),
            last_used: AtomicU64::new(0),
            core: Mutex::new(Core { machine, published: None, emitting: false }),
        })
    }

    /// Whether the circuit is open or half-open, so that a call is refused or a probe.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// Admits a call, or refuses it with the time to wait.
    #[inline]
    pub(crate) fn permit(self: &Arc<Self>, read: Option<Moment>) -> Result<CircuitBreakerPermit, Refusal> {
        match self.admit(read) {
            Ok(ticket) => {
                let started = if ticket.is_timed() { self.shared.time(read) } else { Moment::default() };
                Ok(CircuitBreakerPermit::new(ticket, started))
            }
            Err(wait) => Err(self.shared.context.refusal(Reason::CircuitOpen).with_retry_after(wait)),
        }
    }

    /// Admits a call, or returns the time to wait.
    #[inline]
    pub(crate) fn admit(self: &Arc<Self>, read: Option<Moment>) -> Result<Ticket, Duration> {
        match self.fast_paths.admit(|| self.shared.time(read)) {
            Some(admitted) => admitted,
            None => self.admit_by_machine(self.shared.time(read)),
        }
    }

    fn admit_by_machine(self: &Arc<Self>, now: Moment) -> Result<Ticket, Duration> {
        match self.update(|machine| machine.admit(now)) {
            CircuitDecision::Uncounted => Ok(Ticket::Uncounted),
            CircuitDecision::Refused(wait) => Err(wait),
            CircuitDecision::Probe { generation, acquired } => {
                if acquired.reclaimed {
                    let PolicyContext { name: policy, observers, .. } = &self.shared.context;
                    observers.emit(&Event::Reclaimed { policy });
                }
                let lease = Some(acquired.lease);
                let probe = Probe { circuit: Arc::clone(self), generation, lease };
                Ok(Ticket::Probe(CallProgress::default(), Box::new(probe)))
            }
            // If the circuit has opened again in between, the result would be too late to count.
            CircuitDecision::Counted => self.fast_paths.admit(|| now).unwrap_or(Ok(Ticket::Uncounted)),
        }
    }

    /// Counts a failure of the service before it could take a call, as that of a call that is admitted now.
    pub(crate) fn unready(self: &Arc<Self>, verdict: Verdict) {
        if let Ok(mut ticket) = self.admit(None) {
            ticket.report(verdict, false, None);
        }
    }

    /// Applies an operator's command.
    pub(crate) fn command(self: &Arc<Self>, mode: BreakerMode, cause: &'static str) {
        self.update(|machine| machine.command(mode, cause));
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.state_at(self.shared.context.clock.now())
    }

    /// Returns the state that a call at `now` would find.
    pub(crate) fn state_at(&self, now: Moment) -> CircuitState {
        self.lock().machine.state_at(now)
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
    pub(crate) fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut Machine) -> T) -> T {
        let mut core = self.lock();
        let result = change(&mut core.machine);
        let (generation, passage) = (core.machine.generation(), core.machine.passage());
        if core.published.replace((generation, passage)) != Some((generation, passage)) {
            self.fast_paths.set(passage, self, generation);
            let state = core.machine.state();
            let shut = matches!(state, CircuitState::Open | CircuitState::HalfOpen | CircuitState::ForcedOpen);
            self.shut.store(shut, Ordering::Release);
        }
        if core.emitting {
            return result;
        }
        core.emitting = true;
        while let Some(Transition { from, to, cause }) = core.machine.transitions.pop_front() {
            drop(core); // other threads add theirs meanwhile
            let PolicyContext { name: policy, observers, .. } = &self.shared.context;
            let host = self.host.get().map(|host| &**host);
            observers.emit(&Event::Transition { policy, key: self.key, host, from, to, cause });
            core = self.lock();
        }
        core.emitting = false;
        result
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right of an admitted call to report a result to the generation that admitted it, and the result so far.
///
/// The result so far lies beside the variant's tag, so that it takes no room: a ticket moves with the response.
pub(crate) enum Ticket {
    /// Right of a call of a closed circuit: its result goes into the window.
    Counted(CallProgress, Arc<Stripe>),
    /// Right of a probe. Boxed, because probes are rare and a small ticket is cheaper to move.
    Probe(CallProgress, Box<Probe>),
    /// The result is not counted.
    Uncounted,
}

/// Result of a call, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallProgress {
    pub(crate) judged: Judged,
    /// Whether the response says that it is gRPC. The request does not decide: a client can claim anything.
    pub(crate) grpc: bool,
    /// Whether the head was slow, once it is there.
    pub(crate) slow_head: Option<bool>,
}

/// Stage of the judgement on a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Judged {
    #[default]
    NotYet,
    /// A success so far; the body may still fail.
    Success,
    /// Final.
    Done,
}

/// A call that finds out whether the service has recovered.
pub(crate) struct Probe {
    pub(crate) circuit: Arc<Circuit>,
    generation: u64,
    /// `None` once the probe has reported.
    lease: Option<Lease>,
}

impl Ticket {
    /// Returns the result so far; one that is not counted is judged.
    #[inline]
    pub(crate) fn progress(&self) -> CallProgress {
        match self {
            Self::Counted(progress, _) | Self::Probe(progress, _) => *progress,
            Self::Uncounted => CallProgress { judged: Judged::Done, ..CallProgress::default() },
        }
    }

    #[inline]
    pub(crate) fn set_progress(&mut self, next: CallProgress) {
        if let Self::Counted(progress, _) | Self::Probe(progress, _) = self {
            *progress = next;
        }
    }

    /// Whether the time at which the call started is needed.
    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        match self {
            Self::Counted(_, stripe) => stripe.shared().times_calls(),
            Self::Probe(..) => true,
            Self::Uncounted => false,
        }
    }

    /// Returns the breaker's settings, the time if it was read, and whether a call from `started` is slow by now. `None`
    /// if the result is not counted.
    #[inline]
    pub(crate) fn elapsed(&self, started: Moment) -> Option<(&CircuitShared, Option<Moment>, bool)> {
        let shared = match self {
            Self::Counted(_, stripe) => stripe.shared(),
            Self::Probe(_, probe) => &probe.circuit.shared,
            Self::Uncounted => return None,
        };
        let read = shared.times_calls().then(|| shared.time(None));
        let slow = read.is_some_and(|now| now.since(started) >= shared.trip.slow_bound());
        Some((shared, read, slow))
    }

    /// Reports the result of a call; `slow` tells whether it was slow, and `read` the time if it was read.
    #[inline]
    pub(crate) fn report(&mut self, verdict: Verdict, slow: bool, read: Option<Moment>) {
        match self {
            Self::Counted(_, stripe) => {
                let now = || stripe.shared().time(read);
                let failure = match verdict {
                    Verdict::Success => false,
                    Verdict::Failure => true,
                    Verdict::Ignore => return,
                    Verdict::Trip => return stripe.trip(Duration::ZERO, "classifier", now()),
                    Verdict::TripFor(wait) => return stripe.trip(wait, "retry_after", now()),
                };
                stripe.record(CallResult { failure, slow }, now);
            }
            Self::Probe(_, probe) => {
                let now = probe.circuit.shared.time(read);
                probe.report(verdict, slow, now);
            }
            Self::Uncounted => {}
        }
    }
}

impl Probe {
    /// Reports a result. After the first one only a failure counts.
    fn report(&mut self, verdict: Verdict, slow: bool, now: Moment) {
        let is_bad = verdict == Verdict::Success && slow && self.circuit.shared.trip.has_slow_rate();
        let verdict = if is_bad { Verdict::Failure } else { verdict };
        let (generation, lease) = (self.generation, self.lease.take());
        self.circuit.update(|machine| machine.probe_ended(generation, lease, verdict, now));
    }

    /// Renews the lease of a probe whose body delivers.
    pub(crate) fn renew(&self, now: Moment) {
        if let Some(lease) = self.lease {
            self.circuit.update(|machine| machine.renew_probe(self.generation, lease, now));
        }
    }
}
