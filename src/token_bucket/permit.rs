//! The permit of an admitted request. Its tokens are spent, whatever the outcome; the response reports the bucket.

use std::sync::Arc;

use http::Response;

use super::{gcra, rates::RateLimit};
use crate::{
    gate::{Lasts, Outcome, Permit},
    time::Moment,
};

/// Permit of a request that took its tokens.
#[derive(Debug)]
pub struct TokenBucketPermit(Option<Report>);

/// The limit of a request, and the time from its admission until its bucket is full, in nanoseconds. Two words, because
/// it moves with the response.
#[derive(Debug)]
struct Report {
    limit: Arc<RateLimit>,
    full_in: u64,
}

impl TokenBucketPermit {
    /// Creates a permit that reports nothing.
    pub(super) const fn silent() -> Self {
        Self(None)
    }

    /// Creates a permit that reports the bucket that is full at `full_at`, or a newcomer's.
    pub(super) fn reporting(limit: &Arc<RateLimit>, full_at: Option<u64>, now: Moment) -> Self {
        let full_at = full_at.unwrap_or_else(|| gcra::newcomer(&limit.rate, now));
        Self(Some(Report { limit: Arc::clone(limit), full_in: full_at.saturating_sub(now.as_nanos()) }))
    }
}

impl Permit for TokenBucketPermit {
    const LASTS: Lasts = Lasts::Head;

    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        if let Some(Report { limit, full_in }) = &self.0 {
            let level = gcra::level(&limit.rate, Some(*full_in), Moment::default());
            limit.fields.write(response.headers_mut(), level.remaining, limit.reset(&level), || limit.clock.wall());
        }
    }

    #[inline]
    fn settle(self, _: Outcome<'_>) {}
}
