//! The table of clients.

use std::fmt;

use super::{Entry, Full, shard::Shard};
use crate::{
    identity::Digest,
    sync::{AtomicUsize, Ordering, Spin},
    time::Moment,
};

/// At each such visit of a shard some others are swept: a table for n clients has looked at all of its shards after n / 16
/// to n / 8 requests, and a small one after some hundreds.
const SWEEP_EVERY: u16 = 64;

/// How many shards are swept then.
pub(super) const SWEPT: usize = 8;

/// While there is room, an entry stays for a second after its end: most buckets are full again when their client comes
/// back, and to find the old entry is cheaper than to make a new one.
const REST: u64 = 1_000_000_000;

/// What is written over an entry of which nothing is to be known any more: no clock begins before its end.
const LONG_OVER: Entry = Entry { full_at: 1, span: 0 };

/// At how many other shards a newcomer looks when the table is full: what has ended is soon found, and a table where all
/// live answers at once, for a shard knows when its first entry ends.
pub(super) const LOOK_AT: usize = 2;

/// So many clients to a shard when all are there: then a table for a million has 8,192 of them, whose heads fit into a
/// processor's second cache, and whoever makes one grow moves a few microseconds' worth of entries.
const CLIENTS: usize = 128;

/// Small tables have some shards too, or threads would meet in them.
const FEWEST: usize = 16;

/// A bounded map from digests to entries. Operations on different shards do not meet; a hit allocates nothing.
///
/// A client is known by 64 bits of its digest, which is keyed: among a million clients the chance that any two share a
/// bucket is below one in ten million, and nobody can bring it about.
pub(crate) struct Table {
    shards: Box<[Aligned]>,
    capacity: usize,
    pub(super) shared: Shared,
}

/// A shard and its lock on a cache line of their own, so that neighbours do not disturb each other.
#[repr(align(64))]
struct Aligned(Spin<Shard>);

/// What all threads write, apart from what all threads read.
#[repr(align(64))]
pub(super) struct Shared {
    /// How many entries are stored, and how many are about to be.
    live: AtomicUsize,
    /// Counts the shards that were swept in passing.
    pub(super) hand: AtomicUsize,
}

impl Table {
    /// A table for `capacity` clients.
    #[must_use]
    pub(crate) fn new(capacity: usize) -> Self {
        Self::of_shards(capacity, (capacity / CLIENTS).max(FEWEST).next_power_of_two())
    }

