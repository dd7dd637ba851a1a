//! The decision: takes from the client's bucket and from the global one, or from neither.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    decision::{ClientBuckets, Demand, FurtherBucket, OtherLimits, Shortage},
    gcra,
    layer::{TokenBucketConfig, TokenBucketLayer},
    permit::TokenBucketPermit,
    rate::Rate,
    rates::{Limits, RateLimit},
    table::{Bucket, Revision, TableError},
};
use crate::{
    cost::Cost,
    gate::{
        Admit, AskPolicy, ClientResolver, Event, MaybeFuture, MemberDecision, PolicyContext, RequestTimes, Sample,
        Sampled, caught,
    },
    head::RequestHead,
    identity::{Client, Identify, Tier},
    refusal::{Reason, Refusal},
    sync::HotSwap,
    time::{Clock, Moment},
};

/// Policy of a [`TokenBucketLayer`](crate::TokenBucketLayer): its rates and buckets.
pub struct TokenBucketPolicy {
    pub(super) context: PolicyContext,
    pub(super) config: TokenBucketConfig,
    pub(super) limits: HotSwap<Limits>,
    pub(super) buckets: ClientBuckets,
    /// Serializes changes of rates: each is applied to all buckets before the next.
    changing: Mutex<()>,
    clients: ClientResolver,
    itself: Weak<Self>,
}

impl TokenBucketPolicy {
    pub(super) fn new(config: TokenBucketConfig, context: PolicyContext, itself: Weak<Self>) -> Self {
        Self {
            limits: HotSwap::new(Limits::new(&config, &context, &itself)),
            buckets: ClientBuckets::new(config.clients.most),
            changing: Mutex::new(()),
            clients: ClientResolver::new(&config.clients, &context),
            config,
            context,
            itself,
        }
    }

    /// Decides on a request of `client`, at the time that `now` returns. Returns what `admitted` makes of the permit.
    #[inline(always)] // the permit would be copied once more
    fn decide<T>(
        &self,
        request: &RequestHead<'_>,
        client: Option<&Client>,
        now: impl FnOnce() -> Moment,
        mut admitted: impl FnMut(TokenBucketPermit) -> T,
    ) -> Result<T, Refusal> {
        self.clients.resolve(client, &self.context, |client| {
            let Some(client) = client else { return Ok(admitted(self.silent())) };
            let cost = self.config.cost.as_ref().map_or(Cost::ONE, |cost| cost(request));
            let taken = self.take(client, cost, now(), |limit, full_at, demand| {
                admitted(TokenBucketPermit::new(limit, full_at, demand))
            })?;
            Ok(taken.unwrap_or_else(|| admitted(self.silent())))
        })
    }

