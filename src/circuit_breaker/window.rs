//! Sliding window over the results of a circuit's calls: the last N calls, or the calls of the last N seconds.

use std::time::Duration;

use super::trip::WindowLength;
use crate::{
    sync::{AtomicU8, AtomicU64, CachePadded, Ordering, Spin},
    time::{Moment, nanos},
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
    pub(crate) fn record(&self, stripe: usize, result: CallResult, now: impl FnOnce() -> Moment) {
        match self {
            Self::Calls(window) => window.record(result),
            Self::Time(parts) => {
                let now = now();
                parts[stripe].0.lock().record(result, now);
            }
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

/// Ring buffer of call results, one byte each.
///
/// A call takes the next place, swaps its result in and adds the difference to the sums. At rest the sums are those of
/// the places, and the call that adds last sees what all others added.
///
/// A success that replaces a success writes only the position. In a full window without a bad call it writes nothing,
/// because every place holds the same. Threads that report only successes then share no written cache line.
#[repr(align(128))] // the counters share no cache line with fields that are only read
pub(crate) struct CallWindow {
    position: AtomicU64,
    /// Failures in the upper half, slow calls in the lower. Each may be below zero for a moment: one call can take out
    /// the result of another that has not added it yet.
    sums: AtomicU64,
    places: Box<[AtomicU8]>,
}

const FAILURE: u8 = 1;
const SLOW: u8 = 2;

impl CallWindow {
    pub(crate) fn new(calls: u32) -> Self {
        let places = (0..calls).map(|_| AtomicU8::new(0)).collect();
        Self { position: AtomicU64::new(0), sums: AtomicU64::new(0), places }
    }

    #[inline]
    pub(crate) fn record(&self, result: CallResult) {
        let bits = if result.failure { FAILURE } else { 0 } | if result.slow { SLOW } else { 0 };
        if bits == 0 && self.sums.load(Ordering::Acquire) == 0 && self.is_full() {
            return;
        }
        self.replace(bits);
    }

    /// Replaces the oldest result.
    #[inline(never)]
    fn replace(&self, bits: u8) {
        let position = self.position.fetch_add(1, Ordering::AcqRel);
        let place = &self.places[(position % self.places.len() as u64) as usize];
        if place.load(Ordering::Acquire) == bits {
            return;
        }
        let old = place.swap(bits, Ordering::AcqRel);
        let step = |bit| i64::from(bits & bit != 0) - i64::from(old & bit != 0);
        let difference = (step(FAILURE) << 32).wrapping_add(step(SLOW));
        if difference != 0 {
            self.sums.fetch_add(difference as u64, Ordering::AcqRel);
        }
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.position.load(Ordering::Acquire) >= self.places.len() as u64
    }

    pub(crate) fn tally(&self) -> Tally {
        let sums = self.sums.load(Ordering::Acquire);
        let slow = sums as u32 as i32;
        let failures = (sums.wrapping_sub(i64::from(slow) as u64) >> 32) as u32 as i32;
        let calls = self.position.load(Ordering::Acquire).min(self.places.len() as u64);
        let count = |sum: i32| u64::try_from(sum).unwrap_or(0);
        Tally { calls, failures: count(failures), slow: count(slow) }
    }
}

/// Tenths of a window: the current one and the nine before it.
const TENTHS: usize = 10;

/// Results of the last span of time. A tenth leaves as a whole when its time is over.
#[derive(Clone)]
pub(crate) struct TimeWindow {
    /// Nanoseconds of a tenth.
    width: u64,
    /// Number of the current tenth since the clock's zero, and the nanosecond at which it ends.
    tick: u64,
    ends: u64,
    tenths: [Tally; TENTHS],
}

impl TimeWindow {
    pub(crate) fn new(length: Duration) -> Self {
        let width = nanos(length).div_ceil(TENTHS as u64).max(1);
        Self { width, tick: 0, ends: width, tenths: [Tally::default(); TENTHS] }
    }

    #[inline]
    pub(crate) fn record(&mut self, result: CallResult, now: Moment) {
        self.advance(now);
        let one = Tally { calls: 1, failures: u64::from(result.failure), slow: u64::from(result.slow) };
        self.tenths[(self.tick % TENTHS as u64) as usize].merge(one);
    }

    pub(crate) fn tally(&mut self, now: Moment) -> Tally {
        self.advance(now);
        let mut sum = Tally::default();
        self.tenths.iter().for_each(|tenth| sum.merge(*tenth));
        sum
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
            self.tenths[(over % TENTHS as u64) as usize] = Tally::default();
        }
        self.tick = tick;
        self.ends = (tick + 1).saturating_mul(self.width);
    }
}

#[cfg(all(test, not(tollgate_loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hundred_failures_replace_ten_thousand_successes() {
        let window = CallWindow::new(100);
        (0..10_000).for_each(|_| window.record(CallResult::default()));
        (0..100).for_each(|_| window.record(CallResult { failure: true, slow: false }));
        assert_eq!(window.tally(), Tally { calls: 100, failures: 100, slow: 0 });
    }

    #[test]
    fn sum_below_zero_reads_as_zero() {
        let window = CallWindow::new(4);
        window.sums.fetch_add(-1_i64 as u64, Ordering::AcqRel);
        assert_eq!(window.tally(), Tally { calls: 0, failures: 0, slow: 0 });
        window.sums.fetch_add(3 << 32, Ordering::AcqRel);
        assert_eq!(window.tally().failures, 3);
    }

    proptest! {
        #[test]
        fn equals_a_list_of_the_last_calls(size in 1..9_u32, calls in prop::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let window = CallWindow::new(size);
            let mut list = VecDeque::new();
            for (failure, slow) in calls {
                window.record(CallResult { failure, slow });
                list.push_back((failure, slow));
                if list.len() > size as usize {
                    list.pop_front();
                }
                let expected = Tally {
                    calls: list.len() as u64,
                    failures: list.iter().filter(|call| call.0).count() as u64,
                    slow: list.iter().filter(|call| call.1).count() as u64,
                };
                prop_assert_eq!(window.tally(), expected);
            }
        }
    }

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
