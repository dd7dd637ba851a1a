//! A bounded table of slots that are freed even if their holders never release them.

use std::{num::NonZeroU64, time::Duration};

use crate::time::Moment;

/// A table of `limit` slots, each leased for a limited time.
///
/// A holder may never end: a reader with a closed window, a probe that hangs. It is overdue once it has held its slot
/// for longer than `max_hold`, or has made no progress for longer than `max_stall`. It then loses the slot to the next
/// caller that finds the table full. Its own late release has no effect. Memory grows with the most slots ever held at
/// once.
///
/// A full table is searched only when a slot can be overdue, so that a refusal costs one comparison.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    limit: usize,
    max_hold: Duration,
    max_stall: Duration,
    slots: Vec<LeaseSlot>,
    free: Vec<usize>,
    issued: u64,
    /// No slot is overdue before this moment. Progress only makes a slot's own moment later.
    none_overdue_before: Moment,
}

/// The right of one holder to one slot of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    slot: u32,
    /// Number of the lease, counted over the table.
    generation: NonZeroU64,
}

/// A lease, and what is known of the previous holder of its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acquired {
    pub(crate) lease: Lease,
    /// Whether an overdue holder lost the slot.
    pub(crate) reclaimed: bool,
    /// Whether that holder had made progress before it stalled.
    pub(crate) had_progressed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct LeaseSlot {
    /// Generation of the lease that holds it; 0 while it is free.
    generation: u64,
    since: Moment,
    progress: Moment,
    touched: bool,
}

impl Leases {
    /// Creates a table of free slots. A table without slots leases nothing.
    pub(crate) const fn new(slots: usize, max_hold: Duration, max_stall: Duration) -> Self {
        let none_overdue_before = Moment::MAX;
        Self { limit: slots, max_hold, max_stall, slots: Vec::new(), free: Vec::new(), issued: 0, none_overdue_before }
    }

    /// Acquires a free slot, else that of an overdue holder. The holder need not make progress before it is
    /// [watched](Self::watch).
    pub(crate) fn acquire(&mut self, now: Moment) -> Option<Acquired> {
        if self.held() > self.limit {
            self.shed(now)?; // the limit was higher before
        }
        let (slot, reclaimed) = match self.vacancy() {
            Some(slot) => (slot, false),
            None => (self.overdue(now)?, true),
        };
        let had_progressed = reclaimed && self.slots[slot].touched;
        let lease = Lease { slot: u32::try_from(slot).ok()?, generation: NonZeroU64::MIN.saturating_add(self.issued) };
        self.issued += 1;
        self.slots[slot] =
            LeaseSlot { generation: lease.generation.get(), since: now, progress: Moment::MAX, touched: false };
        self.none_overdue_before = self.none_overdue_before.min(self.due_of(&self.slots[slot]));
        Some(Acquired { lease, reclaimed, had_progressed })
    }

    /// Records progress of the holder. A lease that has lost its slot changes nothing.
    pub(crate) fn touch(&mut self, lease: Lease, now: Moment) {
        if let Some(slot) = self.slot_of(lease) {
            slot.progress = slot.progress.max(now);
            slot.touched = true;
        }
    }

    /// Forgets all progress, so that an overdue holder [had](Acquired::had_progressed) none.
    pub(crate) fn forget_progress(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.touched = false);
    }

    /// Requires progress of the holder from now on.
    pub(crate) fn watch(&mut self, lease: Lease, now: Moment) {
        if let Some(slot) = self.slot_of(lease) {
            slot.progress = now;
            let due = self.due_of(&self.slots[lease.slot as usize]);
            self.none_overdue_before = self.none_overdue_before.min(due);
        }
    }

    /// Requires no progress of the holder any more. Only [`max_hold`](Self::new) bounds it from now on.
    pub(crate) fn unwatch(&mut self, lease: Lease) {
        if let Some(slot) = self.slot_of(lease) {
            slot.progress = Moment::MAX;
        }
    }

    /// Releases a slot. Returns whether the lease still held it.
    pub(crate) fn release(&mut self, lease: Lease) -> bool {
        let held = self.slot_of(lease).is_some();
        if held {
            self.vacate(lease.slot as usize);
        }
        held
    }

    /// Returns the number of slots that are held, overdue ones included.
    pub(crate) const fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Returns the first moment at which a held slot is overdue unless its holder makes progress. Visits every slot.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        self.due_slots().min().map(|(due, ..)| due)
    }

    /// Whether [`acquire`](Self::acquire) would find a slot. Visits every slot if none is free.
    pub(crate) fn would_lend(&self, now: Moment) -> bool {
        if self.held() < self.limit || now < self.none_overdue_before || self.limit == 0 {
            return self.held() < self.limit;
        }
        let overdue = self.due_slots().filter(|(due, ..)| now >= *due && *due < Moment::MAX).count();
        overdue > self.held() - self.limit
    }

    /// Returns the number of slots.
    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }

    /// Changes the number of slots. Holders beyond it keep theirs.
    pub(crate) const fn resize(&mut self, slots: usize) {
        self.limit = slots;
    }

    /// Returns the slot of a lease that still holds it.
    fn slot_of(&mut self, lease: Lease) -> Option<&mut LeaseSlot> {
        self.slots.get_mut(lease.slot as usize).filter(|slot| slot.generation == lease.generation.get())
    }

    fn vacate(&mut self, slot: usize) {
        self.slots[slot].generation = 0;
        self.free.push(slot);
    }

    /// Takes a free slot, if fewer than the limit are held.
    fn vacancy(&mut self) -> Option<usize> {
        if self.held() >= self.limit {
            return None;
        }
        self.free.pop().or_else(|| {
            self.slots.push(LeaseSlot::default());
            Some(self.slots.len() - 1)
        })
    }

    /// Returns the slot of a full table that has been overdue the longest; of two, that of the older lease.
    fn overdue(&mut self, now: Moment) -> Option<usize> {
        if now < self.none_overdue_before {
            return None;
        }
        let (due, _, slot) = self.due_slots().min()?;
        // A reclaimed slot stays the bound: the search after it finds the next one.
        self.none_overdue_before = due;
        (now >= due && due < Moment::MAX).then_some(slot)
    }

    /// Vacates slots of overdue holders down to the limit, if then another one can be acquired: no holder loses its slot
    /// without a use for it. One search finds them all.
    #[cold]
    fn shed(&mut self, now: Moment) -> Option<()> {
        if !self.would_lend(now) {
            return None;
        }
        let mut overdue: Vec<_> = self.due_slots().filter(|(due, ..)| now >= *due && *due < Moment::MAX).collect();
        overdue.sort_unstable();
        let beyond = self.held() - self.limit;
        overdue.into_iter().take(beyond).for_each(|(_, _, slot)| self.vacate(slot));
        Some(())
    }

    /// Returns the held slots: when each is overdue, its generation, its place.
    fn due_slots(&self) -> impl Iterator<Item = (Moment, u64, usize)> {
        let held = self.slots.iter().enumerate().filter(|(_, slot)| slot.generation > 0);
        held.map(|(place, slot)| (self.due_of(slot), slot.generation, place))
    }

    /// Returns when a slot is overdue: 1 ns after its holder has held it, or has stalled, for the longest time allowed.
    fn due_of(&self, slot: &LeaseSlot) -> Moment {
        let due = (slot.since + self.max_hold).min(slot.progress + self.max_stall);
        due + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests;
