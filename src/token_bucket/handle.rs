//! The same buckets outside http.

use std::{fmt, sync::Arc};

use super::policy::TokenBucketPolicy;
use super::{gcra::Level, rate::Rate};
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
pub struct TokenBuckets(Arc<TokenBucketPolicy>);

impl TokenBuckets {
    pub(super) fn new(buckets: Arc<TokenBucketPolicy>) -> Self {
        Self(buckets)
    }

    /// Takes `cost` from the client's bucket and from the one of all clients, or from neither.
    ///
    /// [`Cost::PREFLIGHT`] takes nothing and is refused exactly when no whole token is left.
    ///
    /// # Errors
    /// The [`Refusal`], which says when to come back. A refusal changes nothing.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, Reason, TokenBucketLayer};
    /// let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(5)).handle();
    /// let refusal = buckets.check(&Client::named("alice"), Cost::new(6)).unwrap_err();
    /// assert_eq!(refusal.reason(), Reason::TooLarge);
    /// ```
    pub fn check(&self, client: &Client, cost: Cost) -> Result<(), Refusal> {
        let TokenBucketPolicy { context, .. } = &*self.0;
        match self.0.take(client.digest(), client.tier(), cost, false) {
            Ok(_) => {
                context.observers.emit(&Event::Admitted { policy: &context.name, client: Some(client) });
                Ok(())
            }
            Err(refusal) => {
                context.observers.emit(&Event::Refused { refusal: &refusal, client: Some(client), shadow: false });
                Err(refusal)
            }
        }
    }

    /// How full the client's bucket is; takes nothing.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(5)).handle();
    /// assert_eq!(buckets.peek(&Client::named("alice")).remaining, 5);
    /// ```
    #[must_use]
    pub fn peek(&self, client: &Client) -> Level {
        self.0.look(client)
    }

    /// How full the bucket of all clients is, where there is one; takes nothing.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// let layer = TokenBucketLayer::new(Rate::per_second(1)).and_global(Rate::per_second(100));
    /// assert_eq!(layer.handle().peek_global().unwrap().remaining, 100);
    /// ```
    #[must_use]
    pub fn peek_global(&self) -> Option<Level> {
        self.0.look_global()
    }

    /// Puts `cost` back into the client's bucket and into the one of all clients, never beyond full.
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
        self.0.give_back(client, cost);
    }

    /// Changes the rate of all clients whose tier has none of its own, from the next request on.
    ///
    /// What is missing in a bucket stays missing in proportion: nobody gets a fresh bucket, nobody stays punished by the
    /// old rate.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, FakeClock, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).clock(FakeClock::new()).handle();
    /// let alice = Client::named("alice");
    /// buckets.check(&alice, Cost::new(10)).unwrap();
    /// buckets.set_rate(Rate::per_second(100));
    /// assert_eq!(buckets.peek(&alice).remaining, 0);
    /// assert_eq!(buckets.check(&alice, Cost::ONE).unwrap_err().retry_after().unwrap().as_millis(), 10);
    /// ```
    pub fn set_rate(&self, rate: Rate) {
        self.0.change_rate(None, rate);
    }

    /// Changes the rate of a tier, or gives it one of its own, from the next request on.
    ///
    /// ```
    /// # use tollgate::{Client, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// buckets.set_rate_for("pro", Rate::per_second(100));
    /// assert_eq!(buckets.peek(&Client::named("alice").with_tier("pro")).limit, 100);
    /// ```
    pub fn set_rate_for(&self, tier: impl Into<Tier>, rate: Rate) {
        self.0.change_rate(Some(tier.into()), rate);
    }

    /// Changes the rate of all clients together, or ends it.
    ///
    /// What is missing stays missing in proportion, but for requests that are being decided at this very moment: they
    /// are charged under the old rate. A rate after none begins with a fresh bucket.
    ///
    /// ```
    /// # use tollgate::{Client, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// buckets.set_global(Some(Rate::per_second(1_000)));
    /// ```
    pub fn set_global(&self, rate: Option<Rate>) {
        self.0.change_global(rate);
    }

    /// Forgets all clients whose buckets have been full for a second, and gives their memory back.
    ///
    /// Nobody needs to call it: requests that come by sweep as they go, so that a table with n clients is clean after
    /// little more than n requests, and it never grows beyond [`max_clients`](Self::max_clients). But on a quiet server
    /// the memory of a flood takes as long as that to go back, and without requests it stays. A task does it in some two
    /// milliseconds for each hundred thousand clients, and no request waits for more than a small part of the table:
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
        self.0.table().sweep_all(self.0.context.clock.now());
    }

    /// How many clients have a bucket that is not full, and idle ones that are not [forgotten](Self::forget_idle) yet.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// buckets.check(&Client::named("alice"), Cost::ONE).unwrap();
    /// assert_eq!(buckets.live_clients(), 1);
    /// ```
    #[must_use]
    pub fn live_clients(&self) -> usize {
        self.0.table().live()
    }

    /// How many clients could have a bucket at once.
    ///
    /// ```
    /// # use tollgate::{Rate, TokenBucketLayer};
    /// let buckets = TokenBucketLayer::new(Rate::per_second(1)).max_clients(10_000).handle();
    /// assert!(buckets.max_clients() >= 10_000);
    /// ```
    #[must_use]
    pub fn max_clients(&self) -> usize {
        self.0.table().capacity()
    }

    /// How many bytes the buckets take; it grows and shrinks with the clients that are there.
    ///
    /// ```
    /// # use tollgate::{Client, Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1)).handle();
    /// assert!(buckets.allocated_bytes() < 2 << 20, "a million places, and nobody there");
    /// ```
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.0.table().allocated_bytes()
    }

    /// What these buckets make clients with.
    ///
    /// ```
    /// # use tollgate::{Cost, Rate, TokenBucketLayer};
    /// # let buckets = TokenBucketLayer::new(Rate::per_second(1).burst(10)).handle();
    /// let session = buckets.digester().secret("session", b"s3cret");
    /// buckets.check(&session, Cost::ONE).unwrap();
    /// ```
    #[must_use]
    pub fn digester(&self) -> &Digester {
        self.0.digester()
    }
}

impl fmt::Debug for TokenBuckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBuckets").field("name", &self.0.context.name).finish_non_exhaustive()
    }
}
