//! What an admitted request holds: what its response will say of the bucket. The token is spent, whatever happens.

use std::{sync::Arc, time::Duration};

use http::response;

use super::{policy::Taken, rates::Limit};
use crate::{Outcome, Permit};

/// A token that was taken.
#[derive(Debug)]
pub struct Passed(Option<Note>);

/// What the response's fields say.
#[derive(Debug)]
struct Note {
    limit: Arc<Limit>,
    remaining: u64,
    reset: Duration,
    wall: Duration,
}

impl Passed {
    pub(super) fn telling(taken: Taken, wall: Duration) -> Self {
        let Taken { limit, level } = taken;
        let reset = limit.reset(&level);
        Self(Some(Note { limit, remaining: level.remaining, reset, wall }))
    }

    /// The pass of a request of whose bucket nothing is told.
    pub(super) fn silent() -> Self {
        Self(None)
    }
}

impl Permit for Passed {
    fn on_response(&mut self, head: &mut response::Parts) {
        if let Some(Note { limit, remaining, reset, wall }) = &self.0 {
            limit.fields.write(&mut head.headers, *remaining, *reset, || *wall);
        }
    }

    fn settle(self, _: Outcome<'_>) {}
}
