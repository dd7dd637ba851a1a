//! State machine of a circuit: closed, open, half-open, and what an operator may force.

use std::{fmt, time::Duration};

use crate::{
    backoff::{Backoff, add_jitter},
    sync::{Acquired, Lease, Leases},
    time::Moment,
};

/// The state of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until a probe is due.
    Open,
    /// A few calls pass as probes, the others are refused.
    HalfOpen,
    /// Calls are refused until another command.
    ForcedOpen,
    /// Calls pass and are counted, but the circuit does not open until another command.
    ForcedClosed,
    /// Calls pass and are not counted until another command.
    Disabled,
    /// Calls pass and are counted, and the transitions that the circuit would make are emitted, until another command.
    ObserveOnly,
}

impl CircuitState {
    /// Returns the state as one word, as [`Event::Transition`](crate::Event::Transition) and metrics name it.
    ///
    /// A circuit that only observes emits transitions between `observed_closed`, `observed_open` and
    /// `observed_half_open`, so that metrics distinguish what it would do from what it does.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
            Self::ObserveOnly => "observe_only",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Transitions of a circuit as values. The caller holds the circuit's lock, passes the time, and emits [`Transition`]s.
///
/// Each transition, and each command, begins a new **generation**. A result names the generation of its admission; a
/// result of an older one changes nothing.
pub(crate) struct Machine {
    recovery: Recovery,
    mode: BreakerMode,
    phase: CircuitPhase,
    generation: u64,
    /// Openings since the circuit was last closed.
    openings: u32,
    random: fastrand::Rng,
}

/// Settings of recovery.
#[derive(Clone, Copy)]
pub(crate) struct Recovery {
    pub(crate) open: Backoff,
    pub(crate) probes: u32,
    pub(crate) close_after: u32,
    pub(crate) probe_timeout: Duration,
}

/// An operator's command that is in force.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BreakerMode {
    Automatic,
    /// Passes through its phases and refuses no call.
    Observing,
    ForcedOpen,
    ForcedClosed,
    Disabled,
}

enum CircuitPhase {
    Closed,
    Open { since: Moment, until: Moment },
    HalfOpen { probes: Leases, successes: u32 },
}

/// Decision on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CircuitDecision {
    /// It passes, and its result goes into the window.
    Counted,
    /// It passes, and its result is not counted.
    Uncounted,
    /// It passes as a probe of this generation.
    Probe { generation: u64, acquired: Acquired },
    /// It is refused for this time.
    Refused(Duration),
}

/// A change of state, emitted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) cause: &'static str,
}

/// Longest open time that an upstream or a classifier may ask for: a wrong `Retry-After` of a day must not end a day's
/// work.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

impl Machine {
    pub(crate) fn new(recovery: Recovery, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { recovery, mode: BreakerMode::Automatic, phase: CircuitPhase::Closed, generation: 1, openings: 0, random }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn state(&self) -> CircuitState {
        match (self.mode, &self.phase) {
            (BreakerMode::ForcedOpen, _) => CircuitState::ForcedOpen,
            (BreakerMode::ForcedClosed, _) => CircuitState::ForcedClosed,
            (BreakerMode::Disabled, _) => CircuitState::Disabled,
            (BreakerMode::Observing, _) => CircuitState::ObserveOnly,
            (BreakerMode::Automatic, CircuitPhase::Closed) => CircuitState::Closed,
            (BreakerMode::Automatic, CircuitPhase::Open { .. }) => CircuitState::Open,
            (BreakerMode::Automatic, CircuitPhase::HalfOpen { .. }) => CircuitState::HalfOpen,
        }
    }

    /// Returns the state as transitions name it.
    const fn label(&self) -> &'static str {
        match (self.mode, &self.phase) {
            (BreakerMode::Observing, CircuitPhase::Closed) => "observed_closed",
            (BreakerMode::Observing, CircuitPhase::Open { .. }) => "observed_open",
            (BreakerMode::Observing, CircuitPhase::HalfOpen { .. }) => "observed_half_open",
            _ => self.state().as_str(),
        }
    }

    /// Whether calls pass and their results are counted.
    pub(crate) const fn counts(&self) -> bool {
        use BreakerMode::{Automatic, ForcedClosed, Observing};
        matches!((self.mode, &self.phase), (ForcedClosed, _) | (Automatic | Observing, CircuitPhase::Closed))
    }

    /// Returns from when to when each call is refused without asking the machine; `None` while calls pass. While the
    /// circuit is half-open that time is over.
    pub(crate) const fn shut(&self) -> Option<(Moment, Moment)> {
        match (self.mode, &self.phase) {
            (BreakerMode::Automatic, CircuitPhase::HalfOpen { .. }) => {
                Some((Moment::from_nanos(0), Moment::from_nanos(1)))
            }
            (BreakerMode::Automatic, CircuitPhase::Open { since, until }) => Some((*since, *until)),
            (BreakerMode::ForcedOpen, _) => Some((Moment::from_nanos(0), Moment::MAX)),
            _ => None,
        }
    }

