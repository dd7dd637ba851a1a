//! The decision: one client's bucket and the one of all, both or neither.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    gcra::{self, Decision, Level},
    rate::Rate,
    table::{Entry, Full, Table},
};
use super::{
    layer::TokenBucketConfig,
    permit::TokenBucketPermit,
    rates::{self, Limit, Rates, full_at},
};
use crate::{
    cost::Cost,
    gate::{Admit, ClientResolver, Event, MaybeFuture, PolicyContext},
    head::RequestHead,
    identity::{Client, Digest, Digester, Tier},
    refusal::{Dialect, Reason, Refusal},
    sync::HotSwap,
    time::Moment,
};

/// Policy of a [`TokenBucketLayer`](crate::TokenBucketLayer): its rates and buckets.
pub struct TokenBucketPolicy {
    pub(super) context: PolicyContext,
    config: TokenBucketConfig,
    rates: HotSwap<Rates>,
    table: Table,
    overflow: Mutex<Option<Entry>>,
    whom: ClientResolver,
}

/// Why nothing was taken.
enum No {
    /// The client's own bucket is too empty: so much of it is used.
    Own { wait: Duration, used: u64 },
    /// The bucket of all is too empty.
    Shared(Duration),
    /// A bucket holds less than the request costs; so much, if it is the client's own.
    Never(Option<u64>),
}

impl TokenBucketPolicy {
    pub(super) fn new(config: TokenBucketConfig, context: PolicyContext) -> Self {
        let TokenBucketConfig { rate, ref tiers, global, overflow, dialect, max_clients, .. } = config;
        let rates = Rates::new(&context, dialect, rate, tiers, global, overflow);
        Self {
            rates: HotSwap::new(rates),
            table: Table::new(max_clients),
            overflow: Mutex::new(None),
            whom: ClientResolver::new(Arc::clone(&config.identify), config.on_unidentified),
            config,
            context,
        }
    }

    /// Takes `cost` from the client's bucket and from the one of all, or from neither. What there is to tell of its
    /// bucket only if somebody will be `told`, and the table had room for it.
    #[inline]
    pub(super) fn take(
        &self,
        client: Digest,
        tier: Option<&Tier>,
        cost: Cost,
        told: bool,
    ) -> Result<TokenBucketPermit, Refusal> {
        let now = self.context.clock.now();
        let rates = self.rates.present();
        let limit = rates.of(tier);
        match self.table.update(client, now, |entry| self.decide(&rates, &limit.rate, entry, cost, now)) {
            Ok(Ok(full_at)) if told => Ok(TokenBucketPermit::telling(limit, full_at, now)),
            Ok(Ok(_)) => Ok(TokenBucketPermit::silent()),
            Ok(Err(no)) => Err(self.refuse(no, limit, cost)),
            Err(Full) => self.take_from_overflow(&rates, limit, cost, now),
        }
    }

    /// The table has no room: all newcomers share one bucket.
    #[cold]
    fn take_from_overflow(
        &self,
        rates: &Rates,
        limit: &Arc<Limit>,
        cost: Cost,
        now: Moment,
    ) -> Result<TokenBucketPermit, Refusal> {
        self.context.observers.emit(&Event::Overflow { policy: &self.context.name });
        if cost.get() > limit.rate.capacity() {
            return Err(self.refuse(No::Never(Some(limit.rate.capacity())), limit, cost));
        }
        let rate = rates.overflow();
        let mut entry = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        let (after, decision) = self.decide(rates, rate, *entry, cost, now);
        *entry = after;
        match decision {
            Ok(_) => Ok(TokenBucketPermit::silent()), // what a crowd has left is not told to one of them
            Err(No::Own { wait, .. }) => Err(self.refuse(No::Shared(wait), limit, cost)),
            // Fits the client's own bucket: it can pass when the table has room again.
            Err(No::Never(Some(_))) => Err(self.refuse(No::Shared(rate.span()), limit, cost)),
            Err(no) => Err(self.refuse(no, limit, cost)),
        }
    }

    /// Runs under the lock of the entry: look, take from all, write the entry.
    #[inline]
    fn decide(
        &self,
        rates: &Rates,
        rate: &Rate,
        entry: Option<Entry>,
        cost: Cost,
        now: Moment,
    ) -> (Option<Entry>, Result<Option<u64>, No>) {
        let before = entry.map(|entry| full_at(entry, rate, now));
        let decision = match gcra::decide(rate, before, cost, now) {
            Decision::Admitted { full_at } => self.take_global(rates, cost, now).map(|()| full_at),
            Decision::Refused { wait } => {
                let level = gcra::level(rate, before, now);
                let used = level.limit - level.remaining;
                both(rates, cost, wait, now).and_then(|wait| Err(No::Own { wait, used }))
            }
            Decision::TooLarge => Err(No::Never(Some(rate.capacity()))),
        };
        match decision {
            Ok(full_at) if cost != Cost::PREFLIGHT => (Some(rates::entry(full_at, rate)), Ok(Some(full_at))),
            decision => (seen(rate, entry, now), decision.map(|_| before)),
        }
    }

