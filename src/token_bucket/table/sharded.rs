//! The table of buckets, one for each client.

use super::{Bucket, Revision, TableError, UNKNOWN, shard::BucketShard};
use crate::{
    sync::{AtomicUsize, Ordering, Spin, SpinGuard},
    time::Moment,
};

/// Number of visits of a shard after which some others are swept. A table for n clients has swept all of its shards after
/// n / 16 to n / 8 requests, and a small one after some hundreds.
const SWEEP_EVERY: u16 = 64;

/// Number of shards that are swept then.
pub(super) const SWEPT: usize = 8;

/// Time that a full bucket stays while there is room, in nanoseconds. Most buckets are full again at the next request of
/// their client, and a lookup of the old one is cheaper than an insertion.
const REST: u64 = 1_000_000_000;

/// Overwrites a bucket that the next sweep must evict: no clock begins before its time.
const LONG_OVER: Bucket = Bucket { until: 1, limit: UNKNOWN };

/// Number of other shards that a newcomer sweeps when the table is full. Full buckets are soon found. A table in which
/// all buckets are live answers at once, because each shard knows when its first one is full.
pub(super) const LOOK_AT: usize = 2;

/// Buckets in a shard of a full table. A table for a million clients then has 8,192 shards, whose heads fit into a
/// processor's second-level cache, and a shard grows in a few microseconds.
const CLIENTS: usize = 128;

/// Least number of shards: small tables have several too, so that threads rarely wait for each other.
const FEWEST: usize = 16;

/// A bounded map from keys to buckets. Operations on different shards do not wait for each other; a hit allocates
/// nothing.
///
/// A key is 64 bits of a client's keyed digest. Among a million clients the chance that any two share a bucket is below
/// one in ten million, and without the key no client can cause it.
pub(crate) struct Table {
    shards: Box<[Aligned]>,
    capacity: usize,
    pub(super) shared: TableCounters,
}

/// A shard and its lock on a cache line of their own, so that neighbours do not slow each other down.
#[repr(align(64))]
struct Aligned(Spin<BucketShard>);

/// Counters that all threads write, apart from the fields that all threads read.
#[repr(align(64))]
pub(super) struct TableCounters {
    /// Number of buckets that are stored, and of those that are about to be.
    live: AtomicUsize,
    /// Number of shards swept in passing; the next one is at this index, modulo the number of shards.
    pub(super) hand: AtomicUsize,
}

impl Table {
    /// Creates a table for `capacity` clients.
    pub(crate) fn new(capacity: usize) -> Self {
        Self::of_shards(capacity, (capacity / CLIENTS).max(FEWEST).next_power_of_two())
    }

