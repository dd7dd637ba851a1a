//! Sliding window over the results of a circuit's calls: the last N calls, or the calls of the last N seconds.

pub(super) mod call_window;
pub(super) mod generation;
mod time_window;

use self::{call_window::CallWindow, time_window::TimeWindow};
use super::trip::WindowLength;
use crate::{
    sync::{CachePadded, Spin},
    time::Moment,
};

/// Result of one call, as the rules of a [`Trip`](super::trip::Trip) see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallResult {
    pub(crate) failure: bool,
    pub(crate) slow: bool,
}

/// Calls in a window, and the bad ones among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) calls: u64,
    pub(crate) failures: u64,
    pub(crate) slow: u64,
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
    }
}

/// Window of one generation, shared by all threads.
pub(crate) enum SlidingWindow {
    Calls(CallWindow),
    /// One part for each stripe, so that threads seldom contend; a reader adds the parts.
    Time(Box<[CachePadded<Spin<TimeWindow>>]>),
}

impl SlidingWindow {
    pub(crate) fn new(length: WindowLength, stripes: usize) -> Self {
        match length {
            WindowLength::Calls(calls) => Self::Calls(CallWindow::new(calls)),
            WindowLength::Time(time) => {
                Self::Time((0..stripes).map(|_| CachePadded(Spin::new(TimeWindow::new(time)))).collect())
            }
        }
    }

    #[inline]
    pub(crate) fn record(&self, stripe: usize, result: CallResult, now: Moment) {
        match self {
            Self::Calls(window) => window.record(result),
            Self::Time(parts) => parts[stripe].0.lock().record(result, now),
        }
    }

    /// Returns the sum over all stripes. If several threads record and then read, the last to record reads all results.
    pub(crate) fn tally(&self, now: Moment) -> Tally {
        match self {
            Self::Calls(window) => window.tally(),
            Self::Time(parts) => {
                let mut sum = Tally::default();
                parts.iter().for_each(|part| sum.merge(part.0.lock().tally(now)));
                sum
            }
        }
    }
}