    #[inline]
    fn take_global(&self, rates: &Rates, cost: Cost, now: Moment) -> Result<(), No> {
        let Some(all) = &rates.global else { return Ok(()) };
        match all.cell.take(&all.rate, cost, now) {
            Decision::Admitted { .. } => Ok(()),
            Decision::Refused { wait } => Err(No::Shared(wait)),
            Decision::TooLarge => Err(No::Never(None)),
        }
    }

    #[cold]
    fn refuse(&self, no: No, limit: &Limit, cost: Cost) -> Refusal {
        let refusal = |reason| Refusal::new(reason, self.context.name.clone());
        let capacity = limit.rate.capacity();
        match no {
            No::Own { wait, used } => refusal(Reason::RateLimited)
                .with_limit(capacity, used)
                .with_retry_after(wait)
                .with_fields(Arc::clone(&limit.fields)),
            // Neither the limit nor the use of what all share is told: it would show others' traffic.
            No::Shared(wait) => refusal(Reason::Capacity).with_retry_after(wait),
            No::Never(own) => refusal(Reason::TooLarge).with_limit(own.unwrap_or(0), cost.get()),
        }
    }

    /// How full a client's bucket is, taking nothing.
    pub(super) fn look(&self, client: &Client) -> Level {
        let now = self.context.clock.now();
        let rates = self.rates.present();
        let limit = rates.of(client.tier());
        let full_at = self.table.peek(client.digest(), now).map(|entry| full_at(entry, &limit.rate, now));
        gcra::level(&limit.rate, full_at, now)
    }

    /// Puts `cost` back into the client's bucket and into the one of all, never beyond full.
    pub(super) fn give_back(&self, client: &Client, cost: Cost) {
        let now = self.context.clock.now();
        let rates = self.rates.present();
        let limit = rates.of(client.tier());
        let _ = self.table.update(client.digest(), now, |entry| {
            let rate = &limit.rate;
            let less = |old| rates::entry(gcra::give_back(rate, full_at(old, rate, now), cost, now), rate);
            (entry.map(less), ())
        });
        if let Some(all) = &rates.global {
            all.cell.give_back(&all.rate, cost, now);
        }
    }

    /// Replaces the usual rate, or that of a tier.
    pub(super) fn change_rate(&self, tier: Option<Tier>, rate: Rate) {
        self.rates.replace(|rates| rates.with(tier, rate, &self.context, self.config.dialect));
    }

    /// Replaces the rate of all clients together.
    pub(super) fn change_global(&self, global: Option<Rate>) {
        self.rates.replace(|rates| rates.with_global(global, self.context.clock.now()));
    }

    /// How full the bucket of all is, where there is one.
    pub(super) fn look_global(&self) -> Option<Level> {
        let now = self.context.clock.now();
        self.rates.present().global.as_ref().map(|all| all.cell.level(&all.rate, now))
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn digester(&self) -> &'static Digester {
        Digester::process()
    }
}

/// How long it takes until both buckets have enough, if the one that was asked first has after `first`: who waits so long
/// must not be refused by the other.
fn both(rates: &Rates, cost: Cost, first: Duration, now: Moment) -> Result<Duration, No> {
    match rates.global.as_ref().map(|all| all.cell.ask(&all.rate, cost, now)) {
        Some(Decision::Refused { wait }) => Ok(first.max(wait)),
        Some(Decision::TooLarge) => Err(No::Never(None)),
        Some(Decision::Admitted { .. }) | None => Ok(first),
    }
}

/// The entry of a client from whom nothing was taken: unchanged. A newcomer who starts with less than a full bucket is
/// noted, or it would be a newcomer for ever and its bucket would never fill.
fn seen(rate: &Rate, entry: Option<Entry>, now: Moment) -> Option<Entry> {
    entry.or_else(|| Some(rates::entry(gcra::newcomer(rate, now), rate)).filter(|entry| entry.full_at > now.as_nanos()))
}

impl Admit for TokenBucketPolicy {
    type Permit = TokenBucketPermit;

    fn admit(self: &Arc<Self>, request: &RequestHead<'_>) -> MaybeFuture<Result<TokenBucketPermit, Refusal>> {
        let told = self.config.dialect != Dialect::None;
        MaybeFuture::Ready(self.whom.charge(request, &self.context.name, &self.context.observers, |client| {
            let Some(client) = client else { return Ok(TokenBucketPermit::silent()) };
            let cost = self.config.cost.as_ref().map_or(Cost::ONE, |cost| cost(request));
            self.take(client.digest(), client.tier(), cost, told)
        }))
    }
}

impl fmt::Debug for TokenBucketPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenBucketPolicy").field("context", &self.context).finish_non_exhaustive()
    }
}
