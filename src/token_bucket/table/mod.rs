//! State in this process: a bounded table of clients, and one cell for everyone together.
//!
//! The table is a row of small open-addressed maps, its shards, each behind a lock of its own that is held for some
//! instructions. A digest's upper bits choose the shard, its lower bits the slot in it. Shards grow and shrink one by one;
//! what is bounded is how many entries all of them hold, and newcomers above that are told that it is [full](Full). A
//! live entry is never evicted. An entry whose time has passed equals no entry: requests that come by sweep a shard now
//! and then, so that memory goes back without a task of its own; where none come by, somebody may sweep [them all](Table::sweep_all).
//!
//! **Locks.** A thread that holds a shard waits for no other: all others are tried and skipped when taken. So nobody can
//! wait in a circle.

mod global;
mod shard;
mod sharded;
#[cfg(test)]
mod tests;

pub(crate) use global::GlobalCell;
pub(crate) use sharded::Table;

/// What is written down of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When the client's bucket is full again, in nanoseconds of the clock: until then the entry lives.
    pub(crate) full_at: u64,
    /// How long the bucket takes to fill under the rate that it was written under, in nanoseconds: another rate has to
    /// [rescale](crate::token_bucket::gcra::rescale) it. Zero for a client of whom nothing is known but that its bucket may have
    /// been taken from before the clock was set back.
    pub(crate) span: u64,
}

impl Entry {
    #[inline]
    fn lives(&self, now: u64) -> bool {
        self.full_at > now
    }
}

/// There is no room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;
