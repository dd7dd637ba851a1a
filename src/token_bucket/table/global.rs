//! The global bucket of all clients together, in one word.

use crate::{
    cost::Cost,
    sync::{AtomicU64, Ordering},
    time::Moment,
    token_bucket::{
        gcra::{self, Decision, Level},
        rate::Rate,
    },
};

/// A bucket that all threads take from without a lock. The exchange of its word is the moment of admission.
///
/// A new rate has a new bucket. Otherwise a decision under the old rate would write its times into a bucket that others
/// read by the new one.
#[derive(Debug)]
pub(crate) struct GlobalBucket {
    rate: Rate,
    /// Greatest burst that the bucket has had.
    burst: u64,
    /// Zero stands for an unused bucket: it holds a newcomer's tokens, counted from the first request.
    full_at: AtomicU64,
}

impl GlobalBucket {
    /// Creates an unused bucket.
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, burst: rate.capacity(), full_at: AtomicU64::new(0) }
    }

    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    /// Decides on `cost`, and takes it if it is admitted and `takes` is set.
    ///
    /// The tokens of an unused bucket arrive from its first request on, also from a refused one.
    pub(crate) fn decide(&self, cost: Cost, now: Moment, takes: bool) -> Decision {
        self.change(|full_at| {
            let before = known(full_at).unwrap_or_else(|| gcra::newcomer(&self.rate, now));
            match gcra::decide(&self.rate, Some(before), cost, now) {
                decision @ Decision::Admitted { full_at } if takes => (full_at, decision),
                decision => (before, decision),
            }
        })
    }

    /// Gives `cost` back, up to full.
    pub(crate) fn give_back(&self, cost: Cost, now: Moment) {
        self.change(|full_at| (gcra::give_back(&self.rate, full_at, cost, now), ()));
    }

    /// Returns a bucket of the rate `to` with the same missing tokens as this one.
    pub(crate) fn at_rate(&self, to: Rate, now: Moment) -> Self {
        let full_at = known(self.full_at.load(Ordering::Acquire));
        let full_at = full_at.map_or(0, |full_at| gcra::change_rate(full_at, &self.rate, &to, self.burst, now));
        Self { rate: to, burst: self.burst.max(to.capacity()), full_at: AtomicU64::new(full_at) }
    }

    /// Returns the level.
    pub(crate) fn level(&self, now: Moment) -> Level {
        gcra::level(&self.rate, known(self.full_at.load(Ordering::Acquire)), now)
    }

    fn change<R>(&self, change: impl Fn(u64) -> (u64, R)) -> R {
        let mut before = self.full_at.load(Ordering::Acquire);
        loop {
            let (after, result) = change(before);
            if after == before {
                return result;
            }
            match self.full_at.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return result,
                Err(newer) => before = newer,
            }
        }
    }
}

fn known(full_at: u64) -> Option<u64> {
    (full_at != 0).then_some(full_at)
}
