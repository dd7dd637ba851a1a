//! Several rates decided as one, and tokens that go back after a refusal further in.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use tollgate::{
    Admit, CircuitBreakerLayer, Client, Cost, Event, FakeClock, GateLayer, MaybeFuture, PolicyName, Rate, Reason,
    Refusal, RequestHead, TokenBucketLayer, Trip,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{from, hello, support::gate::Log};

#[test]
fn refused_by_the_second_rate_takes_nothing_from_the_first() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_hour(100)).and_rate(Rate::per_second(1)).clock(clock.clone());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    assert_eq!((0..150).filter(|_| buckets.check(&alice, Cost::ONE).is_ok()).count(), 1);
    assert_eq!(buckets.peek(&alice).limit, 1, "the rate with the fewest tokens");
    clock.advance(Duration::from_secs(1));
    assert_eq!((0..150).filter(|_| buckets.check(&alice, Cost::ONE).is_ok()).count(), 1);
    for _ in 2..100 {
        clock.advance(Duration::from_secs(1));
        buckets.check(&alice, Cost::ONE).unwrap();
    }
    clock.advance(Duration::from_secs(1));
    let refusal = buckets.check(&alice, Cost::ONE);
    assert!(refusal.is_ok(), "99 s brought two tokens of 36 s");
}

#[test]
fn further_rate_is_the_same_for_all_tiers() {
    let layer = TokenBucketLayer::new(Rate::per_second(10))
        .rate_for("pro", Rate::per_second(100))
        .and_rate(Rate::per_hour(15))
        .clock(FakeClock::new());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    let pro = alice.clone().with_tier("pro");
    assert_eq!((0..20).filter(|_| buckets.check(&alice, Cost::ONE).is_ok()).count(), 10);
    assert_eq!((0..20).filter(|_| buckets.check(&pro, Cost::ONE).is_ok()).count(), 5);
    let refusal = buckets.check(&pro, Cost::ONE).unwrap_err();
    assert_eq!((refusal.reason(), refusal.limit()), (Reason::RateLimited, 15));
    buckets.give_back(&pro, Cost::new(3));
    assert_eq!(buckets.peek(&pro).remaining, 3);
}

/// An observer may use the handle: no lock is held while it runs.
#[test]
fn full_table_of_a_further_rate_shares_one_bucket() {
    let log = Log::default();
    let heard = log.clone();
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(10))
        .and_rate(Rate::per_hour(5))
        .max_clients(1)
        .clock(clock.clone())
        .observe(move |event: &Event<'_>| {
            if let Event::Overflow { .. } = event {
                heard.push("overflow");
            }
        });
    let buckets = layer.handle();
    buckets.check(&Client::named("first"), Cost::ONE).unwrap();
    clock.advance(Duration::from_secs(2)); // its bucket of the first rate is full, that of the second is not
    buckets.forget_idle();
    let late = |number: usize| buckets.check(&Client::named(format!("late {number}")), Cost::ONE);
    assert_eq!((0..5).filter(|_| late(1).is_ok()).count(), 5);
    assert_eq!(log.lines().len(), 5);
    assert_eq!(late(1).unwrap_err().reason(), Reason::Capacity);
}

fn any_rate() -> impl Strategy<Value = Rate> {
    (1_u64..2_000, 1_u64..15).prop_map(|(ms, burst)| Rate::every(Duration::from_millis(ms)).burst(burst))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Three rates at once admit what each alone would admit, and a client that waits as it is told passes.
    #[test]
    fn several_rates_agree_with_layers_of_their_own(
        rates in prop::array::uniform3(any_rate()), asks in prop::collection::vec((0_u64..3_000, 1_u64..6), 1..60),
    ) {
        let clock = FakeClock::new();
        let alone = rates.map(|rate| TokenBucketLayer::new(rate).clock(clock.clone()).handle());
        let [first, second, third] = rates;
        let layer = TokenBucketLayer::new(first).and_rate(second).and_rate(third).clock(clock.clone());
        let (buckets, alice) = (layer.handle(), Client::named("alice"));
        for (pause, cost) in asks {
            clock.advance(Duration::from_millis(pause));
            let fits = alone.iter().all(|own| own.peek(&alice).remaining >= cost);
            let cost = Cost::new(cost);
            match buckets.check(&alice, cost) {
                Ok(()) => {
                    prop_assert!(fits);
                    alone.iter().for_each(|own| own.check(&alice, cost).unwrap());
                }
                Err(refusal) => {
                    prop_assert!(!fits);
                    let Some(wait) = refusal.retry_after() else { continue };
                    clock.advance(wait - Duration::from_nanos(1));
                    prop_assert!(buckets.check(&alice, cost).is_err());
                    clock.advance(Duration::from_nanos(1));
                    prop_assert_eq!(buckets.check(&alice, cost), Ok(()));
                    alone.iter().for_each(|own| own.check(&alice, cost).unwrap());
                }
            }
            let least = alone.iter().map(|own| own.peek(&alice).remaining).min();
            prop_assert_eq!(Some(buckets.peek(&alice).remaining), least);
        }
    }
}

