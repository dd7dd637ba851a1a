//! What an admitted request holds: what its response will say of the bucket. The token is spent, whatever happens.

use std::sync::Arc;

use http::Response;

use super::gcra;
use super::rates::Limit;
use crate::{
    gate::{Outcome, Permit},
    time::Moment,
};

/// Permit of a request that took its tokens.
#[derive(Debug)]
pub struct TokenBucketPermit(Option<Taken>);

/// The limit that a request met, and how long after it the client's bucket takes to be full. Two words, because it is
/// moved about with the response.
#[derive(Debug)]
struct Taken {
    limit: Arc<Limit>,
    full_in: u64,
}

impl TokenBucketPermit {
    /// Nobody will be told anything.
    pub(super) const fn silent() -> Self {
        Self(None)
    }

    /// The response will tell of the bucket that will be full at `full_at`, or is a newcomer's.
    pub(super) fn telling(limit: &Arc<Limit>, full_at: Option<u64>, now: Moment) -> Self {
        let full_at = full_at.unwrap_or_else(|| gcra::newcomer(&limit.rate, now));
        Self(Some(Taken { limit: Arc::clone(limit), full_in: full_at.saturating_sub(now.as_nanos()) }))
    }
}

impl Permit for TokenBucketPermit {
    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        if let Some(Taken { limit, full_in }) = &self.0 {
            let level = gcra::level(&limit.rate, Some(*full_in), Moment::default());
            limit.fields.write(response.headers_mut(), level.remaining, limit.reset(&level), || limit.clock.wall());
        }
    }

    #[inline]
    fn settle(self, _: Outcome<'_>) {}
}
