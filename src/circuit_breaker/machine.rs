//! State machine of a circuit: closed, open, half-open, and what an operator may force.

use std::{collections::VecDeque, time::Duration};

use crate::{
    backoff::{Backoff, add_jitter},
    circuit_state::CircuitState,
    classify::Verdict,
    sync::{Acquired, Lease, Leases},
    time::Moment,
};

/// Transitions of a circuit as values. The caller holds the circuit's lock, passes the time, and emits the
/// [`Transition`]s.
///
/// Each transition, and each command, begins a new **generation**. A result names the generation of its admission; a
/// result of an older one only releases its slot.
pub(crate) struct Machine {
    recovery: Recovery,
    mode: BreakerMode,
    phase: CircuitPhase,
    generation: u64,
    /// Slots of probes. They outlive the generation of a probe, so that probes which hang do not add up over many.
    probes: Leases,
    /// Openings since the circuit was last closed.
    openings: u32,
    random: fastrand::Rng,
    /// Transitions that are not emitted yet.
    pub(crate) transitions: VecDeque<Transition>,
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

/// Admission of all calls until the machine changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    /// Calls pass and are counted.
    Counted,
    /// Calls pass and are not counted.
    Uncounted,
    /// Calls are refused, and told to wait for this time.
    Refused(Duration),
    /// Calls are refused between these moments. Outside of them the machine decides.
    RefusedUntil { since: Moment, until: Moment },
    /// The machine decides on each call.
    Asked,
}

enum CircuitPhase {
    Closed,
    Open { since: Moment, until: Moment },
    HalfOpen { successes: u32 },
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
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    pub(crate) cause: &'static str,
}

/// Longest open time that an upstream or a classifier may ask for: a wrong `Retry-After` of a day must not end a day's
/// work.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

