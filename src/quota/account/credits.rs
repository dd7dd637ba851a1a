//! Credits of a client, each remembered by its id.

use std::collections::{BTreeMap, BTreeSet};

use super::reservations::STEPS;
use crate::{
    error::ConfigError,
    identity::Digest,
    kind::Kind,
    quota::{Credited, account::AccountSettings},
    time::Moment,
};

/// The credits of one client. An id is remembered as long as that of a finished job.
#[derive(Clone, Debug, Default)]
pub(super) struct Credits {
    /// A tree, because a table would be moved as a whole when it grows.
    all: BTreeMap<Digest, KnownCredit>,
    /// Credits by the time at which they are forgotten.
    due: BTreeSet<(Moment, Digest)>,
}

#[derive(Clone, Debug)]
struct KnownCredit {
    kind: Kind,
    amount: u64,
    forgotten: Moment,
}

impl Credits {
    /// Returns the credit that stands under this id.
    pub(super) fn get(&self, id: Digest, now: Moment) -> Option<Credited> {
        let known = self.all.get(&id).filter(|known| now < known.forgotten)?; // or it waits for its turn
        Some(Credited { kind: known.kind.clone(), amount: known.amount, already: true })
    }

    /// Checks that another credit can be remembered.
    pub(super) fn check(&self, settings: &AccountSettings, now: Moment) -> Result<(), ConfigError> {
        let Some((due, _)) = self.due.first().filter(|_| self.all.len() >= settings.max_jobs) else { return Ok(()) };
        Err(ConfigError::message(format!(
            "the client has {} remembered credits, and the oldest is forgotten in {:?}; raise .max_jobs_per_client()",
            self.all.len(),
            due.since(now)
        )))
    }

    /// Remembers a credit until the time at which it is `forgotten`.
    pub(super) fn add(&mut self, id: Digest, kind: &Kind, amount: u64, forgotten: Moment) {
        if let Some(before) = self.all.insert(id, KnownCredit { kind: kind.clone(), amount, forgotten }) {
            self.due.remove(&(before.forgotten, id)); // else the new one would be forgotten with it
        }
        self.due.insert((forgotten, id));
    }

    /// Forgets credits whose time has come, at most [`STEPS`]. The rest can wait: each of them counts as forgotten, and
    /// a place for a new one is free if at least one was.
    pub(super) fn forget(&mut self, now: Moment) {
        let mut steps = 0..STEPS;
        while self.due.first().is_some_and(|(due, _)| now >= *due) && steps.next().is_some() {
            if let Some((_, id)) = self.due.pop_first() {
                self.all.remove(&id);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
