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
/// Zero stands for an unused bucket: it holds a newcomer's tokens, counted from the first request.
#[derive(Debug)]
pub(crate) struct GlobalCell {
    full_at: AtomicU64,
}

impl GlobalCell {
    /// Creates an unused bucket.
    pub(crate) fn new() -> Self {
        Self { full_at: AtomicU64::new(0) }
    }

    /// Takes `cost`, or takes nothing.
    pub(crate) fn take(&self, rate: &Rate, cost: Cost, now: Moment) -> Decision {
        self.change(|full_at| {
            let decision = gcra::decide(rate, known(full_at), cost, now);
            let after = match decision {
                Decision::Admitted { full_at } => full_at,
                // The tokens of an unused bucket arrive from its first request on.
                Decision::Refused { .. } => known(full_at).unwrap_or_else(|| gcra::newcomer(rate, now)),
                Decision::TooLarge => full_at,
            };
            (after, decision)
        })
    }

    /// Decides on `cost` without taking it. The tokens of an unused bucket arrive from here on too.
    pub(crate) fn ask(&self, rate: &Rate, cost: Cost, now: Moment) -> Decision {
        self.change(|full_at| {
            let full_at = known(full_at).unwrap_or_else(|| gcra::newcomer(rate, now));
            (full_at, gcra::decide(rate, Some(full_at), cost, now))
        })
    }

    /// Gives `cost` back, up to full.
    pub(crate) fn give_back(&self, rate: &Rate, cost: Cost, now: Moment) {
        self.change(|full_at| (gcra::give_back(rate, full_at, cost, now), ()));
    }

    /// Returns a bucket of the rate `to` with the same missing fraction as this one, whose rate is `from`.
    pub(crate) fn rescaled(&self, from: &Rate, to: &Rate, now: Moment) -> Self {
        let full_at = known(self.full_at.load(Ordering::Acquire));
        Self { full_at: AtomicU64::new(full_at.map_or(0, |at| gcra::rescale(at, from.span_ns(), to, now))) }
    }

    /// Returns the level.
    pub(crate) fn level(&self, rate: &Rate, now: Moment) -> Level {
        gcra::level(rate, known(self.full_at.load(Ordering::Acquire)), now)
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
