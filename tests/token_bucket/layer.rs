//! The token bucket as its users meet it: through a tower stack, an axum router and the handle.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{Ipv6Addr, SocketAddr},
    time::Duration,
};

use crate::support::gate::{Log, get as request};
use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tollgate::{
    ApiKey, Client, Cost, Event, FakeClock, Forwarded, Identify, OnUnidentified, PeerIp, Principal, Rate, Reason,
    Refusal, RequestHead, TokenBucketLayer, refusal::Dialect,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

/// A request from a peer.
fn from(peer: &str) -> Request<Full<Bytes>> {
    let mut request = request("/");
    request.extensions_mut().insert(peer.parse::<SocketAddr>().unwrap());
    request
}

async fn ask(layer: &TokenBucketLayer, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let (head, body) = layer.layer(service_fn(hello)).oneshot(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn field<'a>(response: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn b1_five_at_once_pass_the_sixth_is_refused_and_two_seconds_later_it_passes() {
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
async fn the_handle_and_the_layer_are_the_same_buckets() {
    let layer = TokenBucketLayer::new(Rate::per_hour(2))
        .clock(FakeClock::new())
        .identify_by(|_: &tollgate::RequestHead<'_>, digester: &tollgate::Digester| Some(digester.named("alice")));
    let buckets = layer.handle();
    buckets.check(&Client::named("alice"), Cost::ONE).unwrap();
    assert_eq!(ask(&layer, request("/")).await.status(), 200);
    assert_eq!(ask(&layer, request("/")).await.status(), 429);
    let other = layer.named("other");
    assert_eq!(ask(&other, request("/")).await.status(), 200, "a setter makes a layer with a state of its own");
}

#[test]
fn b1_capacity_refill_rate_and_initial_tokens_are_three_settings() {
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
fn a_newcomer_with_nothing_is_not_a_newcomer_for_ever() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5).initial_tokens(0)).clock(clock.clone());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    let refusal = buckets.check(&alice, Cost::ONE).unwrap_err();
    clock.advance(refusal.retry_after().unwrap());
    buckets.check(&alice, Cost::ONE).unwrap();
}

#[test]
fn both_buckets_or_neither() {
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
        assert_eq!((refusal.limit(), refusal.current()), (0, 0), "what all share is nobody's business");
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
async fn a_refusal_for_the_sake_of_all_is_503_and_shows_no_capacity() {
    let layer = TokenBucketLayer::new(Rate::per_second(5)).and_global(Rate::per_hour(1)).clock(FakeClock::new());
    assert_eq!(ask(&layer, from("192.0.2.1:1")).await.status(), 200);
    let refused = ask(&layer, from("192.0.2.2:1")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&refused, "retry-after"), Some("3600"));
    assert_eq!((field(&refused, "ratelimit"), field(&refused, "ratelimit-policy")), (None, None));
}

#[tokio::test]
async fn what_can_never_pass_is_413_without_a_time_to_come_back() {
    let layer = TokenBucketLayer::new(Rate::per_second(5).burst(2)).cost(|_| Cost::new(1_844_674_409));
    let refused = ask(&layer, from("192.0.2.1:1")).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(field(&refused, "retry-after"), None);
    let refusal = refused.extensions().get::<Refusal>().unwrap();
    assert_eq!((refusal.limit(), refusal.current()), (2, 1_844_674_409));
    assert_eq!(layer.handle().live_clients(), 0);
}

#[test]
fn no_burst_is_more_than_it_says() {
    let daily = Rate::per(1, Duration::from_secs(86_400));
    let buckets = TokenBucketLayer::new(daily.burst(50_000)).clock(FakeClock::new()).handle();
    let passed = (0..50_100).filter(|_| buckets.check(&Client::named("alice"), Cost::ONE).is_ok()).count();
    assert_eq!(passed, 50_000);
    let error = daily.try_burst(300_000).unwrap_err().to_string(); // takes 821 years to come back
    assert!(error.ends_with("got 300000 at one per 86400s"), "{error}");
}

#[test]
fn b6_a_tier_has_a_rate_of_its_own_and_may_change_while_running() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(10))
        .rate_for("pro", Rate::per_second(100).burst(1_000))
        .clock(clock.clone());
    let buckets = layer.handle();
    let free = Client::named("alice");
    let pro = free.clone().with_tier("pro");
    buckets.check(&free, Cost::new(10)).unwrap();
    assert_eq!(buckets.peek(&pro).remaining, 0, "a change of tier gives nobody a fresh bucket, ...");
    assert_eq!(buckets.check(&pro, Cost::ONE).unwrap_err().retry_after(), Some(Duration::from_millis(10)));
    clock.advance(Duration::from_millis(10));
    buckets.check(&pro, Cost::ONE).unwrap(); // ... and nobody stays punished by the old rate

    buckets.set_rate_for("pro", Rate::per_second(1).burst(1));
    assert!(buckets.check(&pro, Cost::ONE).is_err());
    assert_eq!(buckets.peek(&pro).limit, 1);
    buckets.set_rate(Rate::per_second(7));
    assert_eq!(buckets.peek(&free).limit, 7);
    assert_eq!(buckets.peek(&Client::named("bob").with_tier("unheard of")).limit, 7);
}

