//! A part of the table: a small open-addressed map that grows, and releases memory that it no longer needs.

use super::{Bucket, Revision, TableError, UNKNOWN};

#[derive(Clone, Copy)]
struct BucketSlot {
    tag: u64,
    bucket: Bucket,
}

/// A stored bucket's time is above zero.
const VACANT: BucketSlot = BucketSlot { tag: 0, bucket: Bucket { until: 0, limit: UNKNOWN } };

/// Buckets by tag; no memory is taken before the first.
pub(super) struct BucketShard {
    slots: Box<[BucketSlot]>,
    len: u32,
    visits: u8,
    /// Revision of the rates that the buckets are stored under.
    revision: u64,
    /// No bucket is full before this time.
    soonest: u64,
    /// No bucket that was evicted here was full after this time.
    dropped: u64,
}

impl BucketShard {
    pub(super) fn new() -> Self {
        Self { slots: Box::default(), len: 0, visits: 0, revision: 0, soonest: u64::MAX, dropped: 0 }
    }

    /// Applies the last change of a rate, if the shard has not seen it.
    ///
    /// # Errors
    /// If the shard has seen a later one.
    #[inline]
    pub(super) fn catch_up(&mut self, revision: &Revision) -> Result<(), TableError> {
        if self.revision == revision.number { Ok(()) } else { self.apply(revision) }
    }

    #[cold]
    fn apply(&mut self, revision: &Revision) -> Result<(), TableError> {
        let Some(change) = revision.last.as_ref().filter(|_| self.revision < revision.number) else {
            return Err(TableError::Stale);
        };
        self.revision = revision.number;
        for slot in self.slots.iter_mut().filter(|slot| slot.bucket.until != 0) {
            slot.bucket = change.apply(slot.bucket);
            self.soonest = self.soonest.min(slot.bucket.until);
        }
        Ok(())
    }

    pub(super) fn is_full(&self) -> bool {
        self.len as usize >= room(self.slots.len())
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }

    #[cfg(all(test, not(tollgate_loom)))]
    pub(super) fn count(&self) -> usize {
        let stored = self.slots.iter().filter(|slot| slot.bucket.until != 0).count();
        assert_eq!(stored, self.len as usize);
        stored
    }

    /// Counts a visit. Returns true at each `every`th one, a power of two up to 256.
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
            if slot.tag == tag && slot.bucket.until != 0 {
                return Some(at);
            }
            if slot.bucket.until == 0 {
                return None;
            }
            at = after(at, self.slots.len());
        }
    }

    /// Returns the live bucket of a slot, or of a tag that has none.
    ///
    /// A clock that was set back must not refill a bucket that has been evicted since it was taken from.
    #[inline]
    pub(super) fn show(&self, at: Option<usize>, now: u64) -> Option<Bucket> {
        let stored = at.map(|at| self.slots[at].bucket).filter(|bucket| bucket.is_live(now));
        stored.or_else(|| (self.dropped > now).then_some(Bucket { until: self.dropped, limit: UNKNOWN }))
    }

    /// Overwrites the bucket at `at`.
    #[inline]
    pub(super) fn set(&mut self, at: usize, bucket: Bucket) {
        self.slots[at].bucket = bucket;
        self.soonest = self.soonest.min(bucket.until);
    }

    /// Adds a bucket for a tag that has none.
    pub(super) fn put(&mut self, tag: u64, bucket: Bucket) {
        if self.is_full() {
            self.rebuild(larger(self.slots.len()), |_| true);
        }
        self.place(BucketSlot { tag, bucket });
    }

    /// Evicts all buckets whose time has passed, and returns their number. Memory that is no longer needed is released.
    pub(super) fn sweep(&mut self, now: u64) -> usize {
        if self.soonest > now {
            return 0;
        }
        let (mut live, mut soonest, mut dropped) = (0, u64::MAX, self.dropped);
        for bucket in self.slots.iter().map(|slot| slot.bucket).filter(|bucket| bucket.until != 0) {
            if bucket.is_live(now) {
                live += 1;
                soonest = soonest.min(bucket.until);
            } else {
                dropped = dropped.max(bucket.until);
            }
        }
        let ended = self.len as usize - live;
        if ended > 0 {
            let size = self.slots.len();
            // Half empty afterwards, so that it does not grow again soon.
            let fits = std::iter::successors(Some(0), |&size| Some(larger(size))).find(|&size| room(size) >= 2 * live);
            self.rebuild(fits.map_or(size, |fits| fits.min(size)), |bucket| bucket.is_live(now));
        }
        (self.soonest, self.dropped) = (soonest, dropped);
        ended
    }

    /// Moves the buckets that stay into `size` slots.
    #[cold]
    fn rebuild(&mut self, size: usize, stays: impl Fn(&Bucket) -> bool) {
        let old = std::mem::replace(&mut self.slots, vec![VACANT; size].into_boxed_slice());
        self.len = 0;
        for slot in old.iter().filter(|slot| slot.bucket.until != 0 && stays(&slot.bucket)) {
            self.place(*slot);
        }
    }

    fn place(&mut self, slot: BucketSlot) {
        let size = self.slots.len();
        let mut at = home(slot.tag, size);
        while self.slots[at].bucket.until != 0 {
            at = after(at, size);
        }
        self.slots[at] = slot;
        self.len += 1;
        self.soonest = self.soonest.min(slot.bucket.until);
    }
}

/// Returns the number of buckets in `size` slots: a quarter stays vacant, so that a search ends soon.
const fn room(size: usize) -> usize {
    size - size.div_ceil(4)
}

/// Returns the next size: 0, 8, 12, 16, 24, 32, 48 and so on. No step wastes more than a third.
const fn larger(size: usize) -> usize {
    match size {
        0 => 8,
        _ if size.is_power_of_two() => size + size / 2,
        _ => size + size / 3,
    }
}

/// Returns the slot at which a search for `tag` begins, by its lower half, which does not choose the shard.
#[inline]
#[allow(clippy::cast_possible_truncation)] // below `size`
const fn home(tag: u64, size: usize) -> usize {
    (((tag & 0xffff_ffff) * size as u64) >> 32) as usize
}

#[inline]
const fn after(at: usize, size: usize) -> usize {
    if at + 1 < size { at + 1 } else { 0 }
}
