//! The rates in force, replaced as a whole while requests read them.

use std::{
    cmp::Reverse,
    sync::{Arc, Weak},
    time::Duration,
};

use super::{
    decision::{ClientBuckets, FurtherBuckets, OtherLimits},
    gcra::{self, Level},
    layer::TokenBucketConfig,
    policy::TokenBucketPolicy,
    rate::Rate,
    table::{Bucket, GlobalBucket, RateChange, Revision, UNKNOWN},
};
use crate::{
    gate::{PolicyContext, Tiered},
    identity::{Client, Tier},
    refusal::{AdvertisedLimit, Dialect, Fields},
    time::{Clock, Moment},
};

/// A rate and the header fields that report it.
#[derive(Clone)]
pub(super) struct RateLimit {
    pub(super) rate: Rate,
    pub(super) fields: Arc<Fields>,
    pub(super) clock: Clock,
    /// Whether responses have fields.
    pub(super) reports: bool,
    /// Number in the layer, which stays when the rate changes. A further rate has that of the rate that it is added to, so
    /// that a permit which reports it finds the first bucket.
    pub(super) number: u32,
    /// Policy of the limit, for permits that give tokens back.
    pub(super) policy: Weak<TokenBucketPolicy>,
    /// Greatest burst that the limit has had.
    burst: u64,
    /// [`Rate::kept_ns`].
    kept: u64,
    /// [`Limits::global_number`], so that a permit knows the global bucket from which it took without a word of its own.
    pub(super) global_number: u64,
    /// Further rates of the same clients, which no change of a rate affects. They and this one report one list of
    /// policies, which depends on the tier.
    pub(super) further: Box<[Arc<RateLimit>]>,
}

/// All rates of a layer.
#[derive(Clone)]
pub(super) struct Limits {
    pub(super) by_tier: Tiered<Arc<RateLimit>>,
    /// Buckets of further rates of each client and the global one, if there are any.
    pub(super) others: Option<OtherLimits>,
    /// Limit of the bucket that newcomers share while the table is full; the usual one if there is none.
    overflow: Option<Arc<RateLimit>>,
    /// Rates that tiers had, while a bucket of theirs may lack tokens.
    removed: Vec<RemovedRate>,
    /// Greatest number that a limit has had. None is used again, so that tokens go back to no bucket of another tier.
    issued: u32,
    /// Revision of the rates of clients.
    pub(super) revision: Revision,
    /// Number of the global bucket, or of its absence. A bucket at another rate has the number of its predecessor, whose
    /// missing tokens it has; a fresh one has a number of its own.
    pub(super) global_number: u64,
}

/// A rate that a tier had. A tier that gets a rate again finds its buckets with the tokens that are missing: otherwise each
/// removal would refill them.
#[derive(Clone)]
struct RemovedRate {
    tier: Tier,
    limit: Arc<RateLimit>,
    /// Time from which on no bucket of the rate is stored.
    ends: u64,
}

impl RateLimit {
    fn new(
        number: u32,
        rate: Rate,
        burst: u64,
        context: &PolicyContext,
        config: &TokenBucketConfig,
        policy: &Weak<TokenBucketPolicy>,
    ) -> Self {
        let dialect = config.clients.dialect;
        let advertised = |(place, rate): (usize, &Rate)| AdvertisedLimit {
            name: context.name.numbered(place + 1),
            quota: rate.capacity(),
            window: Some(Duration::from_nanos(rate.window_ns())),
            unit: None,
        };
        let all: Vec<_> = std::iter::once(&rate).chain(&config.further).enumerate().map(advertised).collect();
        let mut fields = Fields::for_limits(dialect, &all);
        let limit = |rate: Rate, fields, burst: u64, further| Self {
            rate,
            fields: Arc::new(fields),
            clock: context.clock.clone(),
            reports: dialect != Dialect::None,
            number,
            policy: Weak::clone(policy),
            burst: burst.max(rate.capacity()),
            kept: rate.kept_ns(),
            global_number: 0,
            further,
        };
        let further = config.further.iter().zip(fields.split_off(1));
        let further = further.map(|(rate, fields)| Arc::new(limit(*rate, fields, 0, Box::default()))).collect();
        limit(rate, fields.swap_remove(0), burst, further)
    }

