//! What an admitted request holds: what its response will say of the bucket. The token is spent, whatever happens.

use http::response;

use super::policy::Taken;
use crate::{Outcome, Permit, rule::gcra};

/// A token that was taken.
#[derive(Debug)]
pub struct Passed(Option<Taken>);

impl Passed {
    pub(super) fn new(taken: Option<Taken>) -> Self {
        Self(taken)
    }
}

impl Permit for Passed {
    fn on_response(&mut self, head: &mut response::Parts) {
        if let Some(Taken { limit, full_at, now }) = &self.0 {
            let level = gcra::level(&limit.rate, Some(*full_at), *now);
            limit.fields.write(&mut head.headers, level.remaining, limit.reset(&level), || limit.clock.wall());
        }
    }

    fn settle(self, _: Outcome<'_>) {}
}
