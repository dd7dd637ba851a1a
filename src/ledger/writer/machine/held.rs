//! Lanes of a writer, and accounts that other transactions hold.
//!
//! The main lane skips accounts that are held, so that it never waits for one. A skipped account moves to the second
//! lane with all its commands. That lane has a connection of its own and waits for locks. Once it has had the lock of an
//! account, the account returns. All accounts return when that lane loses its connection or cannot get one: it
//! cannot wait for locks then. An account is in one lane at a time, and moves only when no batch names it.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

#[cfg(test)]
use super::PlantedFault;
use super::{DOWN_AFTER, Queued, SubmitError, Writer, WriterPhase};

/// One of the connections of a writer, with a queue of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Decides all accounts that no other transaction holds.
    Main,
    /// Waits for accounts that the main lane skipped.
    Second,
}

impl Lane {
    pub(crate) const ALL: [Self; 2] = [Self::Main, Self::Second];

    pub(crate) fn other(self) -> Self {
        Self::ALL[1 - self as usize]
    }
}

/// State of a lane.
#[derive(Clone, Debug)]
pub(super) struct LaneState<R> {
    pub(super) queue: VecDeque<Queued<R>>,
    pub(super) batch: Vec<Queued<R>>,
    pub(super) phase: WriterPhase,
    /// Sizes of the next batches, the next one last: the halves of a batch that the database rejected.
    pub(super) halves: Vec<usize>,
    pub(super) held: HeldAccounts,
    /// Accounts that the present transaction of the second lane has locked.
    pub(super) locked: Vec<Arc<str>>,
    /// Number of consecutive failures to reach the database.
    pub(super) failures: u32,
    pub(super) resting: bool,
    /// Number of callers that were answered since the latest batch began, less the commands that have arrived since.
    pub(super) answered: usize,
}

impl<R> Default for LaneState<R> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            batch: Vec::new(),
            phase: WriterPhase::Apart,
            halves: Vec::new(),
            held: HeldAccounts::default(),
            locked: Vec::new(),
            failures: 0,
            resting: false,
            answered: 0,
        }
    }
}

impl<R> LaneState<R> {
    /// Whether the database has been out of reach for [`DOWN_AFTER`] attempts.
    pub(super) fn is_down(&self) -> bool {
        self.failures >= DOWN_AFTER
    }

    /// Returns the batch to the head of the queue; returns the number of callers among it.
    pub(super) fn put_back(&mut self) -> usize {
        let mut waiting = 0;
        for queued in self.batch.drain(..).rev().filter(|queued| queued.sent || !queued.left) {
            waiting += usize::from(queued.to.is_some());
            self.queue.push_front(queued);
        }
        waiting
    }
}

impl<R> Writer<R> {
    pub(super) fn lane_of(&self, tenant: &str) -> Lane {
        #[cfg(test)]
        if self.planted == Some(PlantedFault::ForgetsLanes) {
            return Lane::Main;
        }
        if self.second.contains(tenant) { Lane::Second } else { Lane::Main }
    }

    /// Whether another transaction holds the account, as far as the main lane has seen.
    pub(crate) fn is_held(&self, tenant: &str) -> bool {
        self.second.contains(tenant)
    }

    /// Moves accounts that the main lane has not locked to the second lane, with all their commands. If that lane cannot
    /// reach the database, their callers get their reply, and it has only the commands that must not be dropped: they are
    /// tried again after its next attempt to connect.
    pub(super) fn skip(&mut self, tenants: Vec<Arc<str>>) {
        if tenants.is_empty() {
            return;
        }
        self.second.extend(tenants);
        let moves = |queued: &Queued<R>| self.second.contains(&queued.command.key.tenant);
        let [main, second] = &mut self.lanes;
        let (skipped, batch): (Vec<_>, _) = std::mem::take(&mut main.batch).into_iter().partition(moves);
        let (later, queue): (VecDeque<_>, _) = std::mem::take(&mut main.queue).into_iter().partition(moves);
        (main.batch, main.queue) = (batch, queue);
        let skipped: Vec<_> = skipped.into_iter().filter(|queued| queued.sent || !queued.left).collect();
        self.waiting += skipped.iter().filter(|queued| queued.to.is_some()).count();
        second.queue.extend(skipped.into_iter().chain(later).map(|queued| Queued { held: true, ..queued }));
        if second.is_down() {
            self.turn_away(Lane::Second, &SubmitError::Held.reason());
            self.retain_waiting();
        }
    }

    /// Returns the accounts that the second lane has locked to the main lane, after the end of its transaction. Does nothing
    /// for the main lane.
    pub(super) fn return_locked(&mut self, lane: Lane) {
        if lane == Lane::Second {
            let locked = std::mem::take(&mut self.lanes[lane as usize].locked);
            locked.iter().for_each(|tenant| _ = self.second.remove(tenant));
            self.follow_accounts();
        }
    }

    /// Returns all accounts to the main lane, after the second lane has lost its connection or could not get one. Does
    /// nothing for the main lane.
    pub(super) fn return_all(&mut self, lane: Lane) {
        #[cfg(test)]
        if self.planted == Some(PlantedFault::StrandsAccounts) {
            return;
        }
        if lane == Lane::Second {
            self.second.clear();
            let one = &mut self.lanes[lane as usize];
            (one.held, one.halves) = (HeldAccounts::default(), Vec::new());
            self.follow_accounts();
        }
    }

    /// Moves the queued commands of accounts that have left the second lane to the head of the main lane's queue.
    fn follow_accounts(&mut self) {
        let [main, second] = &mut self.lanes;
        let stays = |queued: &Queued<R>| self.second.contains(&queued.command.key.tenant);
        let (stay, back): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut second.queue).into_iter().partition(stays);
        second.queue = stay;
        back.into_iter().rev().for_each(|queued| main.queue.push_front(queued));
        self.retain_waiting();
    }

    /// Removes the accounts of which no command is left from the second lane: callers may have left.
    fn retain_waiting(&mut self) {
        let LaneState { queue, batch, .. } = &self.lanes[Lane::Second as usize];
        let waiting: HashSet<_> = queue.iter().chain(batch).map(|queued| &queued.command.key.tenant).collect();
        self.second.retain(|tenant| waiting.contains(tenant));
    }
}

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
        let waiting: HashSet<_> = queue.iter().map(|queued| &queued.command.key.tenant).collect();
        self.tenants.retain(|tenant| waiting.contains(tenant));
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
