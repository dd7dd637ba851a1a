//! State in this process: a bounded table of buckets, one for each client, and the global bucket.
//!
//! The table consists of shards: small open-addressed maps, each behind a lock of its own that is held for some
//! instructions. The upper bits of a digest choose the shard, its lower bits the slot. Shards grow and shrink one by one.
//! The number of buckets in all of them is bounded; above it, newcomers receive [`TableError::Full`]. A live bucket is
//! never evicted. A bucket whose time has passed equals no bucket. Requests sweep a shard now and then, so that memory is
//! released without a task; without requests, [`Table::sweep_all`] releases it.
//!
//! **Locks.** A thread that holds a shard waits for no other shard: it tries them, and skips those in use. So there is no
//! circular wait.
//!
//! **Changes of a rate.** Each shard knows the [`Revision`] of the rates that its buckets are stored under. A caller that
//! locks an older shard first applies the [change](RateChange) to all of its buckets, so that no bucket is read by another
//! rate than its own. A caller whose rates are older than the shard receives [`TableError::Stale`] and reads them again.

mod global;
mod shard;
mod sharded;
#[cfg(test)]
mod tests;

use super::{gcra, rate::Rate};
use crate::time::Moment;

pub(crate) use global::GlobalBucket;
pub(crate) use sharded::Table;

/// The stored bucket of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Time until which the bucket is stored, in nanoseconds of the clock: when it is full, or [later](Rate::kept_ns).
    pub(crate) until: u64,
    /// Number of the limit by whose rate it fills. [`UNKNOWN`] for a client that may have taken tokens before the clock
    /// was set back.
    pub(crate) limit: u32,
}

/// No number of a limit.
pub(crate) const UNKNOWN: u32 = u32::MAX;

impl Bucket {
    #[inline]
    fn is_live(&self, now: u64) -> bool {
        self.until > now
    }
}

/// Rates in force, by their number, and the change that led to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Revision {
    number: u64,
    last: Option<RateChange>,
}

/// A change of the rate of one limit.
#[derive(Clone, Debug)]
pub(crate) struct RateChange {
    pub(crate) limit: u32,
    pub(crate) from: Rate,
    pub(crate) to: Rate,
    /// Greatest burst that the limit has had.
    pub(crate) burst: u64,
    pub(crate) at: Moment,
}

impl Revision {
    /// Rates that have not changed.
    pub(crate) const FIRST: Self = Self { number: 0, last: None };

    /// Returns the revision after a change. Every shard must be at this one before.
    pub(crate) fn after(&self, change: RateChange) -> Self {
        Self { number: self.number + 1, last: Some(change) }
    }
}

impl RateChange {
    /// Returns the same bucket under the new rate, with the same missing tokens.
    fn apply(&self, bucket: Bucket) -> Bucket {
        if bucket.limit != self.limit {
            return bucket;
        }
        let full_at = bucket.until.saturating_sub(self.from.kept_ns());
        let full_at = gcra::change_rate(full_at, &self.from, &self.to, self.burst, self.at).max(1); // zero is a vacant slot
        Bucket { until: full_at.saturating_add(self.to.kept_ns()), ..bucket }
    }
}

/// The table did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TableError {
    /// The table has no room for another client.
    Full,
    /// A rate has changed since the caller read its rates.
    Stale,
}
