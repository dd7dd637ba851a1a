//! The permit of an admitted request, whose tokens are spent unless a layer further in refuses it for a reason that is not
//! the client's. The response reports the bucket.

use std::{fmt, sync::Arc};

use http::Response;

use super::{decision::Demand, gcra, rates::RateLimit};
use crate::{
    cost::Cost,
    gate::{Lasts, Outcome, Permit},
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

impl Permit for TokenBucketPermit {
    const LASTS: Lasts = Lasts::Head;

    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        if let Some(SpentTokens { limit, full_in, .. }) = &self.0
            && limit.reports
        {
            let level = gcra::level(&limit.rate, Some(*full_in), Moment::default());
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
