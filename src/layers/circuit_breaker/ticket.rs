//! What an admitted call holds, and how it tells its result.

use std::{sync::Arc, time::Duration};

use super::{circuit::Circuit, epoch::Seat, setup::Setup};
use crate::{
    Moment, Verdict,
    rule::{Lease, trip::Mark},
};

/// The right to tell a result to the generation that admitted the call.
#[derive(Debug)]
pub(crate) enum Ticket {
    /// Through a closed circuit: the result goes into the window.
    Counted(Arc<Seat>),
    /// Through a half-open one; the lease is gone once the probe has been answered.
    Probe { circuit: Arc<Circuit>, generation: u64, lease: Option<Lease> },
    /// The result is nobody's business.
    Free,
}

impl Ticket {
    /// The breaker's setup, where a result matters.
    pub(crate) fn setup(&self) -> Option<&Setup> {
        match self {
            Self::Counted(seat) => Some(seat.setup()),
            Self::Probe { circuit, .. } => Some(circuit.setup()),
            Self::Free => None,
        }
    }

    /// The time now and whether a call from `started` is slow by now, where a result matters: only then the clock is read.
    pub(crate) fn elapsed(&self, started: Moment) -> Option<(Moment, bool)> {
        let setup = self.setup()?;
        let now = setup.clock.now();
        Some((now, setup.is_slow(now.since(started))))
    }

    /// Tells a result, of a call that was slow or not.
    pub(crate) fn tell(&mut self, verdict: Verdict, slow: bool, now: Moment) {
        match verdict {
            Verdict::Success => self.count(Mark { failure: false, slow }, now),
            Verdict::Failure => self.count(Mark { failure: true, slow }, now),
            Verdict::Ignore => self.give_back(),
            Verdict::Trip => self.trip(None, "classifier", now),
            Verdict::TripFor(wait) => self.trip(Some(wait), "retry_after", now),
        }
    }

    fn count(&mut self, mark: Mark, now: Moment) {
        match self {
            Self::Counted(seat) => seat.record(mark, now),
            Self::Probe { circuit, generation, lease } => {
                let failed = mark.failure || (mark.slow && circuit.setup().trip.minds_slowness());
                match lease.take() {
                    lease if failed => circuit.probe_failed(*generation, lease, None, now),
                    Some(lease) => circuit.probe_passed(*generation, lease),
                    None => {}
                }
            }
            Self::Free => {}
        }
    }

    fn trip(&mut self, at_least: Option<Duration>, cause: &'static str, now: Moment) {
        match self {
            Self::Counted(seat) => seat.trip(at_least, cause, now),
            Self::Probe { circuit, generation, lease } => {
                circuit.probe_failed(*generation, lease.take(), at_least, now);
            }
            Self::Free => {}
        }
    }

    /// No result: a probe's place is free again.
    fn give_back(&mut self) {
        if let Self::Probe { circuit, generation, lease } = self
            && let Some(lease) = lease.take()
        {
            circuit.give_back(*generation, lease);
        }
    }
}