    /// Returns the same limit for requests that take from the global bucket with this number.
    fn with_global_number(&self, global_number: u64) -> Self {
        let further = self.further.iter().map(|limit| Arc::new(limit.with_global_number(global_number))).collect();
        Self { global_number, further, ..self.clone() }
    }

    /// Returns what the keys of a client's buckets are made of.
    #[inline]
    #[allow(clippy::cast_possible_truncation)] // the first half of the digest
    pub(super) fn tag(client: &Client) -> u64 {
        client.digest().0 as u64
    }

    /// Returns the key of the client's bucket under this limit. A client in several tiers has a bucket under the limit of
    /// each.
    #[inline]
    pub(super) fn key(&self, tag: u64) -> u64 {
        // The golden ratio spreads small numbers over all bits. The usual limit has the number 0.
        tag ^ u64::from(self.number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Returns the time at which a stored bucket is full.
    #[inline]
    pub(super) fn full_at(&self, bucket: Bucket, now: Moment) -> u64 {
        if bucket.limit == UNKNOWN {
            return bucket.until.max(gcra::newcomer(&self.rate, now));
        }
        bucket.until.saturating_sub(self.kept)
    }

    /// Returns the stored form of a bucket that is full at `full_at`.
    #[inline]
    pub(super) fn bucket(&self, full_at: u64) -> Bucket {
        Bucket { until: full_at.saturating_add(self.kept), limit: self.number }
    }

    /// Returns the change of this rate to another.
    fn change_to(&self, to: Rate, at: Moment) -> RateChange {
        RateChange { limit: self.number, from: self.rate, to, burst: self.burst, at }
    }

    /// Returns the time until which a bucket that was emptied at `now` is stored.
    fn ends(&self, now: Moment) -> u64 {
        let fills = self.rate.interval_ns().saturating_mul(self.burst);
        now.as_nanos().saturating_add(fills).saturating_add(self.kept)
    }

    /// Returns the time for which the remaining tokens suffice at the full rate; without any, the time until the next one.
    pub(super) fn reset(&self, level: &Level) -> Duration {
        match level.remaining {
            0 => (level.full_in + self.rate.interval()).saturating_sub(self.rate.span()),
            _ => self.rate.span().saturating_sub(level.full_in),
        }
    }

    /// Returns the order in which buckets are near to a refusal: by fewest tokens, and by longest reset if they have the
    /// same number.
    pub(super) fn nearness(&self, level: &Level) -> (u64, Reverse<Duration>) {
        (level.remaining, Reverse(self.reset(level)))
    }
}

impl Limits {
    pub(super) fn new(config: &TokenBucketConfig, context: &PolicyContext, policy: &Weak<TokenBucketPolicy>) -> Self {
        let mut numbers = 0..;
        let mut limit = |rate: &Rate| {
            let number = numbers.next().unwrap_or(UNKNOWN);
            Arc::new(RateLimit::new(number, *rate, 0, context, config, policy))
        };
        let (by_tier, overflow) = (config.rates.map(&mut limit), config.overflow.as_ref().map(&mut limit));
        let buckets = || ClientBuckets::new(config.clients.most);
        let further = config.further.iter().map(|_| FurtherBuckets::new(buckets())).collect();
        let global = config.global.map(|rate| Arc::new(GlobalBucket::new(rate)));
        let others = OtherLimits { further, global }.if_any();
        let (issued, revision) = (numbers.next().unwrap_or(UNKNOWN) - 1, Revision::default());
        Self { by_tier, overflow, others, removed: Vec::new(), issued, revision, global_number: 0 }
    }

    /// Returns the buckets of each further rate, in the order of [`RateLimit::further`].
    pub(super) fn further(&self) -> impl Iterator<Item = &FurtherBuckets> {
        self.others.iter().flat_map(|others| &*others.further)
    }

    /// Returns the limit of the bucket that all newcomers share while the table is full.
    pub(super) fn overflow(&self) -> &RateLimit {
        self.overflow.as_ref().unwrap_or_else(|| self.by_tier.of(None))
    }

    /// Returns the same rates with another one for a tier, or with another usual one.
    pub(super) fn with_rate(&self, tier: Option<Tier>, to: Rate, policy: &TokenBucketPolicy) -> Self {
        let TokenBucketPolicy { context, config, .. } = policy;
        let now = context.clock.now();
        let mut limits = self.clone();
        limits.forget_removed(now);
        let removed = limits.removed.iter().position(|removed| Some(&removed.tier) == tier.as_ref());
        let removed = removed.map(|place| limits.removed.swap_remove(place).limit);
        let (number, burst) = if let Some(old) = self.by_tier.get(tier.as_ref()).or(removed.as_ref()) {
            limits.revision = self.revision.after(old.change_to(to, now));
            (old.number, old.burst)
        } else {
            limits.issued = (self.issued + 1).min(UNKNOWN - 1);
            (limits.issued, 0)
        };
        let limit = RateLimit::new(number, to, burst, context, config, policy.itself());
        limits.by_tier.set(tier, Arc::new(limit.with_global_number(self.global_number)));
        limits
    }

    /// Returns the same rates without that of a tier; `None` if it has none.
    pub(super) fn without_rate(&self, tier: &Tier, now: Moment) -> Option<Self> {
        let limit = Arc::clone(self.by_tier.get(Some(tier))?);
        let mut limits = self.clone();
        limits.by_tier.remove(tier);
        // It changes no bucket: it turns away callers that have read the rate and have not taken their tokens yet.
        limits.revision = self.revision.after(limit.change_to(limit.rate, now));
        limits.forget_removed(now);
        limits.removed.push(RemovedRate { tier: tier.clone(), ends: limit.ends(now), limit });
        Some(limits)
    }

    /// Forgets removed rates whose buckets are all full.
    fn forget_removed(&mut self, now: Moment) {
        self.removed.retain(|removed| removed.ends > now.as_nanos());
    }

    /// Returns the limit of clients with this number, in force or removed.
    pub(super) fn numbered(&self, number: u32) -> Option<&RateLimit> {
        let removed = self.removed.iter().map(|removed| &removed.limit);
        self.by_tier.values().chain(removed).find(|limit| limit.number == number).map(|limit| &**limit)
    }

    /// Returns the same rates with another global one, whose bucket has the same missing tokens.
    pub(super) fn with_global(&self, rate: Option<Rate>, now: Moment) -> Self {
        let OtherLimits { further, global: old } = self.others.clone().unwrap_or_default();
        let bucket = |rate| match &old {
            Some(old) => old.at_rate(rate, now),
            None => GlobalBucket::new(rate),
        };
        let global = rate.map(|rate| Arc::new(bucket(rate)));
        let mut limits = self.clone();
        if old.is_some() != global.is_some() {
            limits.global_number += 1;
            limits.by_tier = self.by_tier.map(|limit| Arc::new(limit.with_global_number(limits.global_number)));
        }
        limits.others = OtherLimits { further, global }.if_any();
        limits
    }

    /// Returns the global bucket, if there is one.
    pub(super) fn global(&self) -> Option<&GlobalBucket> {
        self.others.as_ref()?.global.as_deref()
    }
}

#[cfg(all(test, not(tollgate_loom)))]
mod tests {
    use crate::{
        cost::Cost,
        identity::Client,
        time::FakeClock,
        token_bucket::{decision::Demand, layer::TokenBucketLayer, rate::Rate, rates::RateLimit, table::TableError},
    };

    #[test]
    fn rates_read_before_a_removal_take_no_token() {
        let layer = TokenBucketLayer::new(Rate::per_second(1)).rate_for("pro", Rate::per_second(9));
        let buckets = layer.clock(FakeClock::new()).handle();
        let alice = Client::named("alice").with_tier("pro");
        buckets.check(&alice, Cost::ONE).unwrap();
        let (table, before) = (&buckets.0.buckets.table, buckets.0.limits.present());
        let (limit, now) = (before.by_tier.of(alice.tier()), buckets.0.context.clock.now());
        let demand = Demand { tag: RateLimit::tag(&alice), cost: Cost::ONE, now, takes: true, others: None };
        let take = || {
            let decide = |bucket| demand.decide(limit, bucket);
            table.update(limit.key(demand.tag), now, &before.revision, decide).map(|decision| decision.is_ok())
        };
        assert_eq!(take(), Ok(true));
        assert!(buckets.remove_tier_rate("pro"));
        assert_eq!(take(), Err(TableError::Stale));
        buckets.set_rate_for("pro", Rate::per_second(9));
        assert_eq!(buckets.peek(&alice).remaining, 7);
    }
}
