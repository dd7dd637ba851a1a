//! The decision: takes from the client's bucket and from the global one, or from neither.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    gcra::{self, Decision},
    layer::TokenBucketConfig,
    permit::TokenBucketPermit,
    rate::Rate,
    rates::{Limits, RateLimit},
    table::{Bucket, Table, TableError},
};
use crate::{
    cost::Cost,
    gate::{Admit, ClientResolver, Event, MaybeFuture, PolicyContext},
    head::RequestHead,
    identity::{Client, Tier},
    refusal::{Dialect, Reason, Refusal},
    sync::HotSwap,
    time::Moment,
};

/// Policy of a [`TokenBucketLayer`](crate::TokenBucketLayer): its rates and buckets.
pub struct TokenBucketPolicy {
    pub(super) context: PolicyContext,
    pub(super) config: TokenBucketConfig,
    pub(super) limits: HotSwap<Limits>,
    /// Serializes changes of rates: each is applied to all buckets before the next.
    changing: Mutex<()>,
    pub(super) table: Table,
    /// The bucket that newcomers share while the table is full, under the key 0.
    overflow: Table,
    clients: ClientResolver,
}

/// The reason why no token was taken.
enum Shortage {
    /// The client's own bucket has too few tokens; `used` of them are missing.
    Own { wait: Duration, used: u64 },
    /// The global bucket, or the one that newcomers share, has too few tokens.
    Shared(Duration),
    /// A bucket holds less than the request costs. The number is its capacity, if it is the client's own.
    Never(Option<u64>),
}

impl TokenBucketPolicy {
    pub(super) fn new(config: TokenBucketConfig, context: PolicyContext) -> Self {
        Self {
            limits: HotSwap::new(Limits::new(&config, &context)),
            changing: Mutex::new(()),
            table: Table::new(config.clients.most),
            overflow: Table::of_shards(1, 1),
            clients: ClientResolver::new(&config.clients),
            config,
            context,
        }
    }

    /// Takes `cost` from the client's bucket and from the global one, or from neither.
    ///
    /// The permit reports the client's bucket only if `reported`, and if the table had room for it.
    #[inline]
    pub(super) fn take(&self, client: &Client, cost: Cost, reported: bool) -> Result<TokenBucketPermit, Refusal> {
        let now = self.context.clock.now();
        let present = self.limits.present();
        let limits = &*present;
        let limit = limits.by_tier.of(client.tier());
        let take = move |bucket| decide(limits, limit, bucket, cost, now);
        match self.table.update(limit.key(client), now, &limits.revision, take) {
            Ok(Ok(full_at)) if reported => Ok(TokenBucketPermit::reporting(limit, full_at, now)),
            Ok(Ok(_)) => Ok(TokenBucketPermit::silent()),
            Ok(Err(shortage)) => Err(self.refuse(shortage, limit, cost)),
            Err(TableError::Full) => self.take_from_overflow(limit, cost, now),
            Err(TableError::Stale) => self.take(client, cost, reported),
        }
    }

    /// Takes `cost` from the bucket that all newcomers share while the table has no room. Its level is not one client's, so
    /// that no permit reports it.
    #[cold]
    fn take_from_overflow(&self, own: &RateLimit, cost: Cost, now: Moment) -> Result<TokenBucketPermit, Refusal> {
        self.context.observers.emit(&Event::Overflow { policy: &self.context.name });
        if cost.get() > own.rate.capacity() {
            return Err(self.refuse(Shortage::Never(Some(own.rate.capacity())), own, cost));
        }
        let take = |limits: &Limits| {
            let limit = limits.overflow();
            let take = |bucket| decide(limits, limit, bucket, cost, now);
            let taken = self.overflow.update(0, now, &limits.revision, take)?;
            Ok(taken.map_err(|shortage| match shortage {
                Shortage::Own { wait, .. } => Shortage::Shared(wait),
                // Fits the client's own bucket: it can pass when the table has room again.
                Shortage::Never(Some(_)) => Shortage::Shared(limit.rate.span()),
                shortage => shortage,
            }))
        };
        match self.with_limits(take) {
            Ok(_) => Ok(TokenBucketPermit::silent()),
            Err(shortage) => Err(self.refuse(shortage, own, cost)),
        }
    }

    /// Changes the rate of a tier, or the usual one, and applies the change to all buckets.
    pub(super) fn set_rate(&self, tier: Option<Tier>, rate: Rate) {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.limits.replace(|limits| limits.with_rate(tier, rate, &self.context, self.config.clients.dialect));
        let limits = self.limits.present();
        self.table.apply(&limits.revision);
        self.overflow.apply(&limits.revision);
    }