    /// Decides on one call.
    pub(crate) fn admit(&mut self, now: Moment) -> (CircuitDecision, Option<Transition>) {
        match self.mode {
            BreakerMode::Disabled => (CircuitDecision::Uncounted, None),
            BreakerMode::ForcedClosed => (CircuitDecision::Counted, None),
            BreakerMode::ForcedOpen => (CircuitDecision::Refused(self.recovery.open.first), None),
            BreakerMode::Automatic => self.decide(now),
            BreakerMode::Observing => match self.decide(now) {
                (CircuitDecision::Refused(_), transition) => (CircuitDecision::Uncounted, transition),
                decision => decision,
            },
        }
    }

    fn decide(&mut self, now: Moment) -> (CircuitDecision, Option<Transition>) {
        let mut transition = None;
        if let CircuitPhase::Open { since, until } = &mut self.phase {
            if now < *since {
                // The clock stepped back: the open time that remains must not grow by the step.
                *until = now + until.since(*since);
                *since = now;
            }
            if now < *until {
                return (CircuitDecision::Refused(until.since(now)), None);
            }
            let probes = Leases::new(self.recovery.probes as usize, self.recovery.probe_timeout, Duration::MAX);
            transition = self.enter(CircuitPhase::HalfOpen { probes, successes: 0 }, "recovery_timeout");
        }
        let CircuitPhase::HalfOpen { probes, successes } = &mut self.phase else {
            return (CircuitDecision::Counted, transition);
        };
        let Some(acquired) = probes.acquire(now) else {
            let wait = probes.next_due().map_or(Duration::ZERO, |due| due.since(now));
            return (CircuitDecision::Refused(wait.max(Duration::from_secs(1))), transition);
        };
        if acquired.had_progressed {
            // The probe whose lease ended had delivered: it is a stream that pauses, and counts as a success.
            *successes += 1;
            if *successes >= self.recovery.close_after {
                return (CircuitDecision::Counted, self.close());
            }
        }
        (CircuitDecision::Probe { generation: self.generation, acquired }, transition)
    }

    /// Opens the circuit because a rule holds for the window of `generation`.
    pub(crate) fn trip(
        &mut self,
        generation: u64,
        at_least: Option<Duration>,
        cause: &'static str,
        now: Moment,
    ) -> Option<Transition> {
        let may_open =
            matches!((self.mode, &self.phase), (BreakerMode::Automatic | BreakerMode::Observing, CircuitPhase::Closed));
        if generation == self.generation && may_open { self.open(at_least, cause, now) } else { None }
    }

    /// Counts a probe that succeeded, unless its slot is another's by now.
    pub(crate) fn probe_passed(&mut self, generation: u64, lease: Lease) -> Option<Transition> {
        let close_after = self.recovery.close_after;
        let (probes, successes) = self.half_open(generation)?;
        if !probes.release(lease) {
            return None;
        }
        *successes += 1;
        if *successes < close_after { None } else { self.close() }
    }

    /// Opens the circuit because a probe failed. Without a lease the probe has reported before, or the service itself
    /// failed.
    pub(crate) fn probe_failed(
        &mut self,
        generation: u64,
        lease: Option<Lease>,
        at_least: Option<Duration>,
        now: Moment,
    ) -> Option<Transition> {
        let (probes, _) = self.half_open(generation)?;
        if lease.is_some_and(|lease| !probes.release(lease)) {
            return None;
        }
        self.open(at_least, "probe_failed", now)
    }

    /// Notes that a probe delivers; no transition.
    pub(crate) fn renew_probe(&mut self, generation: u64, lease: Lease, now: Moment) -> Option<Transition> {
        self.half_open(generation)?.0.touch(lease, now);
        None
    }

    /// Frees the slot of a probe that ended without a result; no transition.
    pub(crate) fn release_probe(&mut self, generation: u64, lease: Lease) -> Option<Transition> {
        self.half_open(generation)?.0.release(lease);
        None
    }

    /// Carries out an operator's command, with empty counts. No transition when the state stays the same.
    pub(crate) fn command(&mut self, mode: BreakerMode, cause: &'static str) -> Option<Transition> {
        let from = self.label();
        (self.mode, self.phase, self.openings) = (mode, CircuitPhase::Closed, 0);
        self.generation += 1;
        let to = self.label();
        (from != to).then_some(Transition { from, to, cause })
    }

    /// Returns the probes and successes of a half-open circuit of this very generation.
    fn half_open(&mut self, generation: u64) -> Option<(&mut Leases, &mut u32)> {
        match &mut self.phase {
            CircuitPhase::HalfOpen { probes, successes } if generation == self.generation => Some((probes, successes)),
            _ => None,
        }
    }

    fn open(&mut self, at_least: Option<Duration>, cause: &'static str, now: Moment) -> Option<Transition> {
        let own = self.recovery.open.with_jitter(self.openings, &mut self.random);
        let asked = at_least.map_or(Duration::ZERO, |time| add_jitter(time, &mut self.random).min(LONGEST_ASKED));
        self.openings = self.openings.saturating_add(1);
        self.enter(CircuitPhase::Open { since: now, until: now + own.max(asked) }, cause)
    }

    fn close(&mut self) -> Option<Transition> {
        self.openings = 0;
        self.enter(CircuitPhase::Closed, "probes_succeeded")
    }

    fn enter(&mut self, phase: CircuitPhase, cause: &'static str) -> Option<Transition> {
        let from = self.label();
        self.phase = phase;
        self.generation += 1;
        Some(Transition { from, to: self.label(), cause })
    }
}
