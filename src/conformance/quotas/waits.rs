//! Waits that refusals tell, beside random changes of plans, tiers, grants and the clock.

use std::{fmt::Write, time::Duration};

use super::{HOUR, Scene, wall};
use crate::{
    identity::Client,
    quota::{Amounts, Grant, OnExpiry, Plan, Quota, QuotaError, QuotaLayer, Quotas, ReservationError, ReservationId},
    refusal::Refusal,
    time::{FakeClock, Period},
};

const KINDS: [&str; 2] = ["queries", "rows"];

/// Numbers of histories and of their steps.
const HISTORIES: u64 = 200;
const STEPS: u32 = 24;

/// Reservations are lost after this time.
const TTL: Duration = Duration::from_secs(600);

/// Random histories of charges, reservations, late commits, records, credits, grants and resets, in which plans and
/// tiers change and the clock steps forward and back: whenever a refusal tells a wait, the same request is admitted
/// once the clock has advanced by it, and not 1 ms before, unless a reservation may be lost meanwhile.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::told_waits_are_true(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn told_waits_are_true(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let waits = told_waits(make, HISTORIES).await;
    assert!(waits > HISTORIES / 3, "refusals of {HISTORIES} histories told {waits} waits");
}

/// After a change of plan, a refusal counts on each grant as far as it will be left when the wait is over: what the usage
/// took of it under the old plan stays taken, if the store does not write refusals, and a grant that ends before takes
/// nothing over.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// quotas::waits_count_on_what_is_left_of_grants(async |layer: QuotaLayer, _: FakeClock| layer.handle()).await;
/// # });
/// ```
pub async fn waits_count_on_what_is_left_of_grants(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas) {
    let layer = |sizes, clock: &FakeClock| QuotaLayer::new(plan(sizes)).clock(clock.clone());
    // The day ends while the grant is partly used under the old plan.
    for asked in 10..15 {
        let clock = FakeClock::new();
        let scene = Scene::of(async |layer| make(layer, clock.clone()).await, layer([0, 5, 0, 0], &clock)).await;
        let Scene { quotas, alice, bob } = &scene;
        for client in [alice, bob] {
            quotas
                .grant(client, Grant::new("queries", 3, wall(&clock.clone().into()) + HOUR * 48))
                .await
                .expect("a grant");
            quotas.charge(client, ("queries", 7)).await.expect("a charge");
        }
        quotas.set_plan(plan([0, 10, 0, 0])).expect("a plan");
        let refusals = [
            quotas.check(alice, ("queries", asked)).await.expect_err("more than is left of the day"),
            quotas.charge(bob, ("queries", asked)).await.expect_err("more than is left of the day"),
        ];
        clock.advance(refusals.iter().find_map(Refusal::retry_after).unwrap_or(HOUR * 24));
        let passes = [
            quotas.check(alice, ("queries", asked)).await.is_ok(),
            quotas.check(bob, ("queries", asked)).await.is_ok(),
        ];
        assert_eq!(passes, refusals.map(|refusal| refusal.retry_after().is_some()), "{asked} queries");
    }
    // The first grant ends within the day, and only then the hour of the other limit.
    let clock = FakeClock::new();
    let limits = |queries| plan([0, queries, 0, 0]).limit(Quota::units("rows", 1).per(Period::hour()).named("rows"));
    let layer = QuotaLayer::new(limits(10)).clock(clock.clone());
    let scene = Scene::of(async |layer| make(layer, clock.clone()).await, layer).await;
    let Scene { quotas, alice, bob } = &scene;
    for client in [alice, bob] {
        for until in [HOUR / 2, HOUR * 48] {
            let grant = Grant::new("queries", 3, wall(&clock.clone().into()) + until);
            quotas.grant(client, grant).await.expect("a grant");
        }
        quotas.charge(client, [("queries", 9), ("rows", 1)]).await.expect("a charge");
    }
    quotas.set_plan(limits(8)).expect("a plan");
    for client in [alice, bob] {
        let asked = [("queries", 3), ("rows", 1)];
        let refused = match client == alice {
            true => quotas.check(client, asked).await,
            false => quotas.charge(client, asked).await,
        };
        let wait = refused.expect_err("no rows are left").retry_after().expect("a wait");
        let clock = clock.clone();
        clock.advance(wait);
        quotas.check(client, asked).await.unwrap_or_else(|refusal| panic!("after {wait:?}: {refusal:?}"));
        clock.set_back(wait);
    }
}