    /// Calls `with` with the limits in force, again if a rate changes meanwhile.
    pub(super) fn with_limits<T>(&self, with: impl Fn(&Limits) -> Result<T, TableError>) -> T {
        loop {
            if let Ok(result) = with(&self.limits.present()) {
                return result;
            }
        }
    }

    #[cold]
    fn refuse(&self, shortage: Shortage, limit: &RateLimit, cost: Cost) -> Refusal {
        let refusal = |reason| Refusal::new(reason, self.context.name.clone());
        match shortage {
            Shortage::Own { wait, used } => refusal(Reason::RateLimited)
                .with_limit(limit.rate.capacity(), used)
                .with_retry_after(wait)
                .with_fields(Arc::clone(&limit.fields)),
            // Neither the limit nor the use of a shared bucket is reported: it would show the traffic of others.
            Shortage::Shared(wait) => refusal(Reason::Capacity).with_retry_after(wait),
            Shortage::Never(own) => refusal(Reason::TooLarge).with_limit(own.unwrap_or(0), cost.get()),
        }
    }
}

/// Decides and returns the bucket to store. Runs under the lock of the client's bucket.
#[inline(always)] // its result would be copied once more
fn decide(
    limits: &Limits,
    limit: &RateLimit,
    bucket: Option<Bucket>,
    cost: Cost,
    now: Moment,
) -> (Option<Bucket>, Result<Option<u64>, Shortage>) {
    let rate = &limit.rate;
    let before = bucket.map(|bucket| limit.full_at(bucket, now));
    let decision = match gcra::decide(rate, before, cost, now) {
        Decision::Admitted { full_at } => take_global(limits, cost, now).map(|()| full_at),
        Decision::Refused { wait } => {
            let level = gcra::level(rate, before, now);
            let used = level.limit - level.remaining;
            longest_wait(limits, cost, wait, now).and_then(|wait| Err(Shortage::Own { wait, used }))
        }
        Decision::TooLarge => Err(Shortage::Never(Some(rate.capacity()))),
    };
    match decision {
        Ok(full_at) if cost != Cost::PREFLIGHT => (Some(limit.bucket(full_at)), Ok(Some(full_at))),
        decision => (untouched(limit, bucket, now), decision.map(|_| before)),
    }
}

#[inline]
fn take_global(limits: &Limits, cost: Cost, now: Moment) -> Result<(), Shortage> {
    let Some(global) = &limits.global else { return Ok(()) };
    match global.take(cost, now) {
        Decision::Admitted { .. } => Ok(()),
        Decision::Refused { wait } => Err(Shortage::Shared(wait)),
        Decision::TooLarge => Err(Shortage::Never(None)),
    }
}

/// Returns the time until both buckets have enough tokens, if the client's has after `first`. A client that waits so long
/// must not be refused by the global bucket then.
fn longest_wait(limits: &Limits, cost: Cost, first: Duration, now: Moment) -> Result<Duration, Shortage> {
    match limits.global.as_ref().map(|global| global.ask(cost, now)) {
        Some(Decision::Refused { wait }) => Ok(first.max(wait)),
        Some(Decision::TooLarge) => Err(Shortage::Never(None)),
        Some(Decision::Admitted { .. }) | None => Ok(first),
    }
}

/// Returns the bucket of a client from which nothing was taken: unchanged. A newcomer that starts with less than a full
/// bucket is stored, or it would stay a newcomer and its bucket would never fill.
fn untouched(limit: &RateLimit, bucket: Option<Bucket>, now: Moment) -> Option<Bucket> {
    let newcomer = || Some(gcra::newcomer(&limit.rate, now)).filter(|full_at| *full_at > now.as_nanos());
    bucket.or_else(|| newcomer().map(|full_at| limit.bucket(full_at)))
}

impl Admit for TokenBucketPolicy {
    type Permit = TokenBucketPermit;

    #[inline]
    fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        self.clients.identify(request)
    }

    fn admit(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
    ) -> MaybeFuture<Result<TokenBucketPermit, Refusal>> {
        let reported = self.config.clients.dialect != Dialect::None;
        MaybeFuture::Ready(self.clients.resolve(client, &self.context, |client| {
            let Some(client) = client else { return Ok(TokenBucketPermit::silent()) };
            let cost = self.config.cost.as_ref().map_or(Cost::ONE, |cost| cost(request));
            self.take(client, cost, reported)
        }))
    }
}

impl fmt::Debug for TokenBucketPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucketPolicy").field("name", &self.context.name).finish_non_exhaustive()
    }
}
