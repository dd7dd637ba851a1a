//! One generation of a circuit: its window, and the seats from which threads write into it.

use std::{
    cell::Cell,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering as StdOrdering},
    },
    time::Duration,
};

use super::{circuit::Circuit, setup::Setup, tallies::Tallies, ticket::Ticket};
use crate::{
    Moment,
    rule::{
        circuit::{Machine, Mode},
        trip::{Mark, Tally},
    },
    sync::{AtomicU32, Ordering},
};

/// What becomes of calls in the present generation.
#[derive(Debug)]
pub(crate) enum Regime {
    /// They pass and are counted; as many seats as some power of two.
    Counted(Box<[Arc<Seat>]>),
    /// They pass, and nobody counts.
    Free,
    /// The machine must be asked.
    Ask,
}

/// The counts of one generation. An admitted call holds it, so a result that comes late is written where nobody reads.
#[derive(Debug)]
pub(crate) struct Epoch {
    circuit: Weak<Circuit>,
    setup: Arc<Setup>,
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

impl Regime {
    /// The regime of the machine's present generation.
    pub(crate) fn of(machine: &Machine, circuit: &Weak<Circuit>, setup: &Arc<Setup>, seats: usize) -> Self {
        if !machine.counts() {
            return if machine.mode() == Mode::Disabled { Self::Free } else { Self::Ask };
        }
        let epoch = Arc::new(Epoch {
            circuit: Weak::clone(circuit),
            setup: Arc::clone(setup),
            generation: machine.generation(),
            in_a_row: AtomicU32::new(0),
            tallies: Tallies::new(setup.trip.window(), seats),
        });
        Self::Counted((0..seats).map(|number| Arc::new(Seat { epoch: Arc::clone(&epoch), number })).collect())
    }

    /// What a call holds that passes without asking the machine.
    #[inline]
    pub(crate) fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Counted(seats) => Some(Ticket::Counted(Arc::clone(&seats[thread_number() & (seats.len() - 1)]))),
            Self::Free => Some(Ticket::Free),
            Self::Ask => None,
        }
    }

    /// What the window holds, and how many calls in a row failed.
    pub(crate) fn tally(&self, now: Moment) -> (Tally, u32) {
        match self {
            Self::Counted(seats) => {
                let epoch = &seats[0].epoch;
                (epoch.tallies.tally(now), epoch.in_a_row.load(Ordering::Acquire))
            }
            Self::Free | Self::Ask => (Tally::default(), 0),
        }
    }
}

impl Seat {
    #[inline]
    pub(crate) fn setup(&self) -> &Setup {
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

impl Epoch {
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

/// A number that no other thread has, counted from 0.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) });
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            number.set(NEXT.fetch_add(1, StdOrdering::Relaxed));
        }
        number.get()
    })
}