impl Machine {
    pub(crate) fn new(recovery: Recovery, seed: u64) -> Self {
        Self {
            recovery,
            mode: BreakerMode::Automatic,
            phase: CircuitPhase::Closed,
            generation: 1,
            probes: Leases::new(recovery.probes as usize, recovery.probe_timeout, Duration::MAX),
            openings: 0,
            random: fastrand::Rng::with_seed(seed),
            transitions: VecDeque::new(),
        }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Returns the state that the last transition entered.
    pub(crate) const fn state(&self) -> CircuitState {
        match (self.mode, &self.phase) {
            (BreakerMode::ForcedOpen, _) => CircuitState::ForcedOpen,
            (BreakerMode::ForcedClosed, _) => CircuitState::ForcedClosed,
            (BreakerMode::Disabled, _) => CircuitState::Disabled,
            (BreakerMode::Automatic, CircuitPhase::Closed) => CircuitState::Closed,
            (BreakerMode::Automatic, CircuitPhase::Open { .. }) => CircuitState::Open,
            (BreakerMode::Automatic, CircuitPhase::HalfOpen { .. }) => CircuitState::HalfOpen,
            (BreakerMode::Observing, CircuitPhase::Closed) => CircuitState::ObservedClosed,
            (BreakerMode::Observing, CircuitPhase::Open { .. }) => CircuitState::ObservedOpen,
            (BreakerMode::Observing, CircuitPhase::HalfOpen { .. }) => CircuitState::ObservedHalfOpen,
        }
    }

    /// Returns the state that a call would find now. An open circuit enters the half-open state only with a call.
    pub(crate) fn state_at(&self, now: Moment) -> CircuitState {
        match (self.state(), &self.phase) {
            (CircuitState::Open, CircuitPhase::Open { until, .. }) if now >= *until => CircuitState::HalfOpen,
            (CircuitState::ObservedOpen, CircuitPhase::Open { until, .. }) if now >= *until => {
                CircuitState::ObservedHalfOpen
            }
            (state, _) => state,
        }
    }

    /// Returns how calls are admitted until the machine changes.
    pub(crate) const fn passage(&self) -> Passage {
        match (self.mode, &self.phase) {
            (BreakerMode::Disabled, _) => Passage::Uncounted,
            (BreakerMode::ForcedOpen, _) => Passage::Refused(self.recovery.open.first),
            (BreakerMode::ForcedClosed, _) | (_, CircuitPhase::Closed) => Passage::Counted,
            (BreakerMode::Automatic, CircuitPhase::Open { since, until }) => {
                Passage::RefusedUntil { since: *since, until: *until }
            }
            (BreakerMode::Automatic | BreakerMode::Observing, _) => Passage::Asked,
        }
    }

    /// Decides on one call.
    pub(crate) fn admit(&mut self, now: Moment) -> CircuitDecision {
        match self.passage() {
            Passage::Uncounted => CircuitDecision::Uncounted,
            Passage::Counted => CircuitDecision::Counted,
            Passage::Refused(wait) => CircuitDecision::Refused(wait),
            Passage::RefusedUntil { .. } | Passage::Asked => match self.decide(now) {
                CircuitDecision::Refused(_) if self.mode == BreakerMode::Observing => CircuitDecision::Uncounted,
                decision => decision,
            },
        }
    }

    fn decide(&mut self, now: Moment) -> CircuitDecision {
        if let CircuitPhase::Open { since, until } = &mut self.phase {
            if now < *since {
                // The clock stepped back: the open time that remains must not grow by the step.
                *until = now + until.since(*since);
                *since = now;
            }
            if now < *until {
                return CircuitDecision::Refused(until.since(now));
            }
            self.probes.forget_progress(); // of probes of older generations
            self.enter(self.state(), CircuitPhase::HalfOpen { successes: 0 }, "recovery_timeout");
        }
        let CircuitPhase::HalfOpen { successes } = &mut self.phase else { return CircuitDecision::Counted };
        let Some(acquired) = self.probes.acquire(now) else {
            let wait = self.probes.next_due().map_or(Duration::ZERO, |due| due.since(now));
            return CircuitDecision::Refused(wait.max(Duration::from_secs(1)));
        };
        if acquired.had_progressed {
            // The probe whose lease ended had delivered: it is a stream that pauses, and counts as a success.
            *successes += 1;
            if *successes >= self.recovery.close_after {
                self.probes.release(acquired.lease);
                self.close();
                return CircuitDecision::Counted;
            }
        }
        CircuitDecision::Probe { generation: self.generation, acquired }
    }

    /// Opens the circuit because a rule holds for the window of `generation`.
    pub(crate) fn trip(&mut self, generation: u64, at_least: Duration, cause: &'static str, now: Moment) {
        let may_open =
            matches!((self.mode, &self.phase), (BreakerMode::Automatic | BreakerMode::Observing, CircuitPhase::Closed));
        if generation == self.generation && may_open {
            self.open(at_least, cause, now);
        }
    }

    /// Applies the result of a probe, unless its slot is another's by now. Without a lease the probe has reported before,
    /// and only a failure counts.
    pub(crate) fn probe_ended(&mut self, generation: u64, lease: Option<Lease>, verdict: Verdict, now: Moment) {
        let is_held = lease.is_none_or(|lease| self.probes.release(lease));
        let CircuitPhase::HalfOpen { successes } = &mut self.phase else { return };
        if !is_held || generation != self.generation {
            return;
        }
        match verdict {
            Verdict::Failure | Verdict::Trip => self.open(Duration::ZERO, "probe_failed", now),
            Verdict::TripFor(wait) => self.open(wait, "probe_failed", now),
            Verdict::Success if lease.is_some() => {
                *successes += 1;
                if *successes >= self.recovery.close_after {
                    self.close();
                }
            }
            Verdict::Success | Verdict::Ignore => {}
        }
    }

    /// Notes that a probe delivers.
    pub(crate) fn renew_probe(&mut self, generation: u64, lease: Lease, now: Moment) {
        if generation == self.generation {
            self.probes.touch(lease, now);
        }
    }

    /// Carries out an operator's command, with empty counts. No transition when the state stays the same.
    pub(crate) fn command(&mut self, mode: BreakerMode, cause: &'static str) {
        let from = self.state();
        (self.mode, self.openings) = (mode, 0);
        self.enter(from, CircuitPhase::Closed, cause);
    }

    fn open(&mut self, at_least: Duration, cause: &'static str, now: Moment) {
        let own = self.recovery.open.with_jitter(self.openings, &mut self.random);
        let asked = add_jitter(at_least, &mut self.random).min(LONGEST_ASKED);
        self.openings = self.openings.saturating_add(1);
        self.enter(self.state(), CircuitPhase::Open { since: now, until: now + own.max(asked) }, cause);
    }

    fn close(&mut self) {
        self.openings = 0;
        self.enter(self.state(), CircuitPhase::Closed, "probes_succeeded");
    }

    fn enter(&mut self, from: CircuitState, phase: CircuitPhase, cause: &'static str) {
        self.phase = phase;
        self.generation += 1;
        let to = self.state();
        if from != to {
            self.transitions.push_back(Transition { from, to, cause });
        }
    }
}
