//! One page of the table: a small open-addressed map behind one lock.

use std::sync::{PoisonError, TryLockError};

use super::Entry;
use crate::sync::{Mutex, MutexGuard};

/// A page and its lock on a cache line of their own, so that neighbours do not disturb each other.
#[repr(align(64))]
pub(super) struct Locked<const SLOTS: usize>(Mutex<Page<SLOTS>>);

pub(super) type Guard<'a, const SLOTS: usize> = MutexGuard<'a, Page<SLOTS>>;

impl<const SLOTS: usize> Locked<SLOTS> {
    pub(super) fn new(page: Page<SLOTS>) -> Self {
        Self(Mutex::new(page))
    }

    /// A panic while the lock was held came from a caller's closure, before anything was written: the page is whole.
    pub(super) fn lock(&self) -> Guard<'_, SLOTS> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_lock(&self) -> Option<Guard<'_, SLOTS>> {
        match self.0.try_lock() {
            Ok(page) => Some(page),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[derive(Clone, Copy)]
struct Slot {
    tag: u64,
    entry: Entry,
}

/// A living entry's time is above zero.
const VACANT: Slot = Slot { tag: 0, entry: Entry { full_at: 0, span: 0 } };

/// The entries of all tags that begin with one prefix; its memory is taken with the first entry.
pub(super) struct Page<const SLOTS: usize> {
    slots: Option<Box<[Slot; SLOTS]>>,
    mask: u64,
    prefix: u64,
    /// No entry ends before this.
    soonest: u64,
    /// No entry ends after this.
    latest: u64,
    /// No entry that was dropped here ended after this.
    dropped: u64,
    len: u16,
    visits: u8,
}

impl<const SLOTS: usize> Page<SLOTS> {
    /// Every eighth slot stays vacant, so that a search ends soon.
    pub(super) const ROOM: usize = SLOTS * 7 / 8;

    /// A page that owns the tags which equal `prefix` in their first `depth` bits.
    pub(super) fn of(prefix: u64, depth: u32) -> Self {
        let mask = u64::MAX.checked_shl(64 - depth).unwrap_or(0);
        Self { slots: None, mask, prefix, soonest: u64::MAX, latest: 0, dropped: 0, len: 0, visits: 0 }
    }

    /// A page that owns nothing.
    pub(super) fn free() -> Self {
        Self { prefix: 1, ..Self::of(0, 0) }
    }

    pub(super) fn owns(&self, tag: u64) -> bool {
        tag & self.mask == self.prefix
    }

    pub(super) fn is_free(&self) -> bool {
        !self.owns(self.prefix)
    }

    pub(super) fn prefix(&self) -> u64 {
        self.prefix
    }

    pub(super) fn depth(&self) -> u32 {
        self.mask.count_ones()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= Self::ROOM
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.as_deref().map_or(0, size_of_val)
    }

    /// Counts a visit; true at each `every`th, a power of two up to 256.
    pub(super) fn visit(&mut self, every: u16) -> bool {
        self.visits = self.visits.wrapping_add(1);
        u16::from(self.visits) & (every - 1) == 0
    }

    pub(super) fn find(&self, tag: u64) -> Option<usize> {
        let slots = self.slots.as_deref()?;
        let mut at = home::<SLOTS>(tag);
        while slots[at].entry.full_at != 0 {
            if slots[at].tag == tag {
                return Some(at);
            }
            at = (at + 1) % SLOTS;
        }
        None
    }

    /// What a caller may see of a slot, or of a tag that has none.
    ///
    /// A clock that was set back must not make a bucket fresh that was taken from and dropped since.
    pub(super) fn show(&self, at: Option<usize>, now: u64) -> Option<Entry> {
        let stored = at.zip(self.slots.as_deref()).map(|(at, slots)| slots[at].entry).filter(|entry| entry.lives(now));
        stored.or_else(|| (self.dropped > now).then_some(Entry { full_at: self.dropped, span: 0 }))
    }

    /// Writes over the entry at `at`.
    pub(super) fn set(&mut self, at: usize, entry: Entry) {
        if let Some(slots) = self.slots.as_deref_mut() {
            slots[at].entry = entry;
        }
        self.bound(entry);
    }

    /// Adds an entry for a tag that has none; there must be room.
    pub(super) fn put(&mut self, tag: u64, entry: Entry) {
        let slots = self.slots.get_or_insert_with(|| Box::new([VACANT; SLOTS]));
        let mut at = home::<SLOTS>(tag);
        while slots[at].entry.full_at != 0 {
            at = (at + 1) % SLOTS;
        }
        slots[at] = Slot { tag, entry };
        self.len += 1;
        self.bound(entry);
    }

    /// Removes the entry at `at`.
    pub(super) fn remove(&mut self, at: usize) {
        let Some(slots) = self.slots.as_deref_mut() else { return };
        // Closes the gap: each later entry of the run that may stand at the gap moves there.
        let (mut gap, mut next) = (at, (at + 1) % SLOTS);
        while slots[next].entry.full_at != 0 {
            let wandered = next.wrapping_sub(home::<SLOTS>(slots[next].tag)) % SLOTS;
            if wandered >= next.wrapping_sub(gap) % SLOTS {
                slots[gap] = slots[next];
                gap = next;
            }
            next = (next + 1) % SLOTS;
        }
        slots[gap] = VACANT;
        self.len -= 1;
    }

    /// Remembers that a bucket which was full at `full_at` is no longer written down.
    fn dropped(&mut self, full_at: u64) {
        self.dropped = self.dropped.max(full_at);
    }

    /// Drops all entries whose time has passed; tells how many. An empty page gives its memory back.
    pub(super) fn sweep(&mut self, now: u64) -> usize {
        let before = self.len();
        if self.latest > now {
            self.sift(now);
        } else {
            self.dropped(self.latest); // at least as late as any of them
            self.len = 0;
        }
        if self.len == 0 {
            (self.slots, self.soonest, self.latest) = (None, u64::MAX, 0);
        }
        before - self.len()
    }

    fn sift(&mut self, now: u64) {
        if self.soonest > now {
            return;
        }
        self.soonest = self.times().min().unwrap_or(u64::MAX); // it may have risen since it was last looked for
        if self.soonest > now {
            return;
        }
        for slot in self.drain() {
            if slot.entry.lives(now) {
                self.put(slot.tag, slot.entry);
            } else {
                self.dropped(slot.entry.full_at);
            }
        }
    }

    /// Moves to `other`, a free page, what belongs there once the prefix is one bit longer.
    pub(super) fn split(&mut self, other: &mut Self) {
        let bit = 1 << (63 - self.depth());
        self.mask |= bit;
        *other = Self { mask: self.mask, prefix: self.prefix | bit, dropped: self.dropped, ..Self::free() };
        for slot in self.drain() {
            let page = if other.owns(slot.tag) { &mut *other } else { &mut *self };
            page.put(slot.tag, slot.entry);
        }
    }

    /// The prefix of the page with which this one could be one, if its own is longer than `base_bits`.
    pub(super) fn buddy(&self, base_bits: u32) -> Option<u64> {
        (self.depth() > base_bits).then(|| self.prefix ^ (1 << (64 - self.depth())))
    }

    /// Takes everything from its buddy `other`, which is free afterwards.
    pub(super) fn absorb(&mut self, other: &mut Self) {
        let bit = 1 << (64 - self.depth());
        self.mask ^= bit;
        self.prefix &= self.mask;
        self.dropped(other.dropped);
        for slot in std::mem::replace(other, Self::free()).drain() {
            self.put(slot.tag, slot.entry);
        }
    }

    fn bound(&mut self, entry: Entry) {
        self.soonest = self.soonest.min(entry.full_at);
        self.latest = self.latest.max(entry.full_at);
    }

    fn times(&self) -> impl Iterator<Item = u64> {
        self.slots.iter().flat_map(|slots| slots.iter()).map(|slot| slot.entry.full_at).filter(|&full_at| full_at != 0)
    }

    /// Takes all entries out, to be put in again elsewhere or here.
    fn drain(&mut self) -> impl Iterator<Item = Slot> + use<SLOTS> {
        (self.len, self.soonest, self.latest) = (0, u64::MAX, 0);
        let all = self.slots.as_deref_mut().map(|slots| std::mem::replace(slots, [VACANT; SLOTS]));
        all.into_iter().flatten().filter(|slot| slot.entry.full_at != 0)
    }
}

/// Where a search for `tag` begins: its last bits, which have no say in the choice of the page.
fn home<const SLOTS: usize>(tag: u64) -> usize {
    #[allow(clippy::cast_possible_truncation)]
    let home = tag as usize % SLOTS;
    home
}
