//! One decision over all buckets of a request: tokens are taken from each, or from none.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{
    gcra::{self, Decision},
    rates::RateLimit,
    table::{Bucket, GlobalBucket, Revision, Table, TableError},
};
use crate::{cost::Cost, refusal::Fields, time::Moment};

/// The reason why no token was taken, or a result that needs more than the first bucket.
pub(super) enum Shortage {
    /// Tokens were taken from all buckets, from one of newcomers in place of a further one of the client. They may not go
    /// back, because the client may have a bucket of its own by then. An error, so that the usual path has no test for it.
    /// The number is the time at which the first of the buckets is full.
    NoneShared(u64),
    /// Tokens were taken from all buckets, and a further one of the client is nearer to a refusal than the first. An error
    /// for the same reason.
    Further(FurtherBucket),
    /// A bucket of the client has too few tokens.
    Own { wait: Duration, limit: u64, used: u64, fields: Arc<Fields> },
    /// The global bucket, or the one that newcomers share, has too few tokens.
    Shared(Duration),
    /// A bucket holds less than the request costs. The number is its capacity, if it is the client's own.
    Never(Option<u64>),
}

/// A bucket of a further rate after a request has taken its tokens.
#[derive(Clone, Copy)]
pub(super) struct FurtherBucket {
    /// Place of the rate in [`RateLimit::further`].
    pub(super) place: usize,
    /// Time at which the bucket is full, in nanoseconds of the clock.
    pub(super) full_at: u64,
}

/// The buckets of a request beside the first of its client, in the order in which they are locked.
#[derive(Clone, Default)]
pub(super) struct OtherLimits {
    /// In the order of [`RateLimit::further`].
    pub(super) further: Arc<[FurtherBuckets]>,
    pub(super) global: Option<Arc<GlobalBucket>>,
}

/// The buckets of a further rate. It is the same for all tiers and never changes.
pub(super) struct FurtherBuckets {
    pub(super) buckets: ClientBuckets,
    /// Whether the table was full, and that is not reported yet.
    overflowed: AtomicBool,
}

/// The buckets of all clients under one rate.
pub(super) struct ClientBuckets {
    pub(super) table: Table,
    /// The bucket that newcomers share while the table is full, under the key 0.
    pub(super) overflow: Table,
}

/// Tokens that a request takes, and the other buckets that it takes them from.
#[derive(Clone, Copy)]
pub(super) struct Demand<'a> {
    /// [`RateLimit::tag`] of the client.
    pub(super) tag: u64,
    pub(super) cost: Cost,
    pub(super) now: Moment,
    /// False only asks: nothing is taken.
    pub(super) takes: bool,
    pub(super) others: Option<&'a OtherLimits>,
}

impl OtherLimits {
    /// Returns these limits unless there are none.
    pub(super) fn if_any(self) -> Option<Self> {
        (self.global.is_some() || !self.further.is_empty()).then_some(self)
    }

    /// Returns whether a table was full since the last call.
    pub(super) fn has_overflowed(&self) -> bool {
        self.further.iter().any(|FurtherBuckets { overflowed, .. }| {
            overflowed.load(Ordering::Relaxed) && overflowed.swap(false, Ordering::Relaxed)
        })
    }
}

impl FurtherBuckets {
    pub(super) const fn new(buckets: ClientBuckets) -> Self {
        Self { buckets, overflowed: AtomicBool::new(false) }
    }
}

impl ClientBuckets {
    pub(super) fn new(most: usize) -> Self {
        Self { table: Table::new(most), overflow: Table::of_shards(1, 1) }
    }

    /// Applies a change of a rate to every bucket.
    pub(super) fn apply(&self, revision: &Revision) {
        self.table.apply(revision);
        self.overflow.apply(revision);
    }
}

