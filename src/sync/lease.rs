//! A bounded table of slots that come back even when their holders never do.

use std::{num::NonZeroU64, time::Duration};

use crate::time::Moment;

/// A table of so many slots; each is lent for a time, and taken back from whoever holds it too long.
///
/// A holder that never ends (a reader with a closed window, a probe that hangs) loses its slot to the next one that
/// finds the table full: when it has held it for longer than `max_hold`, or has made no progress for longer than
/// `max_stall`. Its own late release then does nothing. Memory follows the most slots ever held at once.
///
/// A full table is searched only when a slot can be overdue, so that a refusal costs a comparison.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    limit: usize,
    max_hold: Duration,
    max_stall: Duration,
    slots: Vec<Slot>,
    free: Vec<usize>,
    issued: u64,
    /// No slot is overdue before this moment: progress only moves a slot's own moment later.
    quiet_until: Moment,
}

/// The right to one slot of one table: which slot, and which of its holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lease {
    slot: u32,
    /// Counts the leases of the table.
    generation: NonZeroU64,
}

/// A lease, and whether it was another's until now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Acquired {
    /// The right to the slot.
    pub(crate) lease: Lease,
    /// True when an overdue holder lost the slot for it.
    pub(crate) reclaimed: bool,
    /// True when that holder had made progress before it stood still.
    pub(crate) had_progressed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// That of the lease that holds it; 0 while it is free.
    generation: u64,
    since: Moment,
    progress: Moment,
    touched: bool,
}

impl Leases {
    /// `slots` slots, none of them held; a table of none lends nothing.
    pub(crate) const fn new(slots: usize, max_hold: Duration, max_stall: Duration) -> Self {
        let quiet_until = Moment::MAX;
        Self { limit: slots, max_hold, max_stall, slots: Vec::new(), free: Vec::new(), issued: 0, quiet_until }
    }

    /// A free slot, else one whose holder is overdue, else nothing.
    pub(crate) fn acquire(&mut self, now: Moment) -> Option<Acquired> {
        self.acquire_since(now, now)
    }

    /// As [`acquire`](Self::acquire), of a holder of whom no progress is expected before it is [watched](Self::watch).
    pub(crate) fn acquire_unwatched(&mut self, now: Moment) -> Option<Acquired> {
        self.acquire_since(now, Moment::MAX)
    }

    fn acquire_since(&mut self, now: Moment, progress: Moment) -> Option<Acquired> {
        if self.held() > self.limit {
            if !self.would_lend(now) {
                return None; // nobody loses a slot for nothing
            }
            while self.held() > self.limit {
                let slot = self.overdue(now)?; // there were more slots once
                self.vacate(slot);
            }
        }
        let (slot, reclaimed) = match self.vacancy() {
            Some(slot) => (slot, false),
            None => (self.overdue(now)?, true),
        };
        let had_progressed = reclaimed && self.slots[slot].touched;
        let lease = Lease { slot: u32::try_from(slot).ok()?, generation: NonZeroU64::MIN.saturating_add(self.issued) };
        self.issued += 1;
        self.slots[slot] = Slot { generation: lease.generation.get(), since: now, progress, touched: false };
        self.quiet_until = self.quiet_until.min(self.due_of(&self.slots[slot]));
        Some(Acquired { lease, reclaimed, had_progressed })
    }

    /// Notes that the holder has made progress; a late one changes nothing.
    pub(crate) fn touch(&mut self, lease: Lease, now: Moment) {
        if let Some(slot) = self.slot_of(lease) {
            slot.progress = slot.progress.max(now);
            slot.touched = true;
        }
    }

    /// From now on its holder has to make progress.
    pub(crate) fn watch(&mut self, lease: Lease, now: Moment) {
        if let Some(slot) = self.slot_of(lease) {
            slot.progress = now;
            let due = self.due_of(&self.slots[lease.slot as usize]);
            self.quiet_until = self.quiet_until.min(due);
        }
    }

    /// Gives a slot back, and says whether it was still the lease's own.
    pub(crate) fn release(&mut self, lease: Lease) -> bool {
        let its_own = self.slot_of(lease).is_some();
        if its_own {
            self.vacate(lease.slot as usize);
        }
        its_own
    }

    /// How many slots are held, overdue ones included.
    pub(crate) const fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The first moment at which a held slot is overdue if nobody makes progress; looks at every slot.
    pub(crate) fn next_due(&self) -> Option<Moment> {
        self.slots.iter().filter(|slot| slot.generation > 0).map(|slot| self.due_of(slot)).min()
    }

    /// Whether [`acquire`](Self::acquire) would find a slot; looks at every slot when none is free.
    pub(crate) fn would_lend(&self, now: Moment) -> bool {
        if self.held() < self.limit || now < self.quiet_until || self.limit == 0 {
            return self.held() < self.limit;
        }
        let held = self.slots.iter().filter(|slot| slot.generation > 0);
        let overdue = held.map(|slot| self.due_of(slot)).filter(|due| now >= *due && *due < Moment::MAX).count();
        overdue > self.held() - self.limit
    }

    /// From now on there are so many slots; who holds one of more keeps it.
    pub(crate) const fn resize(&mut self, slots: usize) {
        self.limit = slots;
    }

    /// The slot of a lease, if it is still its own.
    fn slot_of(&mut self, lease: Lease) -> Option<&mut Slot> {
        self.slots.get_mut(lease.slot as usize).filter(|slot| slot.generation == lease.generation.get())
    }

    fn vacate(&mut self, slot: usize) {
        self.slots[slot].generation = 0;
        self.free.push(slot);
    }

    /// A slot that nobody holds.
    fn vacancy(&mut self) -> Option<usize> {
        if self.held() >= self.limit {
            return None;
        }
        Some(self.free.pop().unwrap_or_else(|| {
            let (since, progress) = (Moment::default(), Moment::default());
            self.slots.push(Slot { generation: 0, since, progress, touched: false });
            self.slots.len() - 1
        }))
    }

    /// The slot of a full table that has been overdue the longest.
    fn overdue(&mut self, now: Moment) -> Option<usize> {
        if now < self.quiet_until {
            return None;
        }
        // Of two that are due at the same time the older lease.
        let key = |slot: &Slot| (self.due_of(slot), slot.generation);
        let held = (0..self.slots.len()).filter(|&slot| self.slots[slot].generation > 0);
        let slot = held.min_by_key(|&slot| key(&self.slots[slot]))?;
        let due = self.due_of(&self.slots[slot]);
        // A reclaimed slot stays the bound: the search after it finds the next one.
        self.quiet_until = due;
        (now >= due && due < Moment::MAX).then_some(slot)
    }

    /// When the slot may be taken back: one tick after it was held, or stood still, for as long as it may.
    fn due_of(&self, slot: &Slot) -> Moment {
        let due = (slot.since + self.max_hold).min(slot.progress + self.max_stall);
        due + Duration::from_nanos(1)
    }
}

#[cfg(test)]
mod tests;
