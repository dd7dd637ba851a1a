//! The permit of an admitted request, whose tokens are spent unless a layer further in refuses it for a reason that is not
//! the client's. The response reports the bucket.

use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, Response};

use super::{decision::Demand, gcra, rates::RateLimit};
use crate::{
    cost::Cost,
    gate::{Outcome, Permit, ToHead},
    refusal::Refusal,
    time::Moment,
};

/// Permit of a request that took its tokens. Few words, because it moves with the response.
pub struct TokenBucketPermit {
    limit: Arc<RateLimit>,
    /// Time from the admission until the bucket is full, in nanoseconds; [`UNREPORTED`] if no field reports it.
    full_in: u64,
    /// [`RateLimit::tag`] of the client.
    tag: u64,
    /// Tokens that may go back.
    cost: Cost,
}

/// In place of the time until the bucket is full. No bucket takes 584 years.
const UNREPORTED: u64 = u64::MAX;

impl TokenBucketPermit {
    /// Creates a permit that reports nothing and gives nothing back.
    pub(super) const fn silent(limit: Arc<RateLimit>) -> Self {
        Self { limit, full_in: UNREPORTED, tag: 0, cost: Cost::PREFLIGHT }
    }

    /// Creates the permit of a request whose bucket is full at `full_at`.
    #[inline]
    pub(super) fn new(limit: &Arc<RateLimit>, full_at: u64, demand: &Demand<'_>) -> Self {
        let Demand { tag, cost, now, .. } = *demand;
        let full_in = if limit.reports { full_at.saturating_sub(now.as_nanos()) } else { UNREPORTED };
        Self { limit: Arc::clone(limit), full_in, tag, cost }
    }

    /// Returns the time that the tokens of a request stand for, in nanoseconds, if a layer further in refused it for a
    /// reason for which they go back, else 0. Otherwise the response would name a wait for tokens that are not spent.
    #[inline]
    fn refunded(&self, extensions: &Extensions) -> u64 {
        let Some(refusal) = extensions.get::<Refusal>() else { return 0 };
        let goes_back = self.limit.policy.upgrade().is_some_and(|policy| {
            Refusal::further_in(extensions, policy.context.outbound).is_some() && policy.refunds(refusal.reason())
        });
        if goes_back { self.limit.rate.interval_ns().saturating_mul(self.cost.get()) } else { 0 }
    }

    /// Writes the rate limit fields; `refunded` is the [time](Self::refunded) of tokens that go back.
    fn report(&self, headers: &mut HeaderMap, refunded: u64) {
        let limit = &self.limit;
        let level = gcra::level(&limit.rate, Some(self.full_in.saturating_sub(refunded)), Moment::default());
        limit.fields.write(headers, level.remaining, limit.reset(&level), || limit.clock.wall());
    }

    /// Gives the tokens back if they go back after this refusal of a layer further in.
    #[cold]
    fn refund(&self, refusal: &Refusal) {
        if self.cost != Cost::PREFLIGHT
            && let Some(policy) = self.limit.policy.upgrade()
            && policy.refunds(refusal.reason())
        {
            policy.give_back(self.tag, self.limit.number, self.cost, Some(self.limit.global_number));
        }
    }
}

impl Permit for TokenBucketPermit {
    type Lasts = ToHead;

    #[inline(always)] // usually one comparison
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        if self.full_in != UNREPORTED {
            let refunded = self.refunded(response.extensions());
            self.report(response.headers_mut(), refunded);
        }
    }

    #[inline]
    fn settle(self, outcome: Outcome<'_>) {
        if let Outcome::Refused(refusal) = outcome {
            self.refund(refusal);
        }
    }
}

impl fmt::Debug for TokenBucketPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucketPermit").finish_non_exhaustive()
    }
}