impl Demand<'_> {
    /// Decides by the first bucket, and then by all others. Returns the bucket to store, and the time at which it is full.
    /// Runs under the lock of the bucket.
    #[inline(always)] // its result would be copied once more
    pub(super) fn decide(&self, limit: &RateLimit, bucket: Option<Bucket>) -> (Option<Bucket>, Result<u64, Shortage>) {
        let others = |full_at, takes| match self.others {
            None => Ok(()),
            Some(others) => Demand { takes, ..*self }.decide_by(limit, (limit, full_at), others, 0),
        };
        self.decide_then(limit, bucket, others)
    }

    /// Decides by a bucket, and then by `others`, which receive the time at which it is full afterwards.
    #[inline(always)]
    fn decide_then(
        &self,
        limit: &RateLimit,
        bucket: Option<Bucket>,
        others: impl Fn(u64, bool) -> Result<(), Shortage>,
    ) -> (Option<Bucket>, Result<u64, Shortage>) {
        let Self { cost, now, takes, .. } = *self;
        let before = bucket.map(|bucket| limit.full_at(bucket, now));
        let decision = match gcra::decide(&limit.rate, before, cost, now) {
            Decision::Admitted { full_at } => match others(full_at, takes) {
                Err(Shortage::NoneShared(_)) => {
                    return (Some(limit.bucket(full_at)), Err(Shortage::NoneShared(full_at)));
                }
                Err(Shortage::Further(further)) if takes && cost != Cost::PREFLIGHT => {
                    return (Some(limit.bucket(full_at)), Err(Shortage::Further(further)));
                }
                others => others.map(|()| full_at),
            },
            Decision::Refused { wait } => Err(short(limit, before, now, wait, others(u64::MAX, false))),
            Decision::TooLarge => Err(Shortage::Never(Some(limit.rate.capacity()))),
        };
        match decision {
            Ok(full_at) if takes && cost != Cost::PREFLIGHT => (Some(limit.bucket(full_at)), Ok(full_at)),
            decision => (untouched(limit, bucket, now), decision),
        }
    }

    /// Decides by the further rates of `first` from `place` on, and then by the global one. If all of them admit the
    /// request, and a further bucket is nearer to a refusal than the one before, which has a limit and a time at which it
    /// is full, returns it as [`Shortage::Further`].
    fn decide_by(
        &self,
        first: &RateLimit,
        before: (&RateLimit, u64),
        others: &OtherLimits,
        place: usize,
    ) -> Result<(), Shortage> {
        let Some((limit, further)) = first.further.get(place).zip(others.further.get(place)) else {
            let decision = others.global.as_ref().map(|global| global.decide(self.cost, self.now, self.takes));
            return match decision {
                Some(Decision::Refused { wait }) => Err(Shortage::Shared(wait)),
                Some(Decision::TooLarge) => Err(Shortage::Never(None)),
                Some(Decision::Admitted { .. }) | None => Ok(()),
            };
        };
        let FurtherBuckets { buckets, overflowed } = further;
        let rest = |full_at, takes| Demand { takes, ..*self }.decide_by(first, (limit, full_at), others, place + 1);
        let decide = |bucket| self.decide_then(limit, bucket, rest);
        match buckets.table.update(self.tag, self.now, &Revision::FIRST, decide) {
            Ok(Ok(full_at)) => first.nearer(before, FurtherBucket { place, full_at }, self.now),
            Ok(Err(Shortage::Further(further))) => first.nearer(before, further, self.now),
            Ok(Err(shortage)) => Err(shortage),
            Err(TableError::Full | TableError::Stale) => {
                overflowed.store(true, Ordering::Relaxed);
                match buckets.overflow.update(0, self.now, &Revision::FIRST, decide) {
                    // The level is not the client's own, so that no permit reports it.
                    Ok(Ok(full_at) | Err(Shortage::Further(FurtherBucket { full_at, .. })))
                        if self.takes && self.cost != Cost::PREFLIGHT =>
                    {
                        Err(Shortage::NoneShared(full_at))
                    }
                    Ok(Ok(_) | Err(Shortage::Further(_))) | Err(_) => Ok(()),
                    Ok(Err(shortage)) => Err(shortage.of_shared_bucket(limit)),
                }
            }
        }
    }
}

impl RateLimit {
    /// Returns a further bucket as [`Shortage::Further`] if it is nearer to a refusal than the one before.
    fn nearer(&self, before: (&Self, u64), further: FurtherBucket, now: Moment) -> Result<(), Shortage> {
        let nearness = |limit: &Self, full_at| limit.nearness(&gcra::level(&limit.rate, Some(full_at), now));
        match self.further.get(further.place) {
            Some(limit) if nearness(limit, further.full_at) < nearness(before.0, before.1) => {
                Err(Shortage::Further(further))
            }
            _ => Ok(()),
        }
    }
}

impl Shortage {
    /// Returns the shortage of a client that shares the bucket of `limit` with other newcomers, and whose own bucket would
    /// hold enough.
    pub(super) fn of_shared_bucket(self, limit: &RateLimit) -> Self {
        match self {
            Self::Own { wait, .. } => Self::Shared(wait),
            // It can pass when the table has room again.
            Self::Never(Some(_)) => Self::Shared(limit.rate.span()),
            shortage => shortage,
        }
    }
}

/// Returns the shortage of a bucket that has enough tokens after `wait`. A client that waits as it is told must not be
/// refused by another bucket then, so that the longest wait is told.
#[cold]
fn short(
    limit: &RateLimit,
    full_at: Option<u64>,
    now: Moment,
    wait: Duration,
    others: Result<(), Shortage>,
) -> Shortage {
    let wait = match others {
        Err(Shortage::Never(capacity)) => return Shortage::Never(capacity),
        Err(Shortage::Own { wait: other, .. } | Shortage::Shared(other)) => wait.max(other),
        Ok(()) | Err(Shortage::NoneShared(_) | Shortage::Further(_)) => wait,
    };
    let level = gcra::level(&limit.rate, full_at, now);
    let (limit, fields) = (level.limit, Arc::clone(&limit.fields));
    Shortage::Own { wait, limit, used: limit - level.remaining, fields }
}

/// Returns the bucket of a client from which nothing was taken: unchanged. A newcomer that starts with less than a full
/// bucket is stored, or it would stay a newcomer and its bucket would never fill.
fn untouched(limit: &RateLimit, bucket: Option<Bucket>, now: Moment) -> Option<Bucket> {
    let newcomer = || Some(gcra::newcomer(&limit.rate, now)).filter(|full_at| *full_at > now.as_nanos());
    bucket.or_else(|| newcomer().map(|full_at| limit.bucket(full_at)))
}
