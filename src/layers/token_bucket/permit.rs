//! What an admitted request holds: what its response will say of the bucket. The token is spent, whatever happens.

use std::{sync::Arc, time::Duration};

use http::response;

use super::policy::Taken;
use crate::{Outcome, Permit, respond::Fields};

/// A token that was taken.
#[derive(Debug)]
pub struct Passed(Option<Note>);

/// What the response's fields say.
#[derive(Debug)]
struct Note {
    fields: Arc<Fields>,
    remaining: u64,
    reset: Duration,
    wall: Duration,
}

impl Passed {
    pub(super) fn telling(taken: Taken, wall: Duration) -> Self {
        let Taken { limit, level } = taken;
        let reset = limit.reset(&level);
        Self(Some(Note { fields: Arc::clone(&limit.fields), remaining: level.remaining, reset, wall }))
    }

    /// The pass of a request of whose bucket nothing is told.
    pub(super) fn silent() -> Self {
        Self(None)
    }
}

impl Permit for Passed {
    fn on_response(&mut self, head: &mut response::Parts) {
        if let Some(Note { fields, remaining, reset, wall }) = &self.0 {
            fields.write(&mut head.headers, *remaining, *reset, || *wall);
        }
    }

    fn settle(self, _: Outcome<'_>) {}
}
