//! What an admitted call holds, and how it tells its result.

use std::{sync::Arc, time::Duration};

use super::trip::Mark;
use super::{circuit::Circuit, setup::BreakerConfig, window::epoch::Seat};
use crate::{classify::Verdict, sync::Lease, time::Moment};

/// The right to tell a result to the generation that admitted the call.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// Through a closed circuit: the result goes into the window.
    Counted(Arc<Seat>),
    /// Through a half-open one. Probes are rare, and a small ticket is moved at less cost.
    Probe(Box<Probe>),
    /// The result is nobody's business.
    Free,
}

/// A call that finds out whether the service is well.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) circuit: Arc<Circuit>,
    pub(crate) generation: u64,
    /// Gone once the probe has been answered.
    pub(crate) lease: Option<Lease>,
}

impl Ticket {
    /// The breaker's setup, where a result matters.
    #[inline]
    pub(crate) fn setup(&self) -> Option<&BreakerConfig> {
        match self {
            Self::Counted(seat) => Some(seat.setup()),
            Self::Probe(probe) => Some(probe.circuit.setup()),
            Self::Free => None,
        }
    }

    /// The time now and whether a call from `started` is slow by now, where a result matters: only then the clock is read.
    #[inline]
    pub(crate) fn elapsed(&self, started: Moment) -> Option<(Moment, bool)> {
        let setup = self.setup()?;
        let now = setup.clock.now();
        Some((now, setup.is_slow(now.since(started))))
    }

    /// Tells a result, of a call that was slow or not.
    #[inline]
    pub(crate) fn tell(&mut self, verdict: Verdict, slow: bool, now: Moment) {
        match verdict {
            Verdict::Success => self.count(Mark { failure: false, slow }, now),
            Verdict::Failure => self.count(Mark { failure: true, slow }, now),
            Verdict::Ignore => self.give_back(),
            Verdict::Trip => self.trip(None, "classifier", now),
            Verdict::TripFor(wait) => self.trip(Some(wait), "retry_after", now),
        }
    }

    #[inline]
    fn count(&mut self, mark: Mark, now: Moment) {
        match self {
            Self::Counted(seat) => seat.record(mark, now),
            Self::Probe(probe) => {
                let failed = mark.failure || (mark.slow && probe.circuit.setup().trip.minds_slowness());
                match probe.lease.take() {
                    lease if failed => probe.circuit.probe_failed(probe.generation, lease, None, now),
                    Some(lease) => probe.circuit.probe_passed(probe.generation, lease),
                    None => {}
                }
            }
            Self::Free => {}
        }
    }

    fn trip(&mut self, at_least: Option<Duration>, cause: &'static str, now: Moment) {
        match self {
            Self::Counted(seat) => seat.trip(at_least, cause, now),
            Self::Probe(probe) => probe.circuit.probe_failed(probe.generation, probe.lease.take(), at_least, now),
            Self::Free => {}
        }
    }

    /// No result: a probe's place is free again.
    fn give_back(&mut self) {
        if let Self::Probe(probe) = self
            && let Some(lease) = probe.lease.take()
        {
            probe.circuit.give_back(probe.generation, lease);
        }
    }
}
