//! Credits of a client, each remembered by its id.

use std::collections::{HashMap, VecDeque};

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
    all: HashMap<Digest, (Kind, u64)>,
    /// Times at which they are forgotten, in that order.
    due: VecDeque<(Moment, Digest)>,
}

impl Credits {
    /// Returns the credit that stands under this id.
    pub(super) fn get(&self, id: Digest) -> Option<Credited> {
        self.all.get(&id).map(|(kind, amount)| Credited { kind: kind.clone(), amount: *amount, already: true })
    }

    /// Checks that another credit can be remembered.
    pub(super) fn check(&self, settings: &AccountSettings, now: Moment) -> Result<(), ConfigError> {
        let Some((due, _)) = self.due.front().filter(|_| self.all.len() >= settings.max_jobs) else { return Ok(()) };
        Err(ConfigError::message(format!(
            "the client has {} remembered credits, and the oldest is forgotten in {:?}; raise .max_jobs_per_client()",
            self.all.len(),
            due.since(now)
        )))
    }

    /// Remembers a credit until `due`, which is no earlier than that of the credits before it.
    pub(super) fn add(&mut self, id: Digest, kind: &Kind, amount: u64, due: Moment) {
        self.all.insert(id, (kind.clone(), amount));
        self.due.push_back((due, id));
    }

    /// Forgets the credits whose time has come.
    pub(super) fn forget(&mut self, now: Moment) {
        while let Some((_, id)) = self.due.front().copied().filter(|(due, _)| now >= *due) {
            self.due.pop_front();
            self.all.remove(&id);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
