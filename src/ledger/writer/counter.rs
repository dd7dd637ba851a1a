//! Counters as a ledger stores them, and the postings that change them.

use std::sync::Arc;

use crate::{
    quota::{Limit, account::Counter},
    time::Period,
};

/// The counters to which the settlement of a charge belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct AdmittedAt {
    /// Time of admission, in nanoseconds since 1970.
    pub(crate) at: u64,
    /// Epoch of the account at that time.
    pub(crate) epoch: u64,
}

/// A counter with the limit that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct StoredCounter {
    pub(crate) limit: Arc<str>,
    pub(crate) kind: Arc<str>,
    /// Period of the limit; empty if version 1 of the tables stored the counter.
    pub(crate) period: Arc<str>,
    pub(crate) counter: Counter,
}

/// Change of one counter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Posting {
    pub(super) limit: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) period: Arc<str>,
    pub(super) window: u64,
    pub(super) epoch: u64,
    pub(super) amount: i64,
}

impl StoredCounter {
    pub(super) fn of(limit: &Limit, counter: Counter) -> Self {
        let period = Arc::clone(&limit.period_key);
        Self { limit: (&limit.name).into(), kind: limit.kind().into(), period, counter }
    }

    /// Returns a counter of a limit that begins with the window of `wall`.
    pub(crate) fn beginning(limit: &Limit, wall: u64) -> Self {
        let mut counter = Counter::default();
        if let Some(period) = limit.quota.period() {
            counter.begin(period, wall);
        }
        Self::of(limit, counter)
    }

    /// Whether the counter counts for `limit`. One without a period counts for the limit whose window it has.
    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        let is_window = |period: &Period| {
            let mut counter = Counter::default();
            counter.begin(period, self.counter.starts);
            (counter.starts, counter.ends) == (self.counter.starts, self.counter.ends)
        };
        limit.is_named(&self.limit, &self.kind, &self.period)
            && (!self.period.is_empty() || limit.period_key.is_empty() || limit.quota.period().is_some_and(is_window))
    }

    /// Whether the counter is that of this limit, kind and period in this window and epoch.
    pub(super) fn is_at(&self, key: [&str; 3], window: u64, epoch: u64) -> bool {
        [&*self.limit, &*self.kind, &*self.period] == key
            && (self.counter.starts, self.counter.epoch) == (window, epoch)
    }

    /// Whether both count in one window and epoch.
    pub(super) fn has_window_of(&self, other: &Self) -> bool {
        (self.counter.starts, self.counter.epoch) == (other.counter.starts, other.counter.epoch)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.is_at([&other.limit, &other.kind, &other.period], other.counter.starts, other.counter.epoch)
    }

    /// Whether the counter is that of the same limit, kind and period as `other`, in a later window or epoch.
    pub(super) fn follows(&self, other: &Self) -> bool {
        let is_same = (&self.limit, &self.kind, &self.period) == (&other.limit, &other.kind, &other.period);
        is_same && (self.counter.starts, self.counter.epoch) > (other.counter.starts, other.counter.epoch)
    }

    pub(super) fn posting(&self, amount: i64) -> Posting {
        Posting {
            limit: Arc::clone(&self.limit),
            kind: Arc::clone(&self.kind),
            period: Arc::clone(&self.period),
            window: self.counter.starts,
            epoch: self.counter.epoch,
            amount,
        }
    }

    /// Returns the posting for the change since `taken` was used and reserved.
    pub(super) fn posting_since(&self, taken: u64) -> Posting {
        self.posting(signed(self.counter.taken()) - signed(taken))
    }
}

/// Converts an amount of a posting. A counter never exceeds 2^53 - 1, so that the sum of two fits.
pub(super) fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}
