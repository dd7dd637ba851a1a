//! State in this process: a bounded table of buckets, one for each client, and the cell of the global bucket.
//!
//! The table consists of shards: small open-addressed maps, each behind a lock of its own that is held for some
//! instructions. The upper bits of a digest choose the shard, its lower bits the slot. Shards grow and shrink one by one.
//! The number of buckets in all of them is bounded; above it, newcomers receive [`Full`]. A live bucket is never evicted.
//! A bucket whose time has passed equals no bucket. Requests sweep a shard now and then, so that memory is released
//! without a task; without requests, [`Table::sweep_all`] releases it.
//!
//! **Locks.** A thread that holds a shard waits for no other shard: it tries them, and skips those in use. So there is no
//! circular wait.

mod global;
mod shard;
mod sharded;
#[cfg(test)]
mod tests;

pub(crate) use global::GlobalCell;
pub(crate) use sharded::Table;

/// The stored bucket of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Time at which the bucket is full again, in nanoseconds of the clock. Until then it is live.
    pub(crate) full_at: u64,
    /// Time in which the bucket fills under the rate that it was stored under, in nanoseconds; another rate must
    /// [rescale](crate::token_bucket::gcra::rescale) it. Zero for an unknown client that may have taken tokens before the
    /// clock was set back.
    pub(crate) span: u64,
}

impl Bucket {
    #[inline]
    fn is_live(&self, now: u64) -> bool {
        self.full_at > now
    }
}

/// The table has no room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;
