//! Exact window of the last N calls, without a lock.

use super::{CallResult, Tally};
use crate::sync::{AtomicU8, AtomicU64, Ordering};

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
}
