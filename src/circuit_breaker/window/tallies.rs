//! The window of one generation, shared by all threads.

use std::time::Duration;

use super::Buckets;
use super::ring::Ring;
use crate::{
    circuit_breaker::trip::{Mark, Tally, Window},
    sync::Spin,
    time::Moment,
};

/// Counts of the calls in a window.
#[derive(Debug)]
pub(crate) enum Tallies {
    Calls(Ring),
    /// One part for each seat, so that threads seldom meet; a reader adds the parts up.
    Time(Box<[Part]>),
}

#[derive(Debug)]
#[repr(align(128))] // two parts share no line, nor a prefetched pair of lines
pub(crate) struct Part(Spin<Buckets>);

impl Part {
    #[inline]
    fn with<T>(&self, look: impl FnOnce(&mut Buckets) -> T) -> T {
        look(&mut self.0.lock())
    }
}

impl Tallies {
    pub(crate) fn new(window: Window, seats: usize) -> Self {
        match window {
            Window::Calls(calls) => Self::Calls(Ring::new(calls)),
            Window::Time(time) => Self::Time((0..seats).map(|_| Self::part(time)).collect()),
        }
    }

    fn part(time: Duration) -> Part {
        Part(Spin::new(Buckets::new(time)))
    }

    #[inline]
    pub(crate) fn record(&self, seat: usize, mark: Mark, now: Moment) {
        match self {
            Self::Calls(ring) => ring.record(mark),
            Self::Time(parts) => parts[seat].with(|buckets| buckets.record(mark, now)),
        }
    }

    /// The sum over all seats. Whoever reads after recording sees, or is seen by, everyone else who does.
    pub(crate) fn tally(&self, now: Moment) -> Tally {
        match self {
            Self::Calls(ring) => ring.tally(),
            Self::Time(parts) => {
                parts.iter().map(|part| part.with(|buckets| buckets.tally(now))).fold(Tally::default(), |sum, part| {
                    Tally {
                        calls: sum.calls + part.calls,
                        failures: sum.failures + part.failures,
                        slow: sum.slow + part.slow,
                    }
                })
            }
        }
    }
}