/// Runs this many histories and returns the number of waits that were told; see [`told_waits_are_true`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::{FakeClock, QuotaLayer, conformance::quotas};
/// let waits = quotas::told_waits(async |layer: QuotaLayer, _: FakeClock| layer.handle(), 1_000).await;
/// assert!(waits > 300);
/// # });
/// ```
pub async fn told_waits(make: impl AsyncFn(QuotaLayer, FakeClock) -> Quotas, histories: u64) -> u64 {
    let mut waits = 0;
    for (on_expiry, first) in [(OnExpiry::Return, 0), (OnExpiry::ChargeEstimate, 1)] {
        let clock = FakeClock::new();
        let layer = QuotaLayer::new(plan([9, 0, 20, 9])).tier_plan("pro", plan([0, 30, 0, 0]));
        let layer = layer.reservations_last(TTL).on_expiry(on_expiry).clock(clock.clone());
        let make = async |layer| make(layer, clock.clone()).await;
        let scene = Scene::of(make, layer).await;
        for seed in (first..histories).step_by(2) {
            let mut history = WaitHistory {
                quotas: &scene.quotas,
                clock: &clock,
                client: Client::named(format!("wait {seed}")),
                random: fastrand::Rng::with_seed(seed),
                open: Vec::new(),
                granted: false,
                waits: 0,
                log: format!("history {seed}, {on_expiry:?}:"),
            };
            for _ in 0..STEPS {
                history.step().await;
            }
            waits += history.waits;
        }
    }
    waits
}

/// A plan of these limits: an hour or a day of queries, a day from the first query, a day of rows. 0 stands for a missing
/// one.
fn plan(sizes: [u64; 4]) -> Plan {
    let periods = [Period::hour(), Period::day(), Period::rolling(HOUR * 24), Period::day()];
    let limits = sizes.into_iter().zip(periods).zip(["queries", "queries", "queries_long", "rows"]);
    limits.filter(|((size, _), _)| *size > 0).fold(Plan::new("waits"), |plan, ((size, period), name)| {
        let kind = if name == "rows" { "rows" } else { "queries" };
        plan.limit(Quota::units(kind, size).per(period).named(name))
    })
}

struct WaitHistory<'a> {
    quotas: &'a Quotas,
    clock: &'a FakeClock,
    client: Client,
    random: fastrand::Rng,
    open: Vec<ReservationId>,
    /// Whether a grant was made, without which a smaller limit holds once it is used up.
    granted: bool,
    /// Number of waits that were told.
    waits: u64,
    log: String,
}

