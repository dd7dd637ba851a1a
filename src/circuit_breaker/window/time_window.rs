//! Window of the calls of the last span of time, in tenths.

use std::time::Duration;

use super::{CallResult, Tally};
use crate::time::{Moment, nanos};

/// Tenths of a window: the current one and the nine before it.
const TENTHS: usize = 10;

/// Results of the last span of time. A tenth leaves as a whole when its time is over. Sums are stored, so that each
/// step is O(1).
#[derive(Clone)]
pub(crate) struct TimeWindow {
    /// Nanoseconds of a tenth.
    width: u64,
    /// Number of the current tenth since the clock's zero, and the nanosecond at which it ends.
    tick: u64,
    ends: u64,
    tenths: [Tally; TENTHS],
    sum: Tally,
}

impl TimeWindow {
    pub(crate) fn new(length: Duration) -> Self {
        let width = nanos(length).div_ceil(TENTHS as u64).max(1);
        Self { width, tick: 0, ends: width, tenths: [Tally::default(); TENTHS], sum: Tally::default() }
    }

    #[inline]
    pub(crate) fn record(&mut self, result: CallResult, now: Moment) {
        self.advance(now);
        let one = Tally { calls: 1, failures: u64::from(result.failure), slow: u64::from(result.slow) };
        self.tenths[(self.tick % TENTHS as u64) as usize].merge(one);
        self.sum.merge(one);
    }

    pub(crate) fn tally(&mut self, now: Moment) -> Tally {
        self.advance(now);
        self.sum
    }

    /// Drops the tenths that are over. If the clock steps back, the window stays in the tenth that it had reached.
    #[inline]
    fn advance(&mut self, now: Moment) {
        if now.as_nanos() >= self.ends {
            self.begin_tenth(now.as_nanos() / self.width);
        }
    }

    #[cold]
    fn begin_tenth(&mut self, tick: u64) {
        for over in (self.tick + 1..=tick).take(TENTHS) {
            let tenth = std::mem::take(&mut self.tenths[(over % TENTHS as u64) as usize]);
            self.sum.calls -= tenth.calls;
            self.sum.failures -= tenth.failures;
            self.sum.slow -= tenth.slow;
        }
        self.tick = tick;
        self.ends = (tick + 1).saturating_mul(self.width);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn call_counts_for_nine_tenths_to_the_whole_window() {
        let length = Duration::from_nanos(100);
        for at in 0..10 {
            let mut window = TimeWindow::new(length);
            window.record(CallResult { failure: true, slow: false }, Moment::from_nanos(at));
            let counts = |later| window.clone().tally(Moment::from_nanos(later)).failures;
            assert_eq!(counts(at + 90), 1);
            assert_eq!(counts(at + 100), 0);
        }
    }

    #[test]
    fn no_time_overflows() {
        for length in [Duration::from_nanos(1), Duration::MAX] {
            let mut window = TimeWindow::new(length);
            for now in [Moment::MAX, Moment::default(), Moment::MAX] {
                window.record(CallResult::default(), now);
            }
            assert_eq!(window.tally(Moment::MAX).calls, 3);
        }
    }

    proptest! {
        /// Compares the window with a list of all calls, which is searched from end to end.
        #[test]
        fn equals_a_list_of_all_calls(
            width in 1..50_u64,
            calls in prop::collection::vec((0..200_i64, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut window = TimeWindow::new(Duration::from_nanos(width * 10));
            let (mut list, mut now, mut latest) = (Vec::new(), 1_000_i64, 0);
            for (step, failure, slow) in calls {
                now += step - 20; // the clock steps back now and then
                let tick = now.max(0) as u64 / width;
                latest = latest.max(tick);
                window.record(CallResult { failure, slow }, Moment::from_nanos(now.max(0) as u64));
                list.push((latest, failure, slow));
                let live: Vec<_> = list.iter().filter(|call| call.0 + 10 > latest).collect();
                let expected = Tally {
                    calls: live.len() as u64,
                    failures: live.iter().filter(|call| call.1).count() as u64,
                    slow: live.iter().filter(|call| call.2).count() as u64,
                };
                prop_assert_eq!(window.tally(Moment::from_nanos(now.max(0) as u64)), expected);
            }
        }
    }
}
