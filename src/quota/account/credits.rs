//! Credits of a client, each remembered by its id.

use super::due_map::{DueMap, STEPS};
use crate::{
    error::ConfigError,
    identity::Digest,
    kind::Kind,
    quota::{Credited, account::AccountSettings},
    time::Moment,
};

/// The credits of one client, due when they are forgotten. An id is remembered as long as that of a finished job.
#[derive(Clone, Debug, Default)]
pub(super) struct Credits(DueMap<Digest, KnownCredit>);

#[derive(Clone, Debug)]
struct KnownCredit {
    kind: Kind,
    amount: u64,
}

impl Credits {
    /// Returns the credit that stands under this id.
    pub(super) fn get(&self, id: Digest, now: Moment) -> Option<Credited> {
        let known = self.0.get_at(id, now)?;
        Some(Credited { kind: known.kind.clone(), amount: known.amount, already: true })
    }

    /// Checks that another credit can be remembered.
    pub(super) fn check(&self, settings: &AccountSettings, now: Moment) -> Result<(), ConfigError> {
        let Some(due) = self.0.next_due().filter(|_| self.0.len() >= settings.max_jobs) else { return Ok(()) };
        Err(ConfigError::message(format!(
            "the client has {} remembered credits, and the oldest is forgotten in {:?}; raise .max_jobs_per_client()",
            self.0.len(),
            due.since(now)
        )))
    }

    /// Remembers a credit until the time at which it is `forgotten`.
    pub(super) fn add(&mut self, id: Digest, kind: &Kind, amount: u64, forgotten: Moment) {
        self.0.insert(id, Some(forgotten), KnownCredit { kind: kind.clone(), amount });
    }

    /// Forgets credits whose time has come, at most [`STEPS`]. The rest can wait: each of them counts as forgotten, and
    /// a place for a new one is free if at least one was.
    pub(super) fn forget(&mut self, now: Moment) {
        self.0.expire(now, STEPS, |_, _| {});
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
