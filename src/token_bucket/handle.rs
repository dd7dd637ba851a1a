//! Handle of the buckets, for callers without a request.

use std::{fmt, sync::Arc};

use super::{
    gcra::{self, Level},
    policy::TokenBucketPolicy,
    rate::Rate,
    rates::RateLimit,
    table::{Bucket, GlobalBucket, Revision},
};
use crate::{
    cost::Cost,
    gate::Event,
    identity::{Client, Digester, Tier},
    refusal::Refusal,
};

/// The buckets of a [`TokenBucketLayer`](crate::TokenBucketLayer), for callers without a request; clones share them.
///
/// ```
/// use tollgate::{Client, Cost, Rate, TokenBucketLayer};
///
/// let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(5)).handle();
/// let alice = Client::named("alice");
/// for _ in 0..5 {
///     buckets.check(&alice, Cost::ONE).unwrap();
/// }
/// let refusal = buckets.check(&alice, Cost::ONE).unwrap_err();
/// assert_eq!(refusal.retry_after_seconds(), Some(1));
/// ```
#[derive(Clone)]
pub struct TokenBuckets(pub(super) Arc<TokenBucketPolicy>);

impl TokenBuckets {
    /// Takes `cost` from the client's buckets and from the global one, or from none.
    ///
    /// [`Cost::PREFLIGHT`] takes nothing and is refused exactly if there is no whole token.
    ///
    /// # Errors
    /// The [`Refusal`], with the time until a retry can pass, or [`Reason::TooLarge`](crate::Reason::TooLarge) for a cost
    /// above the burst. A refusal changes nothing.
    pub fn check(&self, client: &Client, cost: Cost) -> Result<(), Refusal> {
        let TokenBucketPolicy { context, .. } = &*self.0;
        let taken = self.0.take(client, cost, self.0.context.clock.now(), |_, _, _| ());
        let client = Some(client);
        context.observers.emit(&match &taken {
            Ok(_) => Event::Admitted { policy: &context.name, client },
            Err(refusal) => Event::Refused { refusal, client, shadow: false },
        });
        taken.map(drop)
    }

    /// Returns the level of the client's bucket; takes nothing. With [several rates](crate::TokenBucketLayer::and_rate) it is
    /// that of the bucket with the fewest tokens.
    #[must_use]
    pub fn peek(&self, client: &Client) -> Level {
        let TokenBucketPolicy { context, buckets, .. } = &*self.0;
        let (now, tag) = (context.clock.now(), RateLimit::tag(client));
        let level = |limit: &RateLimit, bucket: Option<Bucket>| {
            gcra::level(&limit.rate, bucket.map(|bucket| limit.full_at(bucket, now)), now)
        };
        self.0.with_limits(|limits| {
            let limit = limits.by_tier.of(client.tier());
            let first = level(limit, buckets.table.peek(limit.key(tag), now, &limits.revision)?);
            let mut nearest = (limit.nearness(&first), first);
            for (limit, further) in limit.further.iter().zip(limits.further()) {
                let level = level(limit, further.buckets.table.peek(tag, now, &Revision::FIRST)?);
                let nearness = limit.nearness(&level);
                nearest = if nearness < nearest.0 { (nearness, level) } else { nearest };
            }
            Ok(nearest.1)
        })
    }

    /// Returns the level of the global bucket, if there is one; takes nothing.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(1)).and_global(Rate::per_second(100));
    /// assert_eq!(layer.handle().peek_global().unwrap().remaining, 100);
    /// ```
    #[must_use]
    pub fn peek_global(&self) -> Option<Level> {
        let now = self.0.context.clock.now();
        self.0.limits.present().global().map(|global| global.level(now))
    }

