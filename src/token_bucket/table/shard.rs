//! Some of the table's entries: a small open-addressed map that grows, and gives back what it no longer needs.

use super::Entry;

#[derive(Clone, Copy)]
struct Slot {
    tag: u64,
    entry: Entry,
}

/// A living entry's time is above zero.
const VACANT: Slot = Slot { tag: 0, entry: Entry { full_at: 0, span: 0 } };

/// Entries by tag; no memory is taken before the first.
pub(super) struct Shard {
    slots: Box<[Slot]>,
    len: u32,
    visits: u8,
    /// No entry ends before this.
    soonest: u64,
    /// No entry that was dropped here ended after this.
    dropped: u64,
}

impl Shard {
    pub(super) fn new() -> Self {
        Self { slots: Box::default(), len: 0, visits: 0, soonest: u64::MAX, dropped: 0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.len as usize >= room(self.slots.len())
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn count(&self) -> usize {
        let stored = self.slots.iter().filter(|slot| slot.entry.full_at != 0).count();
        assert_eq!(stored, self.len as usize);
        stored
    }

    /// Counts a visit; true at each `every`th, a power of two up to 256.
    #[inline]
    pub(super) fn visit(&mut self, every: u16) -> bool {
        self.visits = self.visits.wrapping_add(1);
        u16::from(self.visits) & (every - 1) == 0
    }

    #[inline]
    pub(super) fn find(&self, tag: u64) -> Option<usize> {
        let mut at = home(tag, self.slots.len());
        loop {
            let slot = self.slots.get(at)?; // none where there are no slots
            if slot.tag == tag && slot.entry.full_at != 0 {
                return Some(at);
            }
            if slot.entry.full_at == 0 {
                return None;
            }
            at = after(at, self.slots.len());
        }
    }

    /// What a caller may see of a slot, or of a tag that has none.
    ///
    /// A clock that was set back must not make a bucket fresh that was taken from and dropped since.
    #[inline]
    pub(super) fn show(&self, at: Option<usize>, now: u64) -> Option<Entry> {
        let stored = at.map(|at| self.slots[at].entry).filter(|entry| entry.lives(now));
        stored.or_else(|| (self.dropped > now).then_some(Entry { full_at: self.dropped, span: 0 }))
    }

    /// Writes over the entry at `at`.
    #[inline]
    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        self.slots[at].entry = entry;
        self.soonest = self.soonest.min(entry.full_at);
    }

    /// Adds an entry for a tag that has none.
    pub(super) fn put(&mut self, tag: u64, entry: Entry) {
        if self.is_full() {
            self.rebuild(larger(self.slots.len()), |_| true);
        }
        self.place(Slot { tag, entry });
    }

    /// Drops all entries whose time has passed; tells how many. Memory that is not needed any more goes back.
    pub(super) fn sweep(&mut self, now: u64) -> usize {
        if self.soonest > now {
            return 0;
        }
        let (mut living, mut soonest, mut dropped) = (0, u64::MAX, self.dropped);
        for entry in self.slots.iter().map(|slot| slot.entry).filter(|entry| entry.full_at != 0) {
            if entry.lives(now) {
                living += 1;
                soonest = soonest.min(entry.full_at);
            } else {
                dropped = dropped.max(entry.full_at);
            }
        }
        let ended = self.len as usize - living;
        if ended > 0 {
            let size = self.slots.len();
            // Half empty afterwards: it shall not grow again soon.
            let fits =
                std::iter::successors(Some(0), |&size| Some(larger(size))).find(|&size| room(size) >= 2 * living);
            self.rebuild(fits.map_or(size, |fits| fits.min(size)), |entry| entry.lives(now));
        }
        (self.soonest, self.dropped) = (soonest, dropped);
        ended
    }

    /// Moves the entries that are to stay into so many slots.
    #[cold]
    fn rebuild(&mut self, size: usize, stays: impl Fn(&Entry) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![VACANT; size].into_boxed_slice());
        self.len = 0;
        for slot in old.iter().filter(|slot| slot.entry.full_at != 0 && stays(&slot.entry)) {
            self.place(*slot);
        }
    }

    fn place(&mut self, slot: Slot) {
        let size = self.slots.len();
        let mut at = home(slot.tag, size);
        while self.slots[at].entry.full_at != 0 {
            at = after(at, size);
        }
        self.slots[at] = slot;
        self.len += 1;
        self.soonest = self.soonest.min(slot.entry.full_at);
    }
}

/// A quarter of the slots stays vacant, so that a search ends soon.
const fn room(size: usize) -> usize {
    size - size.div_ceil(4)
}

/// 0, 8, 12, 16, 24, 32, 48 and so on: no step wastes more than a third.
const fn larger(size: usize) -> usize {
    match size {
        0 => 8,
        _ if size.is_power_of_two() => size + size / 2,
        _ => size + size / 3,
    }
}

/// Where a search for `tag` begins: by its lower half, which has no say in the choice of the shard.
#[inline]
#[allow(clippy::cast_possible_truncation)] // below `size`
const fn home(tag: u64, size: usize) -> usize {
    (((tag & 0xffff_ffff) * size as u64) >> 32) as usize
}

#[inline]
const fn after(at: usize, size: usize) -> usize {
    if at + 1 < size { at + 1 } else { 0 }
}
