//! Concurrency slots of one client.

use super::AccountSettings;
use crate::{
    quota::Limit,
    sync::{Acquired, Lease, Leases},
    time::Moment,
};

/// The slots of one client; allocated when the first is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slots(Option<Box<Leases>>);

impl Slots {
    /// Acquires a slot if one is free or overdue.
    #[inline]
    pub(super) fn acquire(&mut self, limit: &Limit, now: Moment, settings: &AccountSettings) -> Option<Acquired> {
        let fresh = || Box::new(Leases::new(size(limit), settings.max_hold, settings.max_stall));
        self.0.get_or_insert_with(fresh).acquire(now)
    }

    /// Releases a slot. A lease that is over changes nothing.
    pub(crate) fn release(&mut self, lease: Lease) {
        if let Some(leases) = &mut self.0 {
            leases.release(lease);
        }
    }

    /// Requires progress of the holder from now on, because it only sends its response.
    pub(crate) fn watch(&mut self, lease: Lease, now: Moment) {
        if let Some(leases) = &mut self.0 {
            leases.watch(lease, now);
        }
    }

    /// Records progress of the holder.
    pub(crate) fn touch(&mut self, lease: Lease, now: Moment) {
        if let Some(leases) = &mut self.0 {
            leases.touch(lease, now);
        }
    }

    /// Whether `asked` slots are available. More than one at once never are.
    pub(super) fn has(&self, asked: u64, now: Moment) -> bool {
        asked <= 1 && self.0.as_ref().is_none_or(|leases| leases.would_lend(now))
    }

    /// Returns the number of slots that are held.
    pub(super) fn held(&self) -> u64 {
        self.0.as_ref().map_or(0, |leases| leases.held() as u64)
    }

    #[cold]
    pub(super) fn resize(&mut self, limit: Option<&Limit>) {
        if let (Some(leases), Some(limit)) = (&mut self.0, limit) {
            leases.resize(size(limit));
        }
    }
}

fn size(limit: &Limit) -> usize {
    usize::try_from(limit.limit).unwrap_or(usize::MAX)
}
