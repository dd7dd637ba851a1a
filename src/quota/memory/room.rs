//! Room for accounts: their number in all and in each cohort, both of which are bounded.

use std::{collections::HashMap, sync::Arc};

use super::Padded;
use crate::{
    identity::{Client, Cohort},
    quota::Plan,
    sync::{AtomicUsize, Ordering, Spin},
};

/// Bounds of the accounts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct RoomSettings {
    /// Greatest number of accounts.
    pub(crate) most: usize,
    /// Greatest number of accounts of one cohort.
    pub(crate) most_of_cohort: usize,
    /// Whether clients that nothing vouches for are a cohort.
    pub(crate) bounds_claimed: bool,
    /// Plan of the accounts that newcomers share; `None` for the plan of each.
    pub(crate) overflow: Option<Arc<Plan>>,
}

/// Default for the part of the accounts that one cohort may have, and the number that it may have in any case: in a small
/// table the part would be a few clients.
const COHORT_PART: usize = 64;
const COHORT_LEAST: usize = 64;

impl RoomSettings {
    /// Returns the default greatest number of accounts of one cohort, among `most` of all.
    pub(crate) fn default_of_cohort(most: usize) -> usize {
        (most / COHORT_PART).max(COHORT_LEAST)
    }
}

/// The numbers of accounts.
pub(super) struct Room {
    live: AtomicUsize,
    pub(super) most: usize,
    pub(super) most_of_cohort: usize,
    bounds_claimed: bool,
    /// Cohorts by their word. A thread that holds the lock of one takes no other lock.
    parts: Box<[Padded<Cohorts>]>,
}

type Cohorts = HashMap<Cohort, CohortCount>;

/// Accounts of one cohort.
#[derive(Default)]
struct CohortCount {
    live: usize,
    /// Set when it is reported that the cohort has its part, until it has half of it.
    reported: bool,
}

/// Place of one account; drop gives it back.
pub(super) struct Place {
    room: Arc<Room>,
    /// `None` for clients of which no stranger makes up more.
    cohort: Option<Cohort>,
}

/// The bound that leaves no room for another account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// That of all accounts.
    InAll,
    /// That of the client's cohort.
    InCohort(Cohort),
}

impl Room {
    /// Creates the room of accounts in `parts` shards, a power of two.
    pub(super) fn new(settings: &RoomSettings, parts: usize) -> Self {
        let RoomSettings { most, most_of_cohort, bounds_claimed, .. } = *settings;
        let parts = (0..parts).map(|_| Padded(Spin::new(Cohorts::new()))).collect();
        Self { live: AtomicUsize::new(0), most, most_of_cohort, bounds_claimed, parts }
    }

    /// Takes the place of a client's account.
    ///
    /// # Errors
    /// If there is no room; the bound of the cohort comes first.
    pub(super) fn take(self: &Arc<Self>, client: &Client) -> Result<Place, NoRoom> {
        let cohort = Some(client.cohort())
            .filter(|&cohort| cohort != Cohort::VOUCHED && (self.bounds_claimed || cohort != Cohort::CLAIMED));
        if let Some(cohort) = cohort {
            self.count(cohort)?;
        }
        // Counted before the account is created, so that the bound holds.
        let more = |live| (live < self.most).then_some(live + 1);
        if self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            if let Some(cohort) = cohort {
                self.discount(cohort);
            }
            return Err(NoRoom::InAll);
        }
        Ok(Place { room: Arc::clone(self), cohort })
    }

    /// Returns the number of accounts.
    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Whether the cohort that has its part has not been reported yet; it is from now on.
    pub(super) fn begins_to_share(&self, cohort: Cohort) -> bool {
        let mut cohorts = self.part(cohort).lock();
        cohorts.get_mut(&cohort).is_some_and(|count| !std::mem::replace(&mut count.reported, true))
    }

    /// Returns the number of accounts of each cohort.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn cohorts(&self) -> HashMap<Cohort, usize> {
        let live = |Padded(part): &Padded<Cohorts>| {
            part.lock().iter().map(|(&cohort, count)| (cohort, count.live)).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(live).collect()
    }

    #[allow(clippy::cast_possible_truncation)] // there are at most 64 parts
    fn part(&self, cohort: Cohort) -> &Spin<Cohorts> {
        // The golden ratio spreads neighbouring networks. A cohort that others choose only shares a lock.
        let mixed = cohort.word().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.parts[mixed as usize & (self.parts.len() - 1)].0
    }

    fn count(&self, cohort: Cohort) -> Result<(), NoRoom> {
        let mut cohorts = self.part(cohort).lock();
        let count = cohorts.entry(cohort).or_default();
        if count.live >= self.most_of_cohort {
            return Err(NoRoom::InCohort(cohort));
        }
        count.live += 1;
        Ok(())
    }

    fn discount(&self, cohort: Cohort) {
        let mut cohorts = self.part(cohort).lock();
        let Some(count) = cohorts.get_mut(&cohort) else { return };
        count.live -= 1;
        if count.live <= self.most_of_cohort / 2 {
            count.reported = false;
        }
        if count.live == 0 {
            cohorts.remove(&cohort);
            if cohorts.len() < cohorts.capacity() / 8 {
                let fits = cohorts.len() * 2;
                cohorts.shrink_to(fits);
            }
        }
    }
}

impl Place {
    /// Whether an account that has to leave this place makes room.
    pub(super) fn makes_room(&self, needed: NoRoom) -> bool {
        match needed {
            NoRoom::InAll => true,
            NoRoom::InCohort(cohort) => self.cohort == Some(cohort),
        }
    }

    /// Returns the cohort that counts the account.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn cohort(&self) -> Option<Cohort> {
        self.cohort
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(cohort) = self.cohort {
            self.room.discount(cohort);
        }
        self.room.live.fetch_sub(1, Ordering::Relaxed);
    }
}
