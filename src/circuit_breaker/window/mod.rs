//! The calls of the last while, in tenths.

pub(super) mod current;
pub(super) mod epoch;
pub(super) mod ring;
pub(super) mod tallies;

use std::time::Duration;

use super::trip::{Mark, Tally};
use crate::time::{Moment, nanos};

/// The tenths of a window: the current one and the nine before it.
const TENTHS: usize = 10;

/// Counts of the last while. A tenth leaves at once when its time is over; sums are kept, so each step is O(1).
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    width: u64,
    /// The number of the current tenth since the clock's zero, and where it ends.
    tick: u64,
    ends: u64,
    tenths: [Tally; TENTHS],
    sum: Tally,
}

impl Buckets {
    pub(crate) fn new(window: Duration) -> Self {
        let width = nanos(window).div_ceil(TENTHS as u64).max(1);
        Self { width, tick: 0, ends: width, tenths: [Tally::default(); TENTHS], sum: Tally::default() }
    }

    #[inline]
    pub(crate) fn record(&mut self, mark: Mark, now: Moment) {
        self.advance(now);
        let tenth = &mut self.tenths[(self.tick % TENTHS as u64) as usize];
        for tally in [tenth, &mut self.sum] {
            tally.calls += 1;
            tally.failures += u64::from(mark.failure);
            tally.slow += u64::from(mark.slow);
        }
    }

    pub(crate) fn tally(&mut self, now: Moment) -> Tally {
        self.advance(now);
        self.sum
    }

    /// Forgets what is over. A clock that steps back stays in the tenth that it had reached.
    #[inline]
    fn advance(&mut self, now: Moment) {
        let now = now.as_nanos();
        if now < self.ends {
            return;
        }
        let tick = now / self.width;
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
    fn a_call_counts_for_nine_tenths_at_least_and_for_the_whole_at_most() {
        let window = Duration::from_nanos(100);
        for at in 0..10 {
            let mut buckets = Buckets::new(window);
            buckets.record(Mark { failure: true, slow: false }, Moment::from_nanos(at));
            let counts = |later| buckets.clone().tally(Moment::from_nanos(later)).failures;
            assert_eq!(counts(at + 90), 1);
            assert_eq!(counts(at + 100), 0);
        }
    }

    #[test]
    fn no_time_overflows() {
        for window in [Duration::from_nanos(1), Duration::MAX] {
            let mut buckets = Buckets::new(window);
            for now in [Moment::MAX, Moment::default(), Moment::MAX] {
                buckets.record(Mark::default(), now);
            }
            assert_eq!(buckets.tally(Moment::MAX).calls, 3);
        }
    }

    proptest! {
        /// Against a list of all calls ever, which is searched from end to end.
        #[test]
        fn it_slides(
            width in 1..50_u64,
            calls in prop::collection::vec((0..200_i64, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut buckets = Buckets::new(Duration::from_nanos(width * 10));
            let (mut list, mut now, mut latest) = (Vec::new(), 1_000_i64, 0);
            for (step, failure, slow) in calls {
                now += step - 20; // the clock steps back now and then
                let tick = now.max(0) as u64 / width;
                latest = latest.max(tick);
                buckets.record(Mark { failure, slow }, Moment::from_nanos(now.max(0) as u64));
                list.push((latest, failure, slow));
                let live: Vec<_> = list.iter().filter(|call| call.0 + 10 > latest).collect();
                let expected = Tally {
                    calls: live.len() as u64,
                    failures: live.iter().filter(|call| call.1).count() as u64,
                    slow: live.iter().filter(|call| call.2).count() as u64,
                };
                prop_assert_eq!(buckets.tally(Moment::from_nanos(now.max(0) as u64)), expected);
            }
        }
    }
}