#[tokio::test]
async fn nobody_identified_is_one_shared_bucket_and_one_warning() {
    let log = Log::default();
    let heard = log.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).clock(FakeClock::new()).observe(move |event: &Event<'_>| {
        if let Event::Unidentified { policy } = event {
            heard.push(policy.as_str());
        }
    });
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(ask(&layer, request("/")).await.status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(log.lines(), ["default"]);

    let refusing = layer.clone().on_unidentified(OnUnidentified::Refuse);
    assert_eq!(ask(&refusing, request("/")).await.status(), 403);
    let passing = layer.on_unidentified(OnUnidentified::Pass);
    for _ in 0..10 {
        let passed = ask(&passing, request("/")).await;
        assert_eq!((passed.status().as_u16(), field(&passed, "ratelimit")), (200, None));
    }
}

#[tokio::test]
async fn a_hundred_thousand_random_keys_from_one_peer_share_one_bucket() {
    let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme"))]);
    let layer = TokenBucketLayer::new(Rate::per_hour(5))
        .clock(FakeClock::new())
        .identify_by(ApiKey::header("x-api-key", keys).or(PeerIp::new()));
    let service = layer.layer(service_fn(hello));
    let mut passed = 0;
    for n in 0..100_000_u64 {
        let mut request = from("192.0.2.1:1");
        request
            .headers_mut()
            .insert("x-api-key", format!("guess-{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).parse().unwrap());
        passed += usize::from(service.clone().oneshot(request).await.unwrap().status() == 200);
    }
    assert_eq!(passed, 5);
    assert_eq!(layer.handle().live_clients(), 1);
    let mut known = from("192.0.2.1:1");
    known.headers_mut().insert("x-api-key", "s3cret".parse().unwrap());
    assert_eq!(ask(&layer, known).await.status(), 200);
}

#[tokio::test]
async fn ten_thousand_forged_forwarding_headers_are_one_client() {
    let behind_proxy = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    let layer = TokenBucketLayer::new(Rate::per_hour(5)).clock(FakeClock::new()).identify_by(behind_proxy);
    let service = layer.layer(service_fn(hello));
    let mut passed = 0;
    for n in 0..10_000_u32 {
        let mut request = from("10.0.0.1:1"); // the proxy, which appends the address that it saw
        let forged = format!("{}, 203.0.113.9", std::net::Ipv4Addr::from(n * 4_099));
        request.headers_mut().insert("x-forwarded-for", forged.parse().unwrap());
        passed += usize::from(service.clone().oneshot(request).await.unwrap().status() == 200);
    }
    assert_eq!(passed, 5);
    assert_eq!(layer.handle().live_clients(), 1);
}

#[tokio::test]
async fn five_thousand_addresses_of_one_v6_network_are_one_client() {
    let layer = TokenBucketLayer::new(Rate::per_hour(5)).clock(FakeClock::new());
    let mut passed = 0;
    for n in 0..5_000_u16 {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 7, n, n);
        passed += usize::from(ask(&layer, from(&format!("[{ip}]:1"))).await.status() == 200);
    }
    assert_eq!(passed, 5);
}

#[tokio::test]
async fn a_full_table_moves_nobody_who_is_there() {
    let clock = FakeClock::new();
    let overflows = Log::default();
    let heard = overflows.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(100))
        .max_clients(1_000)
        .overflow(Rate::per_hour(50))
        .clock(clock.clone())
        .observe(move |event: &Event<'_>| {
            if let Event::Overflow { .. } = event {
                heard.push("overflow");
            }
        });
    let buckets = layer.handle();
    let victim = Client::named("victim");
    buckets.check(&victim, Cost::new(95)).unwrap();
    let flood = |from: usize| {
        (from..from + 50_000).filter(|n| buckets.check(&Client::named(n.to_string()), Cost::ONE).is_ok()).count()
    };
    let passed = flood(0);
    let live = buckets.live_clients();
    assert!(live <= 4_000, "{live} clients in a table for 1,000");
    assert_eq!(passed, live - 1 + 50, "the newcomers with a place, and a full overflow bucket");
    assert_eq!(overflows.lines().len(), 50_000 - (live - 1));
    assert_eq!(buckets.peek(&victim).remaining, 5, "at 95 % it stays at 95 %");
    let late = buckets.check(&Client::named("late"), Cost::ONE).unwrap_err();
    assert_eq!((late.reason(), late.retry_after_seconds()), (Reason::Capacity, Some(72)));

    clock.advance(Duration::from_secs(3_600));
    assert!(buckets.check(&Client::named("late"), Cost::ONE).is_ok(), "the flood is forgotten");
}

