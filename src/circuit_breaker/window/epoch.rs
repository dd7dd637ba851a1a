//! One generation of a circuit: its window, and the seats from which threads write into it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use super::tallies::Tallies;
use crate::circuit_breaker::{circuit::Circuit, setup::BreakerConfig};
use crate::{
    circuit_breaker::trip::{Mark, Tally},
    sync::{AtomicU32, Ordering},
    time::Moment,
};

/// The counts of one generation. An admitted call holds it, so a result that comes late is written where nobody reads.
#[derive(Debug)]
pub(crate) struct Epoch {
    circuit: Weak<Circuit>,
    setup: Arc<BreakerConfig>,
    generation: u64,
    in_a_row: AtomicU32,
    tallies: Tallies,
}

/// A way into an epoch. Each thread takes its own, because one reference count for all would be the bottleneck.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Seat {
    epoch: Arc<Epoch>,
    number: usize,
}

impl Epoch {
    /// Empty counts for the machine's present generation.
    pub(crate) fn new(generation: u64, circuit: &Weak<Circuit>, setup: &Arc<BreakerConfig>, seats: usize) -> Arc<Self> {
        Arc::new(Self {
            circuit: Weak::clone(circuit),
            setup: Arc::clone(setup),
            generation,
            in_a_row: AtomicU32::new(0),
            tallies: Tallies::new(setup.trip.window(), seats),
        })
    }

    pub(crate) fn seat(self: &Arc<Self>, number: usize) -> Arc<Seat> {
        Arc::new(Seat { epoch: Arc::clone(self), number })
    }

    /// What the window of a seat's epoch holds, and how many calls in a row failed.
    pub(crate) fn tally(seat: &Seat, now: Moment) -> (Tally, u32) {
        (seat.epoch.tallies.tally(now), seat.epoch.in_a_row.load(Ordering::Acquire))
    }

    /// How many calls in a row failed, this one included.
    #[inline]
    fn streak(&self, failure: bool) -> u32 {
        if failure {
            return self.in_a_row.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        }
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Release);
        }
        0
    }
}

impl Seat {
    #[inline]
    pub(crate) fn setup(&self) -> &BreakerConfig {
        &self.epoch.setup
    }

    /// Counts one call, and opens the circuit if that was the last straw.
    #[inline]
    pub(crate) fn record(&self, mark: Mark, now: Moment) {
        let epoch = &*self.epoch;
        let in_a_row = epoch.streak(mark.failure);
        epoch.tallies.record(self.number, mark, now);
        if mark.is_bad()
            && let Some(cause) = epoch.setup.trip.judge(epoch.tallies.tally(now), in_a_row)
        {
            self.trip(None, cause, now);
        }
    }

    /// Opens the circuit, unless it is of another generation by now.
    pub(crate) fn trip(&self, at_least: Option<Duration>, cause: &'static str, now: Moment) {
        if let Some(circuit) = self.epoch.circuit.upgrade() {
            circuit.trip(self.epoch.generation, at_least, cause, now);
        }
    }
}