    /// Returns the rate in force of clients whose tier has none of its own.
    ///
    /// ```
    /// # use tollgate::{Rate, Tier, TokenBucketLayer};
    /// let buckets = TokenBucketLayer::new(Rate::per_second(50)).rate_for("pro", Rate::per_second(500)).handle();
    /// buckets.set_rate(Rate::per_second(20));
    /// assert_eq!(buckets.rate(), Rate::per_second(20));
    /// assert_eq!(buckets.tier_rates(), [(Tier::from("pro"), Rate::per_second(500))]);
    /// ```
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.0.limits.present().by_tier.of(None).rate
    }

    /// Returns the rates in force of tiers that have one of their own.
    #[must_use]
    pub fn tier_rates(&self) -> Vec<(Tier, Rate)> {
        let limits = self.0.limits.present();
        limits.by_tier.tiers().map(|(tier, limit)| (tier.clone(), limit.rate)).collect()
    }

    /// Returns the global rate in force, if there is one.
    #[must_use]
    pub fn global_rate(&self) -> Option<Rate> {
        self.0.limits.present().global().map(GlobalBucket::rate)
    }

    /// Gives `cost` back to the client's buckets and to the global one, up to full.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(5)).handle();
    /// let alice = Client::named("alice");
    /// buckets.check(&alice, Cost::new(3)).unwrap();
    /// buckets.give_back(&alice, Cost::new(2));
    /// assert_eq!(buckets.peek(&alice).remaining, 4);
    /// ```
    pub fn give_back(&self, client: &Client, cost: Cost) {
        let number = self.0.limits.present().by_tier.of(client.tier()).number;
        self.0.give_back(RateLimit::tag(client), number, cost, None);
    }

    /// Changes the rate of all clients whose tier has none of its own, from the next request on.
    ///
    /// Missing tokens stay missing: a change does not refill a bucket, and from now on tokens arrive at the new rate. A
    /// client that lacks more tokens than the new burst waits for all of them.
    ///
    /// The change is applied to each bucket: about 2 ms for 100,000 clients. Requests wait for no more than a small part of
    /// the table meanwhile.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, FakeClock, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).clock(FakeClock::new()).handle();
    /// let alice = Client::named("alice");
    /// buckets.check(&alice, Cost::new(10)).unwrap();
    /// buckets.set_rate(Rate::per_second(100));
    /// assert_eq!(buckets.peek(&alice).remaining, 90);
    /// assert_eq!(buckets.peek(&alice).full_in.as_millis(), 100);
    /// ```
    pub fn set_rate(&self, rate: Rate) {
        self.0.set_rate(None, rate);
    }

    /// Changes the rate of a tier, or gives it one of its own, from the next request on; see [`set_rate`](Self::set_rate).
    ///
    /// A tier without a rate of its own shares the usual one and its buckets. Its first own rate begins with fresh buckets,
    /// and one after a [removal](Self::remove_tier_rate) with those that it had.
    ///
    /// ```
    /// # use tollgate::{Client, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// buckets.set_rate_for("pro", Rate::per_second(100));
    /// assert_eq!(buckets.peek(&Client::named("alice").with_tier("pro")).limit, 100);
    /// ```
    pub fn set_rate_for(&self, tier: impl Into<Tier>, rate: Rate) {
        self.0.set_rate(Some(tier.into()), rate);
    }

    /// Removes the rate of a tier, whose clients have the usual rate from the next request on; returns whether there was
    /// one.
    ///
    /// These clients then take from their buckets of the usual rate. There only those tokens are missing that they have
    /// taken at the usual rate, such as with other keys that have no tier. Tokens that are missing in their buckets of the
    /// tier go on arriving at the removed rate. Those that are still missing when the tier gets a rate again stay missing,
    /// so that a removal refills no bucket.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, FakeClock, Rate, TokenBucketLayer};
    /// # let layer = TokenBucketLayer::new(Rate::per_second(1).burst(10)).clock(FakeClock::new());
    /// let buckets = layer.rate_for("pro", Rate::per_second(100)).handle();
    /// let alice = Client::named("alice").with_tier("pro");
    /// buckets.check(&alice, Cost::new(60)).unwrap();
    /// assert!(buckets.remove_tier_rate("pro"));
    /// assert_eq!(buckets.peek(&alice).remaining, 10);
    /// buckets.set_rate_for("pro", Rate::per_second(100));
    /// assert_eq!(buckets.peek(&alice).remaining, 40);
    /// assert!(!buckets.remove_tier_rate("gold"));
    /// ```
    pub fn remove_tier_rate(&self, tier: impl Into<Tier>) -> bool {
        self.0.remove_rate(&tier.into())
    }

    /// Changes the global rate of all clients together, or ends it.
    ///
    /// Missing tokens stay missing, except for requests that are being decided at this moment: they are charged under the
    /// old rate. A rate after none begins with a fresh bucket.
    ///
    /// ```
    /// # use tollgate::{Client, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// buckets.set_global(Some(Rate::per_second(1_000)));
    /// ```
    pub fn set_global(&self, rate: Option<Rate>) {
        self.0.limits.replace(|limits| limits.with_global(rate, self.0.context.clock.now()));
    }

    /// Evicts all clients whose buckets have been full for a second, and releases their memory.
    ///
    /// No call is needed: requests sweep in passing, so that a table with n clients is clean after little more than n
    /// requests. It never grows beyond [`max_clients`](Self::max_clients). But on a quiet server the memory of a flood
    /// takes as long as that to be released, and without requests it stays. A task evicts 100,000 clients in about 2 ms,
    /// and no request waits for more than a small part of the table:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let buckets = TokenBucketLayer::new(Rate::per_second(50)).handle();
    /// tokio::spawn(async move {
    ///     let mut minutes = tokio::time::interval(Duration::from_secs(60));
    ///     loop {
    ///         minutes.tick().await;
    ///         buckets.forget_idle();
    ///     }
    /// });
    /// # });
    /// ```
    pub fn forget_idle(&self) {
        let (now, limits) = (self.0.context.clock.now(), self.0.limits.present());
        self.0.buckets.table.sweep_all(now, &limits.revision);
        for further in limits.further() {
            further.buckets.table.sweep_all(now, &Revision::FIRST);
        }
    }

    /// Returns the number of clients whose bucket is not full, and of idle ones that are not
    /// [evicted](Self::forget_idle) yet. With [several
    /// rates](crate::TokenBucketLayer::and_rate), that of the rate with the most.
    #[must_use]
    pub fn live_clients(&self) -> usize {
        self.0.live_clients()
    }

    /// Returns the number of clients that can have a bucket at once.
    #[must_use]
    pub fn max_clients(&self) -> usize {
        self.0.buckets.table.capacity()
    }

    /// Returns the memory of the buckets, in bytes; it grows and shrinks with the number of clients.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1)).handle();
    /// assert!(buckets.allocated_bytes() < 2 << 20, "room for a million clients, and none yet");
    /// ```
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        let limits = self.0.limits.present();
        let further = limits.further().map(|further| further.buckets.table.allocated_bytes());
        self.0.buckets.table.allocated_bytes() + further.sum::<usize>()
    }

    /// Returns the digester that makes the clients of these buckets.
    ///
    /// ```
    /// # use tollgate::{Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// let session = buckets.digester().secret("session", b"s3cret");
    /// buckets.check(&session, Cost::ONE).unwrap();
    /// ```
    #[must_use]
    pub fn digester(&self) -> &Digester {
        Digester::process()
    }
}

impl fmt::Debug for TokenBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBuckets").field("name", &self.0.context.name).finish_non_exhaustive()
    }
}