#[test]
fn b7_idle_clients_leave_memory_while_others_are_served() {
    let clock = FakeClock::new();
    let buckets = TokenBucketLayer::new(Rate::per_second(10)).clock(clock.clone()).handle();
    for n in 0..20_000 {
        buckets.check(&Client::named(n.to_string()), Cost::ONE).unwrap();
    }
    assert_eq!(buckets.live_clients(), 20_000);
    for _ in 0..100_000 {
        clock.advance(Duration::from_millis(100));
        let _ = buckets.check(&Client::named("the only one left"), Cost::ONE);
    }
    assert!(buckets.live_clients() < 200, "{} are still there", buckets.live_clients());
}

#[test]
fn b7_without_a_request_idle_clients_are_forgotten_when_somebody_says_so() {
    let clock = FakeClock::new();
    let buckets = TokenBucketLayer::new(Rate::per_minute(60)).max_clients(100_000).clock(clock.clone()).handle();
    let empty = buckets.allocated_bytes();
    let busy = Client::named("busy");
    for n in 0..100_000 {
        buckets.check(&Client::named(n.to_string()), Cost::ONE).unwrap();
    }
    clock.advance(Duration::from_secs(2));
    buckets.check(&busy, Cost::new(60)).unwrap();
    let full = buckets.allocated_bytes();
    buckets.forget_idle();
    assert_eq!(buckets.live_clients(), 1);
    assert!(buckets.allocated_bytes() < empty + (full - empty) / 100, "{}", buckets.allocated_bytes());
    assert_eq!(buckets.peek(&busy).remaining, 0, "who is not idle stays as it is");
}

#[tokio::test]
async fn other_dialects() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5)).clock(clock.clone());
    let delta = layer.clone().rate_limit_headers(Dialect::XRateLimit { reset: tollgate::refusal::Reset::Delta });
    let answer = ask(&delta, from("192.0.2.1:1")).await;
    assert_eq!(field(&answer, "x-ratelimit-limit"), Some("5"));
    assert_eq!(field(&answer, "x-ratelimit-remaining"), Some("4"));
    assert_eq!(field(&answer, "x-ratelimit-reset"), Some("4"));
    assert_eq!(field(&answer, "ratelimit"), None);
    let silent = layer.rate_limit_headers(Dialect::None);
    assert!(ask(&silent, from("192.0.2.1:1")).await.headers().is_empty());
}

#[tokio::test]
async fn a_rate_that_does_not_divide_a_second_is_told_as_it_was_set() {
    for count in [3, 7, 30, 50, 60, 600, 999] {
        let layer = TokenBucketLayer::new(Rate::per_second(count)).clock(FakeClock::new());
        let answer = ask(&layer, from("192.0.2.1:1")).await;
        assert_eq!(field(&answer, "ratelimit-policy").unwrap(), format!("\"default\";q={count};w=1"));
    }
}

#[tokio::test]
async fn stacked_layers_list_all_policies_in_one_field() {
    let clock = FakeClock::new();
    let wide = TokenBucketLayer::new(Rate::per_minute(100)).named("wide").clock(clock.clone());
    let narrow = TokenBucketLayer::new(Rate::per_second(2)).named("narrow").clock(clock.clone());
    let service = ServiceBuilder::new().layer(wide).layer(narrow).service(service_fn(hello));
    let mut last = None;
    for _ in 0..3 {
        last = Some(service.clone().oneshot(from("192.0.2.1:1")).await.unwrap());
    }
    let refused = last.unwrap();
    assert_eq!(refused.status(), 429);
    let joined = |name: &str| {
        let lines: Vec<_> = refused.headers().get_all(name).iter().map(|line| line.to_str().unwrap()).collect();
        lines.join(", ")
    };
    assert_eq!(joined("ratelimit-policy"), "\"narrow\";q=2;w=1, \"wide\";q=100;w=60");
    assert_eq!(joined("ratelimit"), "\"narrow\";r=0;t=1, \"wide\";r=97;t=59");
    assert_eq!(refused.headers().get_all("retry-after").iter().count(), 1);
}

