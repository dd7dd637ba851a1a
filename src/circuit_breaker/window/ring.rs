//! The last N calls, exactly, without a lock.

use crate::{
    circuit_breaker::trip::{Mark, Tally},
    sync::{AtomicU8, AtomicU64, Ordering},
};

/// One byte a call. A call takes the next place, swaps its mark in and adds the difference to the sums, so the sums are
/// those of the places at rest, and whoever adds last sees what all others added.
///
/// A success that replaces a success writes nothing but the position; in a full window without a bad call, where every
/// place is the same, it writes nothing at all. So threads that have only good to tell do not meet.
#[derive(Debug)]
#[repr(align(128))] // its counters share no line with what is only read
pub(crate) struct Ring {
    position: AtomicU64,
    /// Failures in the upper half, slow calls in the lower; each may be below zero for a moment, when a call takes a
    /// mark out before the call that put it in has added it.
    sums: AtomicU64,
    places: Box<[AtomicU8]>,
}

const FAILURE: u8 = 1;
const SLOW: u8 = 2;

impl Ring {
    pub(crate) fn new(calls: u32) -> Self {
        let places = (0..calls).map(|_| AtomicU8::new(0)).collect();
        Self { position: AtomicU64::new(0), sums: AtomicU64::new(0), places }
    }

    #[inline]
    pub(crate) fn record(&self, mark: Mark) {
        let bits = if mark.failure { FAILURE } else { 0 } | if mark.slow { SLOW } else { 0 };
        if bits == 0 && self.sums.load(Ordering::Acquire) == 0 && self.is_full() {
            return;
        }
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
    fn after_ten_thousand_successes_a_hundred_failures_fill_the_window() {
        let ring = Ring::new(100);
        (0..10_000).for_each(|_| ring.record(Mark::default()));
        (0..100).for_each(|_| ring.record(Mark { failure: true, slow: false }));
        assert_eq!(ring.tally(), Tally { calls: 100, failures: 100, slow: 0 });
    }

    #[test]
    fn a_sum_below_zero_for_a_moment_is_read_as_zero_and_spoils_nothing() {
        let ring = Ring::new(4);
        ring.sums.fetch_add(-1_i64 as u64, Ordering::AcqRel);
        assert_eq!(ring.tally(), Tally { calls: 0, failures: 0, slow: 0 });
        ring.sums.fetch_add(3 << 32, Ordering::AcqRel);
        assert_eq!(ring.tally().failures, 3);
    }

    proptest! {
        #[test]
        fn it_is_the_list_of_the_last_calls(size in 1..9_u32, calls in prop::collection::vec(any::<(bool, bool)>(), 0..60)) {
            let ring = Ring::new(size);
            let mut list = VecDeque::new();
            for (failure, slow) in calls {
                ring.record(Mark { failure, slow });
                list.push_back((failure, slow));
                if list.len() > size as usize {
                    list.pop_front();
                }
                let expected = Tally {
                    calls: list.len() as u64,
                    failures: list.iter().filter(|call| call.0).count() as u64,
                    slow: list.iter().filter(|call| call.1).count() as u64,
                };
                prop_assert_eq!(ring.tally(), expected);
            }
        }
    }
}
