//! One bucket for everyone together, in one word.

use crate::{
    cost::Cost,
    sync::{AtomicU64, Ordering},
    time::Moment,
    token_bucket::{
        gcra::{self, Decision, Level},
        rate::Rate,
    },
};

/// A bucket that all threads take from without a lock; the exchange of its word is the moment of admission.
///
/// Zero says that nobody took anything yet: it holds a newcomer's tokens, counted from the first request.
#[derive(Debug)]
pub(crate) struct GlobalCell {
    full_at: AtomicU64,
}

impl GlobalCell {
    /// A bucket that nobody took from.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { full_at: AtomicU64::new(0) }
    }

    /// Takes `cost`, or changes nothing.
    pub(crate) fn take(&self, rate: &Rate, cost: Cost, now: Moment) -> Decision {
        self.change(|full_at| {
            let verdict = gcra::decide(rate, known(full_at), cost, now);
            let after = match verdict {
                Decision::Admitted { full_at } => full_at,
                // A newcomer's tokens begin to come when it is first asked.
                Decision::Refused { .. } => known(full_at).unwrap_or_else(|| gcra::newcomer(rate, now)),
                Decision::TooLarge => full_at,
            };
            (after, verdict)
        })
    }

    /// What it would say to `cost` now, taking nothing; a newcomer's tokens begin to come here too.
    pub(crate) fn ask(&self, rate: &Rate, cost: Cost, now: Moment) -> Decision {
        self.change(|full_at| {
            let full_at = known(full_at).unwrap_or_else(|| gcra::newcomer(rate, now));
            (full_at, gcra::decide(rate, Some(full_at), cost, now))
        })
    }

    /// Gives `cost` back; never fuller than full.
    pub(crate) fn give_back(&self, rate: &Rate, cost: Cost, now: Moment) {
        self.change(|full_at| (gcra::give_back(rate, full_at, cost, now), ()));
    }

    /// A bucket of the rate `to` with the same fraction missing as here, where the rate is `from`.
    #[must_use]
    pub(crate) fn rescaled(&self, from: &Rate, to: &Rate, now: Moment) -> Self {
        let full_at = known(self.full_at.load(Ordering::Acquire));
        Self { full_at: AtomicU64::new(full_at.map_or(0, |at| gcra::rescale(at, from.span_ns(), to, now))) }
    }

    /// How full it is.
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