    /// Creates a table of `shards` shards, a power of two up to 2^32.
    pub(crate) fn of_shards(capacity: usize, shards: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Aligned(Spin::new(BucketShard::new()))).collect(),
            capacity,
            shared: TableCounters { live: AtomicUsize::new(0), hand: AtomicUsize::new(0) },
        }
    }

    /// Changes the bucket of `key` under its lock: `change` receives it and returns the bucket to store, by the rates of
    /// `revision`.
    ///
    /// A bucket whose time has passed is passed as `None`. If `change` returns `None`, or a bucket whose time has passed,
    /// the next sweep evicts it. `change` must not block.
    ///
    /// # Errors
    /// If the key has no bucket and there is no room for one, or if `revision` is stale; then `change` was not called.
    #[inline(always)] // its captures and its result would pass through memory
    pub(crate) fn update<R>(
        &self,
        key: u64,
        now: Moment,
        revision: &Revision,
        change: impl FnOnce(Option<Bucket>) -> (Option<Bucket>, R),
    ) -> Result<R, TableError> {
        let now = now.as_nanos();
        let mut shard = self.lock(key, revision)?;
        let found = shard.find(key);
        let reserved = if found.is_some() { None } else { Some(self.reserve(&mut shard, now, revision)?) };
        let before = shard.show(found, now);
        // Called in one place for clients and newcomers, so that it is inlined.
        let (after, result) = change(before);
        match found {
            Some(at) => match after {
                Some(bucket) if bucket.until > 0 => shard.set(at, bucket), // even if its time has passed
                None if before.is_none() => {}                             // evicted once it has rested
                _ => shard.set(at, LONG_OVER),
            },
            None => self.add(&mut shard, key, after, now, reserved),
        }
        let due = shard.visit(SWEEP_EVERY);
        drop(shard);
        if due {
            (0..SWEPT).for_each(|_| self.sweep_next(now.saturating_sub(REST), revision));
        }
        Ok(result)
    }

    /// Adds the bucket of a newcomer, unless its time has passed, in the place that is reserved.
    #[cold]
    fn add(
        &self,
        shard: &mut BucketShard,
        key: u64,
        bucket: Option<Bucket>,
        now: u64,
        reserved: Option<ReservedPlace<'_>>,
    ) {
        if let Some(bucket) = bucket.filter(|bucket| bucket.is_live(now)) {
            if shard.is_full() {
                self.vacate(shard.sweep(now.saturating_sub(REST)));
            }
            shard.put(key, bucket);
            std::mem::forget(reserved);
        }
    }

    /// Reserves the place of a newcomer's bucket.
    #[cold]
    fn reserve(&self, shard: &mut BucketShard, now: u64, revision: &Revision) -> Result<ReservedPlace<'_>, TableError> {
        ReservedPlace::new(self).map_or_else(|| self.make_room(shard, now, revision), Ok)
    }

    /// Reserves the place of a bucket whose time has passed. Other shards are swept only if their locks are free.
    fn make_room(
        &self,
        shard: &mut BucketShard,
        now: u64,
        revision: &Revision,
    ) -> Result<ReservedPlace<'_>, TableError> {
        self.vacate(shard.sweep(now));
        for look in 0..=LOOK_AT {
            if look > 0 {
                self.sweep_next(now, revision);
            }
            if let Some(reserved) = ReservedPlace::new(self) {
                return Ok(reserved);
            }
        }
        Err(TableError::Full)
    }

    /// Evicts the buckets of the next shard whose time has passed by `now`. A shard in use is skipped.
    #[cold]
    pub(super) fn sweep_next(&self, now: u64, revision: &Revision) {
        let next = self.shared.hand.fetch_add(1, Ordering::Relaxed);
        if let Some(mut shard) = self.shards[next & (self.shards.len() - 1)].0.try_lock() {
            let _ = shard.catch_up(revision); // the times of a shard that is ahead are right
            self.vacate(shard.sweep(now));
        }
    }

    /// Evicts all buckets that have been full for a second, shard by shard.
    pub(crate) fn sweep_all(&self, now: Moment, revision: &Revision) {
        for _ in 0..self.shards.len() {
            self.sweep_next(now.as_nanos().saturating_sub(REST), revision);
        }
    }

    /// Applies a change of a rate to all shards that have not seen it.
    pub(crate) fn apply(&self, revision: &Revision) {
        for shard in &self.shards {
            let _ = shard.0.lock().catch_up(revision);
        }
    }

    /// Returns the bucket of `key`, unless its time has passed.
    ///
    /// # Errors
    /// If `revision` is stale.
    pub(crate) fn peek(&self, key: u64, now: Moment, revision: &Revision) -> Result<Option<Bucket>, TableError> {
        let shard = self.lock(key, revision)?;
        Ok(shard.show(shard.find(key), now.as_nanos()))
    }

    /// Returns the number of stored buckets, including those that are full and not evicted yet.
    pub(crate) fn live(&self) -> usize {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// Returns the greatest number of buckets.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Returns the allocated memory, in bytes. It locks every shard, so it is for monitoring, not for requests.
    pub(crate) fn allocated_bytes(&self) -> usize {
        let buckets: usize = self.shards.iter().map(|shard| shard.0.lock().bytes()).sum();
        size_of::<Self>() + size_of_val(&*self.shards) + buckets
    }

    /// Counts the stored buckets one by one.
    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn stored(&self) -> usize {
        self.shards.iter().map(|shard| shard.0.lock().count()).sum()
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)] // there are at most 2^32 shards
    fn lock(&self, key: u64, revision: &Revision) -> Result<SpinGuard<'_, BucketShard>, TableError> {
        let mut shard = self.shards[(key >> 32) as usize & (self.shards.len() - 1)].0.lock();
        shard.catch_up(revision)?;
        Ok(shard)
    }

    fn vacate(&self, places: usize) {
        if places > 0 {
            self.shared.live.fetch_sub(places, Ordering::Relaxed);
        }
    }
}

/// A place for one bucket, released on drop, so that the bound holds at every moment.
struct ReservedPlace<'a>(&'a Table);

impl<'a> ReservedPlace<'a> {
    fn new(table: &'a Table) -> Option<Self> {
        if table.live() >= table.capacity {
            return None; // without a write to a cache line that all refused callers would share
        }
        let reserved = Self(table);
        (table.shared.live.fetch_add(1, Ordering::Relaxed) < table.capacity).then_some(reserved)
    }
}

impl Drop for ReservedPlace<'_> {
    fn drop(&mut self) {
        self.0.vacate(1);
    }
}
