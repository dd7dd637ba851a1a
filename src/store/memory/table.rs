//! The table of clients.

use std::fmt;

use super::{
    Entry, Full,
    directory::Directory,
    page::{Guard, Locked, Page},
};
use crate::{
    Digest, Moment,
    sync::{AtomicUsize, Mutex, Ordering},
};

/// At each such visit of a page one other page is swept. A table for n clients has looked at all of its pages after
/// little more than n requests.
const SWEEP_EVERY: u16 = 64;

/// While there is room, an entry stays for a second after its end: most buckets are full again when their client comes
/// back, and to find the old entry is cheaper than to make a new one.
pub(super) const REST: u64 = 1_000_000_000;

/// A bounded map from digests to entries. Operations on different pages do not meet; a hit allocates nothing.
///
/// A client is known by 64 bits of its digest, which is keyed: among a million clients the chance that any two share a
/// bucket is below one in ten million, and nobody can bring it about.
///
/// With 128 slots a page, it takes less than 64 bytes for each client of its capacity, and no more than it needs.
pub(crate) struct Table<const SLOTS: usize = 128> {
    pub(super) directory: Directory,
    pub(super) pages: Box<[Locked<SLOTS>]>,
    pub(super) base_bits: u32,
    capacity: usize,
    pub(super) shared: Shared,
}

/// What all threads write, apart from what all threads read.
#[repr(align(64))]
pub(super) struct Shared {
    pub(super) live: AtomicUsize,
    pub(super) hand: AtomicUsize,
    pub(super) swept: AtomicUsize,
    pub(super) free: Mutex<Vec<u32>>,
}

impl<const SLOTS: usize> Table<SLOTS> {
    /// A table for `capacity` clients.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        // Two pages that were one hold more than a full page together: so many pages suffice, and a few for bad luck.
        let halves = capacity.div_ceil((Page::<SLOTS>::ROOM / 2).max(1));
        let budget = u32::try_from(halves + halves / 16 + 1).unwrap_or(u32::MAX >> 4).min(u32::MAX >> 4);
        // To split the first pages would write to much of the directory: some are there from the beginning.
        Self::of_pages(capacity, budget, budget.ilog2() / 2)
    }

    /// A table of at most `budget` pages, 2^`base_bits` of which are never joined.
    pub(super) fn of_pages(capacity: usize, budget: u32, base_bits: u32) -> Self {
        let base = 1 << base_bits;
        let page = |index| {
            if index < base { Page::of(u64::from(index) << (63 - base_bits) << 1, base_bits) } else { Page::free() }
        };
        Self {
            directory: Directory::new(directory_bits(budget, SLOTS), base_bits),
            pages: (0..budget).map(|index| Locked::new(page(index))).collect(),
            base_bits,
            capacity,
            shared: Shared {
                live: AtomicUsize::new(0),
                hand: AtomicUsize::new(0),
                swept: AtomicUsize::new(0),
                free: Mutex::new((base..budget).rev().collect()),
            },
        }
    }

    /// Changes the entry of `key` while nobody else can: `change` sees it and says what is to be written.
    ///
    /// An entry whose time has passed is shown as none. Writing none removes the entry; writing one whose time has passed
    /// comes to the same. `change` must not block.
    ///
    /// # Errors
    /// When the key has no entry and there is no room for one; then `change` was not called.
    pub(crate) fn update<R>(
        &self,
        key: Digest,
        now: Moment,
        change: impl FnOnce(Option<Entry>) -> (Option<Entry>, R),
    ) -> Result<R, Full> {
        let (tag, now) = (tag(key), now.as_nanos());
        let mut page = self.owner(tag);
        let mut at = page.find(tag);
        if at.is_none() && (page.is_full() || self.live() >= self.capacity) {
            (page, at) = self.make_room(page, tag, now)?;
        }
        let before = page.show(at, now);
        let (after, result) = change(before);
        match (at, after) {
            (Some(at), Some(entry)) if entry.full_at > 0 => page.set(at, entry), // also one that ends at once
            (Some(_), None) if before.is_none() => {}                            // it has ended, and rests
            (Some(at), _) => {
                page.remove(at);
                self.shared.live.fetch_sub(1, Ordering::Relaxed);
            }
            (None, Some(entry)) if entry.lives(now) => {
                page.put(tag, entry);
                self.shared.live.fetch_add(1, Ordering::Relaxed);
            }
            (None, _) => {}
        }
        let due = page.visit(SWEEP_EVERY);
        drop(page);
        if due {
            // Two pages become one when it is half empty afterwards: it shall not split again soon.
            self.sweep_next(now.saturating_sub(REST), SLOTS / 2);
        }
        Ok(result)
    }

    /// The entry of `key`, unless its time has passed.
    pub(crate) fn peek(&self, key: Digest, now: Moment) -> Option<Entry> {
        let page = self.owner(tag(key));
        page.show(page.find(tag(key)), now.as_nanos())
    }

    /// How many entries are stored; some may have ended and not been dropped yet.
    pub(crate) fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// For how many clients there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memory taken now, in bytes. Asks every page, so it is for those who watch, not for requests.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let entries: usize = self.pages.iter().map(|page| page.lock().bytes()).sum();
        size_of::<Self>() + size_of_val(&*self.pages) * 17 / 16 + self.directory.bytes() + entries
    }

    pub(super) fn owner(&self, tag: u64) -> Guard<'_, SLOTS> {
        loop {
            let page = self.pages[self.directory.page_of(tag)].lock();
            if page.owns(tag) {
                return page;
            }
        }
    }
}

impl<const SLOTS: usize> fmt::Debug for Table<SLOTS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("live", &self.live()).field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// So many that no prefix of that length has more entries than a page holds, unless with a chance below one in 10^9; small
/// pages, where chance has more to say, take a wider directory.
fn directory_bits(budget: u32, slots: usize) -> u32 {
    budget.next_power_of_two().ilog2().max(1) + if slots < 64 { 2 } else { 0 }
}

fn tag(key: Digest) -> u64 {
    #[allow(clippy::cast_possible_truncation)] // the first half of the digest
    let tag = (key.0 >> 64) as u64;
    tag
}
