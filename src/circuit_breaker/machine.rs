//! The machine of a circuit: closed, open, half-open, and what an operator may force.

use std::time::Duration;

use crate::time::Moment;
use crate::{
    backoff::{Backoff, lengthen},
    sync::{Acquired, Lease, Leases},
};

/// A circuit's transitions as values. Whoever calls it holds its lock, knows the time, and tells of [`Change`]s.
///
/// Each change of state, and each order, begins a new **generation**. Everything that reports a result names the
/// generation of its admission; the result of an older one changes nothing.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    recovery: Recovery,
    mode: Mode,
    phase: Phase,
    generation: u64,
    /// How often the circuit opened since it was last closed.
    openings: u32,
    random: fastrand::Rng,
}

/// How a circuit finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recovery {
    pub(crate) open: Backoff,
    pub(crate) probes: u32,
    pub(crate) close_after: u32,
    pub(crate) probe_timeout: Duration,
}

/// What an operator has ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Automatic,
    /// Goes through its phases and refuses nobody.
    Observing,
    ForcedOpen,
    ForcedClosed,
    Disabled,
}

#[derive(Clone, Debug)]
enum Phase {
    Closed,
    Open { since: Moment, until: Moment },
    HalfOpen { probes: Leases, successes: u32 },
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It passes, and its result goes into the window.
    Counted,
    /// It passes, and its result is nobody's business.
    Free,
    /// It passes as a probe of this generation.
    Probe { generation: u64, acquired: Acquired },
    /// It is refused for so long.
    Refused(Duration),
}

/// A change of state, told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) cause: &'static str,
}

/// What an upstream or a classifier may ask for at most: a wrong `Retry-After` of a day must not end a day's work.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

impl Machine {
    pub(crate) fn new(recovery: Recovery, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { recovery, mode: Mode::Automatic, phase: Phase::Closed, generation: 1, openings: 0, random }
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) const fn mode(&self) -> Mode {
        self.mode
    }

