//! The permit of an admitted request, whose tokens are spent unless a layer further in refuses it for a reason that is not
//! the client's. The response reports the bucket.

use std::{fmt, sync::Arc};

use http::{Extensions, Response};

use super::{decision::Demand, gcra, rates::RateLimit};
use crate::{
    cost::Cost,
    gate::{Lasts, Outcome, Permit},
    refusal::Refusal,
    time::Moment,
};

/// Permit of a request that took its tokens.
pub struct TokenBucketPermit(Option<SpentTokens>);

/// Tokens that a request took. Few words, because it moves with the response.
struct SpentTokens {
    limit: Arc<RateLimit>,
    /// Time from the admission until the bucket is full, in nanoseconds.
    full_in: u64,
    /// [`RateLimit::tag`] of the client.
    tag: u64,
    cost: Cost,
}

impl TokenBucketPermit {
    /// Creates a permit that reports nothing and gives nothing back.
    pub(super) const fn silent() -> Self {
        Self(None)
    }

    /// Creates the permit of a request whose bucket is full at `full_at`, or is a newcomer's.
    #[inline]
    pub(super) fn new(limit: &Arc<RateLimit>, full_at: Option<u64>, demand: &Demand<'_>) -> Self {
        let Demand { tag, cost, now, .. } = *demand;
        let full_at = full_at.unwrap_or_else(|| gcra::newcomer(&limit.rate, now));
        let full_in = full_at.saturating_sub(now.as_nanos());
        Self(Some(SpentTokens { limit: Arc::clone(limit), full_in, tag, cost }))
    }
}

impl SpentTokens {
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
}

impl Permit for TokenBucketPermit {
    const LASTS: Lasts = Lasts::Head;

    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        if let Some(spent) = &self.0
            && spent.limit.reports
        {
            let limit = &spent.limit;
            let full_in = spent.full_in.saturating_sub(spent.refunded(response.extensions()));
            let level = gcra::level(&limit.rate, Some(full_in), Moment::default());
            limit.fields.write(response.headers_mut(), level.remaining, limit.reset(&level), || limit.clock.wall());
        }
    }

    #[inline]
    fn settle(self, outcome: Outcome<'_>) {
        if let (Outcome::Refused(refusal), Some(SpentTokens { limit, tag, cost, .. })) = (outcome, self.0)
            && let Some(policy) = limit.policy.upgrade()
            && policy.refunds(refusal.reason())
        {
            policy.give_back(tag, limit.number, cost);
        }
    }
}

impl fmt::Debug for TokenBucketPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucketPermit").finish_non_exhaustive()
    }
}
