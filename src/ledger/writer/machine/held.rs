//! Accounts that other writers hold: each is decided in a batch of its own, in turn with all other accounts.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use super::Queued;

/// Accounts whose locks did not come in time, and whose turn it is.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct HeldAccounts {
    tenants: BTreeSet<Arc<str>>,
    /// Held account of the latest batch that had one.
    last: Option<Arc<str>>,
    /// The next batch is that of the accounts that are not held.
    others_next: bool,
}

impl HeldAccounts {
    /// Marks an account as held.
    pub(super) fn hold(&mut self, tenant: &Arc<str>) {
        self.tenants.insert(Arc::clone(tenant));
    }

    /// Removes accounts whose locks have been acquired.
    pub(super) fn release<'a>(&mut self, tenants: impl Iterator<Item = &'a Arc<str>>) {
        if !self.tenants.is_empty() {
            tenants.for_each(|tenant| _ = self.tenants.remove(tenant));
        }
    }

    /// Removes the accounts that no queued command needs.
    pub(super) fn retain_queued<R>(&mut self, queue: &VecDeque<Queued<R>>) {
        self.tenants.retain(|tenant| queue.iter().any(|queued| queued.command.key.tenant == *tenant));
    }

    /// Advances to the held account that the next batch decides; `None` if it decides all others.
    pub(super) fn next<R>(&mut self, queue: &VecDeque<Queued<R>>) -> Option<Arc<str>> {
        let waits = |tenant: &Arc<str>| queue.iter().any(|queued| queued.command.key.tenant == *tenant);
        let others = || queue.iter().any(|queued| self.fits(queued, None));
        if self.tenants.is_empty() || (self.others_next && others()) {
            self.others_next = false;
            return None;
        }
        let after = self.last.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let mut turns = self.tenants.range((after, Bound::Unbounded)).chain(&self.tenants);
        let next = turns.find(|tenant| waits(tenant)).cloned();
        (self.others_next, self.last) = (next.is_some(), next.clone());
        next
    }

    /// Whether a command belongs to the batch of the held account `of`, or to that of all others.
    pub(super) fn fits<R>(&self, queued: &Queued<R>, of: Option<&Arc<str>>) -> bool {
        let tenant = &queued.command.key.tenant;
        of.map_or_else(|| self.tenants.is_empty() || !self.tenants.contains(tenant), |of| of == tenant)
    }
}