impl WaitHistory<'_> {
    async fn step(&mut self) {
        let kind = KINDS[self.random.usize(..2)];
        match self.random.u8(..14) {
            0..=4 => self.ask().await,
            5 => self.close().await,
            6 => {
                let amounts = self.amounts();
                let _ = write!(self.log, " record {amounts:?};");
                self.quotas.record(&self.client, amounts).await.expect("a record");
            }
            7 => {
                let _ = write!(self.log, " reset {kind};");
                let reset = self.quotas.reset(&self.client, kind).await;
                self.is_done(reset);
            }
            8 => {
                let id = self.random.u64(..).to_string();
                let _ = write!(self.log, " credit {kind};");
                let credited = self.quotas.credit(&self.client, &id, kind, self.random.u64(1..9), "wait").await;
                self.is_done(credited);
            }
            9 => self.grant(kind).await,
            10 => {
                let tier = self.random.usize(..2);
                let random = &mut self.random;
                let mut sizes = [6, 12, 16, 9].map(|most| if random.u8(..3) > 0 { random.u64(1..most) } else { 0 });
                if tier == 0 {
                    [sizes[1], sizes[3]] = [12, 9].map(|most| random.u64(1..most)); // so that each kind is known
                }
                if sizes[0] > 0 {
                    sizes[1] = 0; // of the same name
                }
                let _ = write!(self.log, " plan {tier} {sizes:?};");
                match tier {
                    0 => self.quotas.set_plan(plan(sizes)),
                    _ => self.quotas.set_tier_plan("pro", plan(sizes)),
                }
                .expect("a plan");
                self.ask().await; // before a request is admitted under it
            }
            11 => {
                let back = Duration::from_millis(self.random.u64(1..7_200_000));
                let _ = write!(self.log, " back {back:?};");
                self.clock.set_back(back);
            }
            _ => {
                let on = [TTL, Duration::from_millis(1), HOUR, HOUR * 24][self.random.usize(..4)];
                let on = on.mul_f64(self.random.f64() + 0.5);
                let _ = write!(self.log, " on {on:?};");
                self.clock.advance(on);
            }
        }
    }

    fn amounts(&mut self) -> Amounts {
        let random = &mut self.random;
        let most = if random.u8(..3) > 0 { 9 } else { 18 }; // more than is usual is left with grants alone
        let amounts = KINDS.map(|kind| (random.u8(..4) > 0).then(|| (kind, random.u64(..most))));
        amounts.into_iter().flatten().collect()
    }

    /// Charges, reserves or checks an amount, in a tier or by name alone, and waits as a refusal tells.
    async fn ask(&mut self) {
        let (amounts, way) = (self.amounts(), self.random.u8(..3));
        let asked = [Some(0), Some(1), None][self.random.usize(..3)].filter(|_| way < 2);
        let client = match asked {
            Some(tier) => self.client.clone().with_tier(["free", "pro"][tier]),
            None => self.client.clone(),
        };
        let _ = write!(self.log, " ask {amounts:?} of {:?}, way {way};", client.tier());
        let Err(refusal) = self.once(&client, &amounts, way).await else {
            return;
        };
        let Some(wait) = refusal.retry_after() else {
            // Without a wait, the amount must be more than a limit has: nothing that passes makes room for it.
            let too_large = refusal.violations().iter().any(|one| {
                let asked = amounts.iter().find(|(kind, _)| **kind == one.kind).map_or(0, |(_, amount)| amount);
                asked.max(1) > one.limit
            });
            assert!(too_large || self.granted, "a refusal without a wait: {refusal:?}: {}", self.log);
            return;
        };
        let _ = write!(self.log, " wait {wait:?} for {:?};", refusal.violations());
        self.waits += 1;
        // No limit has room before, unless a reservation is lost meanwhile. A store may count in microseconds.
        let before = wait.saturating_sub(Duration::from_millis(1));
        if self.open.is_empty() && !before.is_zero() {
            self.clock.advance(before);
            let early = self.once(&client, &amounts, way).await;
            assert!(early.is_err(), "admitted before the told wait has passed: {}", self.log);
            self.clock.advance(wait - before);
        } else {
            self.clock.advance(wait);
        }
        if let Err(again) = self.once(&client, &amounts, way).await {
            panic!("refused after the told wait: {again:?}: {}", self.log);
        }
    }

    async fn once(&mut self, client: &Client, amounts: &Amounts, way: u8) -> Result<(), Refusal> {
        match way {
            0 => self.quotas.charge(client, amounts.clone()).await?,
            1 => self.open.push(self.quotas.reserve(client, amounts.clone()).await?.detach()),
            _ => self.quotas.check(client, amounts.clone()).await?,
        }
        Ok(())
    }

    /// Commits a reservation with less or more than its estimate, or rolls it back, in time or late.
    async fn close(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let id = self.open.swap_remove(self.random.usize(..self.open.len()));
        let (amounts, commit) = (self.amounts(), self.random.u8(..3) > 0);
        let _ = write!(self.log, " close {:?};", commit.then_some(&amounts));
        let closed = match commit {
            true => self.quotas.commit(&id, amounts).await,
            false => self.quotas.roll_back(&id).await,
        };
        // A store may forget what was closed long ago.
        assert!(matches!(closed, Ok(_) | Err(ReservationError::Unknown)), "{closed:?}: {}", self.log);
    }

    async fn grant(&mut self, kind: &str) {
        let until = wall(&self.clock.clone().into()) + HOUR * self.random.u32(1..40);
        let amount = self.random.u64(1..6);
        let _ = write!(self.log, " grant {amount} {kind};");
        let granted = self.quotas.grant(&self.client, Grant::new(kind, amount, until)).await;
        self.granted |= granted.is_ok();
        self.is_done(granted);
    }

    /// Checks that an operation is done, or that its client or its kind has no limit yet.
    fn is_done<T: std::fmt::Debug>(&self, done: Result<T, QuotaError>) {
        let expected = matches!(done, Ok(_) | Err(QuotaError::UnknownAccount | QuotaError::Invalid(_)));
        assert!(expected, "{done:?}: {}", self.log);
    }
}
