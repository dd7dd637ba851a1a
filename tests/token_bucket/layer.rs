//! Token buckets through the public API: a tower stack, an axum router and the handle.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use proptest::prelude::*;
use tollgate::{Client, Cost, Event, FakeClock, Rate, Reason, Refusal, Tier, TokenBucketLayer, refusal};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    ask, field, from,
    support::gate::{Log, get as request},
};

#[tokio::test]
async fn burst_of_five_passes_and_the_sixth_waits() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5)).clock(clock.clone());
    for left in (0..5).rev() {
        let admitted = ask(&layer, from("192.0.2.1:1000")).await;
        assert_eq!(admitted.status(), StatusCode::OK);
        assert_eq!(field(&admitted, "ratelimit-policy"), Some("\"default\";q=5;w=5"));
        let reset = left.max(1); // none left: the next comes in a second
        assert_eq!(field(&admitted, "ratelimit").unwrap(), format!("\"default\";r={left};t={reset}"));
    }
    let refused = ask(&layer, from("192.0.2.1:1001")).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(&refused, "retry-after"), Some("1"));
    assert_eq!(field(&refused, "ratelimit"), Some("\"default\";r=0;t=1"));
    assert_eq!(field(&refused, "content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(problem["status"], 429);
    assert_eq!(problem["violated-policies"], serde_json::json!(["default"]));
    assert_eq!(refused.extensions().get::<Refusal>().unwrap().reason(), Reason::RateLimited);
    assert_eq!(ask(&layer, from("192.0.2.2:1000")).await.status(), StatusCode::OK, "another client");

    clock.advance(Duration::from_secs(2));
    assert_eq!(ask(&layer, from("192.0.2.1:1002")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn three_routes_under_one_layer_share_one_budget() {
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).clock(FakeClock::new());
    let app = Router::new()
        .route("/a", get(|| async { "a" }))
        .route("/b", get(|| async { "b" }))
        .route("/c", get(|| async { "c" }))
        .layer(layer);
    let mut statuses = Vec::new();
    for path in ["/a", "/b", "/c", "/a", "/b", "/c"] {
        let mut request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        request.extensions_mut().insert("192.0.2.1:1000".parse::<SocketAddr>().unwrap());
        statuses.push(app.clone().oneshot(request).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429, 429, 429]);
}

#[tokio::test]
async fn handle_and_layer_share_buckets() {
    let layer = TokenBucketLayer::new(Rate::per_hour(2))
        .clock(FakeClock::new())
        .identify_by(|_: &tollgate::RequestHead<'_>, digester: &tollgate::Digester| Some(digester.named("alice")));
    let buckets = layer.handle();
    buckets.check(&Client::named("alice"), Cost::ONE).unwrap();
    assert_eq!(ask(&layer, request("/")).await.status(), 200);
    assert_eq!(ask(&layer, request("/")).await.status(), 429);
    let other = layer.fork().named("other");
    assert_eq!(ask(&other, request("/")).await.status(), 200, "a fork has a state of its own");
}

#[test]
fn capacity_refill_and_initial_tokens_are_independent() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5).initial_tokens(2)).clock(clock.clone());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    let passed = |n| (0..n).filter(|_| buckets.check(&alice, Cost::ONE).is_ok()).count();
    assert_eq!(passed(10), 2);
    clock.advance(Duration::from_secs(100));
    assert_eq!(passed(10), 2, "idle long after it was full, it was forgotten: a newcomer again");
    clock.advance(Duration::from_secs(4));
    assert_eq!(passed(10), 4);
}

#[test]
fn newcomer_without_tokens_is_admitted_in_time() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5).initial_tokens(0)).clock(clock.clone());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    let refusal = buckets.check(&alice, Cost::ONE).unwrap_err();
    clock.advance(refusal.retry_after().unwrap());
    buckets.check(&alice, Cost::ONE).unwrap();
}