    /// Takes `cost` at `now` from all buckets of the client and from the global one, or from none.
    ///
    /// Returns what `admitted` makes of the limit that is nearest to a refusal, of the time at which its bucket is full, and
    /// of the demand; `None` if the first table had no room for the client, so that it took from a bucket that newcomers share.
    #[inline(always)] // the permit would be copied once more
    pub(super) fn take<T>(
        &self,
        client: &Client,
        cost: Cost,
        mut now: Moment,
        mut admitted: impl FnMut(&Arc<RateLimit>, u64, &Demand<'_>) -> T,
    ) -> Result<Option<T>, Refusal> {
        loop {
            let present = self.limits.present();
            let limits = &*present;
            let limit = limits.by_tier.of(client.tier());
            let demand = Demand { tag: RateLimit::tag(client), cost, now, takes: true, others: limits.others.as_ref() };
            // A shortage stays here: as a part of the result it would pass through memory, and the time with it.
            let mut shortage = None;
            let decide = |bucket| {
                let (after, decision) = demand.decide(limit, bucket);
                (after, decision.map_err(|short| shortage = Some(short)).ok())
            };
            let taken = self.buckets.table.update(limit.key(demand.tag), now, &limits.revision, decide);
            if limits.others.as_ref().is_some_and(OtherLimits::has_overflowed) {
                self.report_overflow();
            }
            return match taken {
                Ok(Some(full_at)) => Ok(Some(admitted(limit, full_at, &demand))),
                Ok(None) => match shortage {
                    Some(Shortage::Further(FurtherBucket { place, full_at })) => {
                        Ok(limit.further.get(place).map(|limit| admitted(limit, full_at, &demand)))
                    }
                    // The first bucket is the client's own, so that the response reports it. Nothing goes back.
                    Some(Shortage::NoneShared(full_at)) => {
                        Ok(Some(admitted(limit, full_at, &Demand { cost: Cost::PREFLIGHT, ..demand })))
                    }
                    Some(shortage) => self.conclude(shortage, cost).map(|()| None),
                    None => Ok(None),
                },
                Err(TableError::Full) => self.take_from_overflow(limit, demand.tag, cost, now).map(|()| None),
                Err(TableError::Stale) => {
                    now = self.context.clock.now(); // a rate has changed since it was read
                    continue;
                }
            };
        }
    }

    /// Returns the permit of a request that took no token, or one of a bucket that newcomers share.
    #[cold]
    fn silent(&self) -> TokenBucketPermit {
        TokenBucketPermit::silent(Arc::clone(self.limits.present().by_tier.of(None)))
    }

    /// Reports that a table is full. No lock is held: an observer may ask for tokens itself.
    #[cold]
    fn report_overflow(&self) {
        self.context.observers.emit(&Event::Overflow { policy: &self.context.name });
    }

    /// Takes `cost` from the bucket that all newcomers share while the table has no room. Its level is not one client's, so
    /// that no permit reports it.
    #[cold]
    fn take_from_overflow(&self, own: &RateLimit, tag: u64, cost: Cost, now: Moment) -> Result<(), Refusal> {
        self.report_overflow();
        if cost.get() > own.rate.capacity() {
            return self.conclude(Shortage::Never(Some(own.rate.capacity())), cost);
        }
        let taken = self.with_limits(|limits| {
            let limit = limits.overflow();
            let demand = Demand { tag, cost, now, takes: true, others: limits.others.as_ref() };
            let decide = |bucket| demand.decide(limit, bucket);
            let taken = self.buckets.overflow.update(0, now, &limits.revision, decide)?;
            Ok(taken.map_err(|shortage| shortage.of_shared_bucket(limit)))
        });
        taken.map_or_else(|shortage| self.conclude(shortage, cost), |_| Ok(()))
    }

    /// Gives `cost` back to the client's buckets, the first of which is that of the limit `number`, and to the global one.
    /// If `global_number` is given and the global bucket has another number, it receives nothing.
    pub(super) fn give_back(&self, tag: u64, number: u32, cost: Cost, global_number: Option<u64>) {
        let now = self.context.clock.now();
        let fuller = |limit: &RateLimit, bucket: Option<Bucket>| {
            let full_at = |bucket| gcra::give_back(&limit.rate, limit.full_at(bucket, now), cost, now);
            (bucket.map(|bucket| limit.bucket(full_at(bucket))), ())
        };
        self.with_limits(|limits| {
            if let Some(limit) = limits.numbered(number) {
                match self.buckets.table.update(limit.key(tag), now, &limits.revision, |bucket| fuller(limit, bucket)) {
                    Err(TableError::Stale) => return Err(TableError::Stale),
                    Ok(()) | Err(TableError::Full) => {} // a client without a bucket has all of its tokens
                }
            }
            let Some(others) = &limits.others else { return Ok(()) };
            for (further, limit) in others.further.iter().zip(&limits.by_tier.of(None).further) {
                let fuller = |bucket| fuller(limit, bucket);
                let _ = further.buckets.table.update(tag, now, &Revision::FIRST, fuller);
            }
            if let Some(global) = &others.global
                && global_number.is_none_or(|number| number == limits.global_number)
            {
                global.give_back(cost, now);
            }
            Ok(())
        });
    }

    /// Returns whether tokens go back after a layer further in has refused the request for `reason`.
    pub(super) fn refunds(&self, reason: Reason) -> bool {
        match &self.config.refund {
            Some(refund) => caught(|| refund(reason)).unwrap_or(false),
            None => matches!(
                reason,
                Reason::CircuitOpen | Reason::Capacity | Reason::Unavailable | Reason::RecordsUnavailable
            ),
        }
    }

    /// Changes the rate of a tier, or the usual one, and applies the change to all buckets.
    pub(super) fn set_rate(&self, tier: Option<Tier>, rate: Rate) {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.limits.replace(|limits| limits.with_rate(tier, rate, self));
        self.buckets.apply(&self.limits.present().revision);
    }

    /// Removes the rate of a tier; returns whether it had one.
    pub(super) fn remove_rate(&self, tier: &Tier) -> bool {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = self.limits.try_replace(|limits| limits.without_rate(tier, self.context.clock.now()).ok_or(()));
        if replaced.is_ok() {
            self.buckets.apply(&self.limits.present().revision);
        }
        replaced.is_ok()
    }

    /// Calls `with` with the limits in force, again if a rate changes meanwhile.
    pub(super) fn with_limits<T>(&self, with: impl Fn(&Limits) -> Result<T, TableError>) -> T {
        loop {
            if let Ok(result) = with(&self.limits.present()) {
                return result;
            }
        }
    }

    /// Returns the refusal of a request with this shortage.
    #[cold]
    fn conclude(&self, shortage: Shortage, cost: Cost) -> Result<(), Refusal> {
        let refusal = |reason| self.context.refusal(reason);
        Err(match shortage {
            Shortage::NoneShared(_) | Shortage::Further(_) => return Ok(()),
            Shortage::Own { wait, limit, used, fields } => {
                refusal(Reason::RateLimited).with_limit(limit, used).with_retry_after(wait).with_fields(fields)
            }
            // Neither the limit nor the use of a shared bucket is reported: it would show the traffic of others.
            Shortage::Shared(wait) => refusal(Reason::Capacity).with_retry_after(wait),
            Shortage::Never(own) => refusal(Reason::TooLarge).with_limit(own.unwrap_or(0), cost.get()),
        })
    }

    /// Returns the number of clients in the fullest table.
    pub(super) fn live_clients(&self) -> usize {
        let limits = self.limits.present();
        let further = limits.further().map(|further| further.buckets.table.live());
        further.fold(self.buckets.table.live(), usize::max)
    }

    /// Returns the policy for limits, which refer to it and do not keep it.
    pub(super) fn itself(&self) -> &Weak<Self> {
        &self.itself
    }
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
        MaybeFuture::Ready(self.decide(request, client, || self.context.clock.now(), |permit| permit))
    }

    #[inline]
    fn decision_clock(&self) -> Option<&Clock> {
        Some(&self.context.clock)
    }

    #[inline(always)]
    fn admit_in_place<'a>(
        self: &'a Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
        times: &mut RequestTimes<'a>,
        permit: &mut Option<TokenBucketPermit>,
    ) -> MemberDecision<Self> {
        let now = || times.by(&self.context.clock);
        self.decide(request, client, now, |admitted| *permit = Some(admitted)).into()
    }
}

impl Sampled for TokenBucketPolicy {
    fn sample(&self, report: &mut dyn FnMut(&Sample<'_>)) {
        let (live, most) = (self.live_clients(), self.buckets.table.capacity());
        report(&Sample::Clients { policy: &self.context.name, live, most });
    }
}

impl AskPolicy for TokenBucketLayer {
    fn identity(policy: &TokenBucketPolicy) -> Option<&Arc<dyn Identify>> {
        policy.clients.shared_identity()
    }
}

impl fmt::Debug for TokenBucketPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucketPolicy").field("name", &self.context.name).finish_non_exhaustive()
    }
}