    /// The state in one word.
    pub(crate) const fn label(&self) -> &'static str {
        match (self.mode, &self.phase) {
            (Mode::ForcedOpen, _) => "forced_open",
            (Mode::ForcedClosed, _) => "forced_closed",
            (Mode::Disabled, _) => "disabled",
            (Mode::Automatic, Phase::Closed) => "closed",
            (Mode::Automatic, Phase::Open { .. }) => "open",
            (Mode::Automatic, Phase::HalfOpen { .. }) => "half_open",
            (Mode::Observing, Phase::Closed) => "observed_closed",
            (Mode::Observing, Phase::Open { .. }) => "observed_open",
            (Mode::Observing, Phase::HalfOpen { .. }) => "observed_half_open",
        }
    }

    /// Whether calls pass and their results are counted.
    pub(crate) const fn counts(&self) -> bool {
        match self.mode {
            Mode::ForcedClosed => true,
            Mode::Automatic | Mode::Observing => matches!(self.phase, Phase::Closed),
            Mode::ForcedOpen | Mode::Disabled => false,
        }
    }

    /// From when to when everybody is refused without a further look, unless the circuit lets pass as a rule. While it
    /// is half-open that time is over.
    pub(crate) const fn shut(&self) -> Option<(Moment, Moment)> {
        match (self.mode, &self.phase) {
            (Mode::Automatic, Phase::HalfOpen { .. }) => Some((Moment::from_nanos(0), Moment::from_nanos(1))),
            (Mode::Automatic, Phase::Open { since, until }) => Some((*since, *until)),
            (Mode::ForcedOpen, _) => Some((Moment::from_nanos(0), Moment::MAX)),
            _ => None,
        }
    }

    /// Decides on one call.
    pub(crate) fn admit(&mut self, now: Moment) -> (Admission, Option<Change>) {
        match self.mode {
            Mode::Disabled => (Admission::Free, None),
            Mode::ForcedClosed => (Admission::Counted, None),
            Mode::ForcedOpen => (Admission::Refused(self.recovery.open.first), None),
            Mode::Automatic => self.decide(now),
            Mode::Observing => match self.decide(now) {
                (Admission::Refused(_), change) => (Admission::Free, change),
                decision => decision,
            },
        }
    }

    fn decide(&mut self, now: Moment) -> (Admission, Option<Change>) {
        let mut change = None;
        if let Phase::Open { since, until } = &mut self.phase {
            if now < *since {
                // The clock stepped back: what was left must not grow by the step.
                *until = now + until.since(*since);
                *since = now;
            }
            if now < *until {
                return (Admission::Refused(until.since(now)), None);
            }
            let probes = Leases::new(self.recovery.probes as usize, self.recovery.probe_timeout, Duration::MAX);
            change = self.go(Phase::HalfOpen { probes, successes: 0 }, "recovery_timeout");
        }
        let generation = self.generation;
        let admission = match &mut self.phase {
            Phase::HalfOpen { probes, successes } => match probes.acquire(now) {
                // The probe whose time is over had delivered: it is a stream that says little.
                Some(acquired) if acquired.had_progressed => {
                    *successes += 1;
                    if *successes >= self.recovery.close_after {
                        self.openings = 0;
                        return (Admission::Counted, self.go(Phase::Closed, "probes_succeeded"));
                    }
                    Admission::Probe { generation, acquired }
                }
                Some(acquired) => Admission::Probe { generation, acquired },
                None => Admission::Refused(
                    probes.next_due().map_or(Duration::ZERO, |due| due.since(now)).max(Duration::from_secs(1)),
                ),
            },
            Phase::Closed | Phase::Open { .. } => Admission::Counted,
        };
        (admission, change)
    }

    /// The window of `generation` has seen enough.
    pub(crate) fn trip(
        &mut self,
        generation: u64,
        at_least: Option<Duration>,
        cause: &'static str,
        now: Moment,
    ) -> Option<Change> {
        if generation != self.generation || !self.automatic() || !matches!(self.phase, Phase::Closed) {
            return None;
        }
        self.open(at_least, cause, now)
    }

    /// A probe came back well, unless its slot has been given to another since.
    pub(crate) fn probe_passed(&mut self, generation: u64, lease: Lease) -> Option<Change> {
        let close_after = self.recovery.close_after;
        let (probes, successes) = self.half_open(generation)?;
        if !probes.release(lease) {
            return None;
        }
        *successes += 1;
        if *successes < close_after {
            return None;
        }
        self.openings = 0;
        self.go(Phase::Closed, "probes_succeeded")
    }

    /// A probe failed; without a lease, one that had been answered before, or the service itself.
    pub(crate) fn probe_failed(
        &mut self,
        generation: u64,
        lease: Option<Lease>,
        at_least: Option<Duration>,
        now: Moment,
    ) -> Option<Change> {
        let (probes, _) = self.half_open(generation)?;
        if lease.is_some_and(|lease| !probes.release(lease)) {
            return None;
        }
        self.open(at_least, "probe_failed", now)
    }

    /// A probe is delivering.
    pub(crate) fn probe_delivers(&mut self, generation: u64, lease: Lease, now: Moment) {
        if let Some((probes, _)) = self.half_open(generation) {
            probes.touch(lease, now);
        }
    }

    /// A probe ended without a result.
    pub(crate) fn give_back(&mut self, generation: u64, lease: Lease) {
        if let Some((probes, _)) = self.half_open(generation) {
            probes.release(lease);
        }
    }

    /// Does as an operator says, with a clean slate. `None` when the state keeps its name.
    pub(crate) fn order(&mut self, mode: Mode, cause: &'static str) -> Option<Change> {
        let from = self.label();
        self.mode = mode;
        self.phase = Phase::Closed;
        self.openings = 0;
        self.generation += 1;
        let to = self.label();
        (from != to).then_some(Change { from, to, cause })
    }

    fn automatic(&self) -> bool {
        matches!(self.mode, Mode::Automatic | Mode::Observing)
    }

    /// The probes of a half-open circuit of this very generation.
    fn half_open(&mut self, generation: u64) -> Option<(&mut Leases, &mut u32)> {
        match &mut self.phase {
            Phase::HalfOpen { probes, successes } if generation == self.generation => Some((probes, successes)),
            _ => None,
        }
    }

    fn open(&mut self, at_least: Option<Duration>, cause: &'static str, now: Moment) -> Option<Change> {
        let own = self.recovery.open.spread(self.openings, &mut self.random);
        let asked = at_least.map_or(Duration::ZERO, |time| lengthen(time, &mut self.random).min(LONGEST_ASKED));
        self.openings = self.openings.saturating_add(1);
        self.go(Phase::Open { since: now, until: now + own.max(asked) }, cause)
    }

    fn go(&mut self, phase: Phase, cause: &'static str) -> Option<Change> {
        let from = self.label();
        self.phase = phase;
        self.generation += 1;
        Some(Change { from, to: self.label(), cause })
    }
}

#[cfg(test)]
mod tests;