#[test]
fn both_buckets_are_charged_or_neither() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5))
        .and_global(Rate::per_second(1).burst(7))
        .clock(clock.clone());
    let buckets = layer.handle();
    let (alice, bob) = (Client::named("alice"), Client::named("bob"));
    buckets.check(&alice, Cost::new(5)).unwrap();
    for _ in 0..3 {
        let refusal = buckets.check(&bob, Cost::new(3)).unwrap_err();
        assert_eq!((refusal.reason(), refusal.retry_after_seconds()), (Reason::Capacity, Some(1)));
        assert_eq!((refusal.limit(), refusal.current()), (0, 0), "the shared capacity is not disclosed");
        assert_eq!(buckets.peek(&bob).remaining, 5, "the client's bucket was not charged");
    }
    assert_eq!(buckets.check(&alice, Cost::ONE).unwrap_err().reason(), Reason::RateLimited);
    buckets.check(&bob, Cost::new(2)).unwrap(); // the refusals took nothing from the global bucket either
    buckets.give_back(&bob, Cost::new(2));
    buckets.check(&bob, Cost::new(2)).unwrap();
    assert!(buckets.check(&bob, Cost::ONE).is_err());
    buckets.set_global(None);
    buckets.check(&bob, Cost::ONE).unwrap();
}

#[tokio::test]
async fn global_refusal_is_503_without_its_capacity() {
    let layer = TokenBucketLayer::new(Rate::per_second(5)).and_global(Rate::per_hour(1)).clock(FakeClock::new());
    assert_eq!(ask(&layer, from("192.0.2.1:1")).await.status(), 200);
    let refused = ask(&layer, from("192.0.2.2:1")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&refused, "retry-after"), Some("3600"));
    assert_eq!((field(&refused, "ratelimit"), field(&refused, "ratelimit-policy")), (None, None));
}

#[tokio::test]
async fn cost_above_the_burst_is_413_without_retry_after() {
    let layer = TokenBucketLayer::new(Rate::per_second(5).burst(2)).cost(|_| Cost::new(1_844_674_409));
    let refused = ask(&layer, from("192.0.2.1:1")).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(field(&refused, "retry-after"), None);
    let refusal = refused.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.limit(), refusal.current()), (2, 1_844_674_409));
    assert_eq!(layer.handle().live_clients(), 0);
}

#[test]
fn burst_admits_exactly_its_size() {
    let daily = Rate::per(1, Duration::from_secs(86_400));
    let buckets = TokenBucketLayer::new(daily.burst(50_000)).clock(FakeClock::new()).handle();
    let passed = (0..50_100).filter(|_| buckets.check(&Client::named("alice"), Cost::ONE).is_ok()).count();
    assert_eq!(passed, 50_000);
    let error = daily.try_burst(300_000).unwrap_err().to_string(); // takes 821 years to come back
    assert!(error.ends_with("got 300000 at one per 86400s"), "{error}");
}

#[test]
fn tier_has_its_own_rate_that_may_change() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(10))
        .rate_for("pro", Rate::per_second(100).burst(1_000))
        .clock(clock.clone());
    let buckets = layer.handle();
    let free = Client::named("alice");
    let pro = free.clone().with_tier("pro");
    buckets.check(&free, Cost::new(10)).unwrap();
    assert_eq!(buckets.peek(&pro).remaining, 1_000, "a bucket for each tier");
    buckets.check(&pro, Cost::new(10)).unwrap();

    buckets.set_rate_for("pro", Rate::per_second(1).burst(1));
    assert_eq!(buckets.check(&pro, Cost::ONE).unwrap_err().retry_after(), Some(Duration::from_secs(10)));
    assert_eq!(buckets.peek(&pro).limit, 1);
    buckets.set_rate(Rate::per_second(7));
    assert_eq!(buckets.peek(&free).limit, 7);
    assert_eq!(buckets.peek(&Client::named("bob").with_tier("unheard of")).limit, 7);
}