#[tokio::test]
async fn the_users_own_answer_keeps_the_fields() {
    let layer = TokenBucketLayer::new(Rate::per_hour(1))
        .clock(FakeClock::new())
        .refuse_with(|refusal: &Refusal| Response::builder().status(402).body(format!("no: {refusal}")).unwrap());
    ask(&layer, from("192.0.2.1:1")).await;
    let refused = ask(&layer, from("192.0.2.1:1")).await;
    assert_eq!(refused.status(), 402);
    assert_eq!(refused.body(), "no: policy \"default\": limit of 1 reached, retry in 3600s");
    assert_eq!(field(&refused, "retry-after"), Some("3600"));
    assert_eq!(field(&refused, "ratelimit"), Some("\"default\";r=0;t=3600"));
}

/// Costs what `x-cost` says.
fn costly(dialect: Dialect) -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_second(1).burst(10_000))
        .clock(FakeClock::new())
        .rate_limit_headers(dialect)
        .cost(|request: &RequestHead<'_>| Cost::new(request.headers["x-cost"].to_str().unwrap().parse().unwrap()))
}

async fn ask_for(layer: &TokenBucketLayer, cost: &'static str) -> Response<Bytes> {
    let mut request = from("192.0.2.1:1");
    request.headers_mut().insert("x-cost", cost.parse().unwrap());
    ask(layer, request).await
}

#[tokio::test]
async fn refusal_for_cost_says_what_is_left() {
    let layer = costly(Dialect::Draft11);
    ask_for(&layer, "8060").await;
    let refused = ask_for(&layer, "5000").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(&refused, "ratelimit"), Some("\"default\";r=1940;t=3060"));
    assert_eq!(field(&refused, "retry-after"), Some("3060"));
    let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(problem["detail"], "Too little is left of the limit of 10000. Retry in 3060 seconds.");

    ask_for(&layer, "1940").await;
    let empty = ask_for(&layer, "1").await;
    assert_eq!(field(&empty, "ratelimit"), Some("\"default\";r=0;t=1"));
}

#[tokio::test]
async fn single_valued_dialects_say_what_is_left() {
    let layer = costly(Dialect::XRateLimit { reset: tollgate::refusal::Reset::Delta });
    ask_for(&layer, "8060").await;
    let refused = ask_for(&layer, "5000").await;
    assert_eq!(field(&refused, "x-ratelimit-limit"), Some("10000"));
    assert_eq!(field(&refused, "x-ratelimit-remaining"), Some("1940"));
    assert_eq!(field(&refused, "x-ratelimit-reset"), Some("3060"));
}

#[tokio::test]
async fn retry_after_is_raised_to_the_wait_while_some_is_left() {
    let layer = costly(Dialect::Draft11)
        .refuse_with(|_: &Refusal| Response::builder().status(429).header("retry-after", "3").body("later").unwrap());
    ask_for(&layer, "8060").await;
    let refused = ask_for(&layer, "5000").await;
    assert_eq!(field(&refused, "ratelimit"), Some("\"default\";r=1940;t=3060"));
    assert_eq!(field(&refused, "retry-after"), Some("3060"));
}

#[test]
fn rl9_threads_at_one_instant_admit_exactly_what_is_there() {
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
fn wrong_settings_cannot_be_built() {
    let zero = std::panic::catch_unwind(|| TokenBucketLayer::new(Rate::per_second(1)).max_clients(0));
    assert_eq!(zero.unwrap_err().downcast_ref::<String>().unwrap(), "max_clients must be from 1 to 2^32 - 1, got 0");
    let name = std::panic::catch_unwind(|| TokenBucketLayer::new(Rate::per_second(1)).named("a\r\nset-cookie: x"));
    assert!(name.unwrap_err().downcast_ref::<String>().unwrap().contains("\\r\\n"));
}

proptest! {
    #[test]
    fn a_client_that_waits_as_long_as_it_is_told_is_admitted(
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