    /// A table of so many shards, a power of two up to 2^32.
    pub(super) fn of_shards(capacity: usize, shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Aligned(Spin::new(Shard::new()))).collect(),
            capacity,
            shared: Shared { live: AtomicUsize::new(0), hand: AtomicUsize::new(0) },
        }
    }

    /// Changes the entry of `key` while nobody else can: `change` sees it and says what is to be written.
    ///
    /// An entry whose time has passed is shown as none. Writing none ends the entry, so that the next sweep drops it;
    /// writing one whose time has passed comes to the same. `change` must not block.
    ///
    /// # Errors
    /// When the key has no entry and there is no room for one; then `change` was not called.
    #[inline]
    pub(crate) fn update<R>(
        &self,
        key: Digest,
        now: Moment,
        change: impl FnOnce(Option<Entry>) -> (Option<Entry>, R),
    ) -> Result<R, Full> {
        let (tag, now) = (tag(key), now.as_nanos());
        let mut shard = self.shard(tag).lock();
        let result = match shard.find(tag) {
            Some(at) => {
                let before = shard.show(Some(at), now);
                let (after, result) = change(before);
                match after {
                    Some(entry) if entry.full_at > 0 => shard.set(at, entry), // also one that ends at once
                    None if before.is_none() => {}                            // it has ended, and rests
                    _ => shard.set(at, LONG_OVER),
                }
                result
            }
            None => self.newcomer(&mut shard, tag, now, change)?,
        };
        let due = shard.visit(SWEEP_EVERY);
        drop(shard);
        if due {
            (0..SWEPT).for_each(|_| self.sweep_next(now.saturating_sub(REST)));
        }
        Ok(result)
    }

    /// As [`update`](Self::update), of a key that has no entry.
    #[cold]
    fn newcomer<R>(
        &self,
        shard: &mut Shard,
        tag: u64,
        now: u64,
        change: impl FnOnce(Option<Entry>) -> (Option<Entry>, R),
    ) -> Result<R, Full> {
        let reserved = Reserved::of(self).map_or_else(|| self.make_room(shard, now), Ok)?;
        let (after, result) = change(shard.show(None, now));
        if let Some(entry) = after.filter(|entry| entry.lives(now)) {
            if shard.is_full() {
                self.vacate(shard.sweep(now.saturating_sub(REST)));
            }
            shard.put(tag, entry);
            std::mem::forget(reserved);
        }
        Ok(result)
    }

    /// A place that has been left by an entry whose time has passed; others' shards are looked at only if they are free.
    fn make_room(&self, shard: &mut Shard, now: u64) -> Result<Reserved<'_>, Full> {
        self.vacate(shard.sweep(now));
        for look in 0..=LOOK_AT {
            if look > 0 {
                self.sweep_next(now);
            }
            if let Some(reserved) = Reserved::of(self) {
                return Ok(reserved);
            }
        }
        Err(Full)
    }

    /// Drops what has ended by `now` in the shard under the hand, and moves on. Waits for nobody: a shard in use is
    /// skipped.
    #[cold]
    pub(super) fn sweep_next(&self, now: u64) {
        let next = self.shared.hand.fetch_add(1, Ordering::Relaxed);
        if let Some(mut shard) = self.shards[next & (self.shards.len() - 1)].0.try_lock() {
            self.vacate(shard.sweep(now));
        }
    }

    /// Drops what has ended in all shards, one after the other, but for what rests.
    pub(crate) fn sweep_all(&self, now: Moment) {
        for _ in 0..self.shards.len() {
            self.sweep_next(now.as_nanos().saturating_sub(REST));
        }
    }

    /// The entry of `key`, unless its time has passed.
    pub(crate) fn peek(&self, key: Digest, now: Moment) -> Option<Entry> {
        let tag = tag(key);
        let shard = self.shard(tag).lock();
        shard.show(shard.find(tag), now.as_nanos())
    }

    /// How many entries are stored; some may have ended and not been dropped yet.
    pub(crate) fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// For how many clients there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memory taken now, in bytes. Asks every shard, so it is for those who watch, not for requests.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let entries: usize = self.shards.iter().map(|shard| shard.0.lock().bytes()).sum();
        size_of::<Self>() + size_of_val(&*self.shards) + entries
    }

    /// How many entries are there, counted one by one.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn stored(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().count()).sum()
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // there are at most 2^32 shards
    fn shard(&self, tag: u64) -> &Spin<Shard> {
        &self.shards[(tag >> 32) as usize & (self.shards.len() - 1)].0
    }

    fn vacate(&self, places: usize) {
        if places > 0 {
            self.shared.live.fetch_sub(places, Ordering::Relaxed);
        }
    }
}

/// A place that nobody else can take, given back in a drop: the bound holds at every moment.
struct Reserved<'a>(&'a Table);

impl<'a> Reserved<'a> {
    fn of(table: &'a Table) -> Option<Self> {
        if table.live() >= table.capacity {
            return None; // known without a write, which all who are refused would meet in
        }
        let reserved = Self(table);
        (table.shared.live.fetch_add(1, Ordering::Relaxed) < table.capacity).then_some(reserved)
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.vacate(1);
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("live", &self.live()).field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

fn tag(key: Digest) -> u64 {
    #[allow(clippy::cast_possible_truncation)] // the first half of the digest
    let tag = (key.0 >> 64) as u64;
    tag
}