#[test]
fn concurrent_threads_admit_exactly_the_tokens() {
    for (own, global) in [(400, 1_000), (1_000, 400)] {
        let buckets = TokenBucketLayer::new(Rate::per_hour(own))
            .and_global(Rate::per_hour(global))
            .clock(FakeClock::new())
            .handle();
        let alice = Client::named("alice");
        let passed: usize = std::thread::scope(|scope| {
            let run = || (0..500).filter(|_| buckets.check(&alice, Cost::ONE).is_ok()).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 400);
    }
}

#[test]
fn invalid_settings_are_rejected_with_a_reason() {
    let zero = std::panic::catch_unwind(|| TokenBucketLayer::new(Rate::per_second(1)).max_clients(0));
    assert_eq!(zero.unwrap_err().downcast_ref::<String>().unwrap(), "max_clients must be from 1 to 2^32 - 1, got 0");
    let name = std::panic::catch_unwind(|| TokenBucketLayer::new(Rate::per_second(1)).named("a\r\nset-cookie: x"));
    assert!(name.unwrap_err().downcast_ref::<String>().unwrap().contains("\\r\\n"));
}

proptest! {
    #[test]
    fn waiting_retry_after_is_always_admitted(
        count in 1_u64..5_000, period in 1_u64..100_000_000_000, burst in 1_u64..50, steps in prop::collection::vec((0_u64..3_000_000_000, 1_u64..60), 1..60),
    ) {
        let Ok(rate) = Rate::try_per(count, Duration::from_nanos(period)).and_then(|rate| rate.try_burst(burst)) else { return Ok(()) };
        let clock = FakeClock::new();
        let layer = TokenBucketLayer::new(rate).clock(clock.clone()).cost(|request| {
            Cost::new(request.headers["x-cost"].to_str().unwrap().parse().unwrap())
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let ask = |cost: u64| {
            let mut request = from("192.0.2.1:1");
            request.headers_mut().insert("x-cost", cost.min(burst).into());
            runtime.block_on(ask(&layer, request))
        };
        for (pause, cost) in steps {
            clock.advance(Duration::from_nanos(pause));
            let answer = ask(cost);
            if answer.status() == 429 {
                let seconds: u64 = field(&answer, "retry-after").unwrap().parse().unwrap();
                prop_assert!(seconds >= 1);
                clock.advance(Duration::from_secs(seconds));
                prop_assert_eq!(ask(cost).status(), 200);
            }
        }
    }
}

#[test]
fn rates_in_force_are_those_that_were_set_last() {
    let layer = TokenBucketLayer::new(Rate::per_second(50)).rate_for("pro", Rate::per_second(500));
    let buckets = layer.and_global(Rate::per_second(5_000)).handle();
    assert_eq!((buckets.rate(), buckets.global_rate()), (Rate::per_second(50), Some(Rate::per_second(5_000))));
    assert_eq!(buckets.tier_rates(), [(Tier::from("pro"), Rate::per_second(500))]);

    buckets.set_rate(Rate::per_second(20));
    buckets.set_rate_for("pro", Rate::per_second(600));
    buckets.set_rate_for("free", Rate::per_second(1));
    buckets.set_global(None);
    assert_eq!((buckets.rate(), buckets.global_rate()), (Rate::per_second(20), None));
    let mut tiers = buckets.tier_rates();
    tiers.sort_by_key(|(_, rate)| rate.capacity());
    assert_eq!(tiers, [(Tier::from("free"), Rate::per_second(1)), (Tier::from("pro"), Rate::per_second(600))]);
}

#[tokio::test]
async fn refusal_of_an_outbound_handle_is_marked() {
    for outbound in [true, false] {
        let layer = TokenBucketLayer::new(Rate::per_hour(1)).clock(FakeClock::new());
        let layer = if outbound { layer.outbound() } else { layer };
        let seen = Log::default();
        let heard = seen.clone();
        let buckets = layer
            .observe(move |event: &Event<'_>| {
                if let Event::Refused { refusal, .. } = event {
                    heard.push(if refusal.is_outbound() { "outbound" } else { "own" });
                }
            })
            .handle();
        buckets.check(&Client::named("alice"), Cost::ONE).unwrap();
        let refusal = buckets.check(&Client::named("alice"), Cost::ONE).unwrap_err();
        assert_eq!(refusal.is_outbound(), outbound);
        assert_eq!(seen.lines(), [if outbound { "outbound" } else { "own" }]);
    }
}

#[tokio::test]
async fn answer_of_a_handler_that_asks_a_handle_is_charged() {
    let own = TokenBucketLayer::new(Rate::per_hour(1)).clock(FakeClock::new()).handle();
    own.check(&Client::named("db"), Cost::ONE).unwrap();
    let busy = own.check(&Client::named("db"), Cost::ONE).unwrap_err();
    let outer = TokenBucketLayer::new(Rate::per_hour(5)).clock(FakeClock::new()).refund_on(|_| true);
    let service = outer.layer(service_fn(move |_: Request<Full<Bytes>>| {
        let response = refusal::problem(&busy).map(Full::<Bytes>::from);
        async { Ok::<_, Infallible>(response) }
    }));
    for expected in [4, 3] {
        let response = service.clone().oneshot(from("192.0.2.1:1")).await.unwrap();
        let limit = response.headers()["ratelimit"].to_str().unwrap();
        assert!(limit.contains(&format!(";r={expected}")), "{limit}");
    }
}