/// Refuses every request for one reason.
struct Refuses(Reason);

impl Admit for Refuses {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Err(Refusal::new(self.0, PolicyName::try_new("inner").unwrap())))
    }
}

/// Returns the tokens of the client and of all clients that are gone after a refusal further in.
async fn spent(layer: TokenBucketLayer, reason: Reason) -> (u64, u64) {
    let layer = layer.and_rate(Rate::per_hour(90)).and_global(Rate::per_hour(80)).clock(FakeClock::new());
    let service = layer.layer(GateLayer::new(Refuses(reason)).layer(service_fn(hello)));
    service.oneshot(from("192.0.2.1:1")).await.unwrap();
    let buckets = layer.handle();
    let digester = buckets.digester();
    let request = from("192.0.2.1:1");
    let client = tollgate::Identify::identify(&tollgate::PeerIp::new(), &RequestHead::of(&request), digester).unwrap();
    (90 - buckets.peek(&client).remaining, 80 - buckets.peek_global().unwrap().remaining)
}

#[tokio::test]
async fn tokens_go_back_for_what_is_not_the_clients_doing() {
    for reason in [Reason::CircuitOpen, Reason::Capacity, Reason::Unavailable] {
        assert_eq!(spent(TokenBucketLayer::new(Rate::per_hour(100)), reason).await, (0, 0), "{reason:?}");
    }
    for reason in [Reason::RateLimited, Reason::Unidentified, Reason::DuplicateJob, Reason::Indeterminate] {
        assert_eq!(spent(TokenBucketLayer::new(Rate::per_hour(100)), reason).await, (1, 1), "{reason:?}");
    }
    let own = TokenBucketLayer::new(Rate::per_hour(100)).refund_on(|reason| reason == Reason::RateLimited);
    assert_eq!(spent(own.clone(), Reason::RateLimited).await, (0, 0));
    assert_eq!(spent(own, Reason::CircuitOpen).await, (1, 1));
}

#[tokio::test]
async fn tokens_stay_spent_if_the_refund_setting_panics() {
    let broken = TokenBucketLayer::new(Rate::per_hour(100)).refund_on(|_| panic!("broken"));
    assert_eq!(spent(broken, Reason::CircuitOpen).await, (1, 1));
}

#[tokio::test]
async fn open_circuit_further_in_empties_no_bucket() {
    let limit = TokenBucketLayer::new(Rate::per_hour(100)).clock(FakeClock::new());
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1)).clock(FakeClock::new());
    breaker.handle().force_open();
    let service = limit.layer(breaker.layer(service_fn(hello)));
    for _ in 0..150 {
        let refused = service.clone().oneshot(from("192.0.2.1:1")).await.unwrap();
        assert_eq!((refused.status().as_u16(), limit.handle().live_clients()), (503, 1));
    }
}

#[tokio::test]
async fn refunded_token_raises_no_retry_after() {
    let clock = FakeClock::new();
    let breaker = CircuitBreakerLayer::for_server().clock(clock.clone());
    breaker.handle().force_open();
    let bucket = TokenBucketLayer::new(Rate::per_hour(1)).clock(clock);
    let service = bucket.layer(breaker.layer(service_fn(hello)));
    let response = service.oneshot(from("203.0.113.9:1")).await.unwrap();
    assert_eq!(response.status(), 503);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(seconds <= 12, "the circuit's, not the hour of the token that went back: {seconds}");
    assert!(response.headers()["ratelimit"].to_str().unwrap().contains(";r=1"), "{:?}", response.headers());
}

#[tokio::test]
async fn tokens_of_the_shared_bucket_stay_spent_unreported() {
    let layer = TokenBucketLayer::new(Rate::per_hour(100)).overflow(Rate::per_hour(3)).max_clients(1);
    let layer = layer.clock(FakeClock::new());
    let service = layer.layer(GateLayer::new(Refuses(Reason::CircuitOpen)).layer(service_fn(hello)));
    layer.handle().check(&Client::named("alice"), Cost::ONE).unwrap();
    for n in 0..5 {
        let response = service.clone().oneshot(from("192.0.2.1:1")).await.unwrap();
        let refusal = response.extensions().get::<Refusal>().unwrap();
        assert_eq!(refusal.policy().as_str(), if n < 3 { "inner" } else { "default" });
        assert_eq!(response.headers().get("ratelimit"), None);
    }
}

#[test]
fn gauges_cover_the_tables_of_all_rates() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(50)).and_rate(Rate::per_hour(10)).clock(clock.clone());
    let buckets = layer.handle();
    for name in 0..100 {
        buckets.check(&Client::named(format!("client-{name}")), Cost::ONE).unwrap();
    }
    clock.advance(Duration::from_secs(10));
    buckets.forget_idle();
    assert_eq!(buckets.live_clients(), 100, "the hourly buckets are not full yet");
    let one = TokenBucketLayer::new(Rate::per_second(50)).clock(clock).handle();
    assert!(buckets.allocated_bytes() > one.allocated_bytes());
}
