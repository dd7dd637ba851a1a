//! Faults seen in rate limiters; each name states the behaviour that must not occur.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{
    Client, Cost, Event, FakeClock, Forwarded, OnUnidentified, PeerIp, Rate, Reason, TokenBucketLayer, Unverified,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::gate::Log;

const SECOND: Duration = Duration::from_secs(1);

const DAY: Duration = Duration::from_secs(86_400);

fn alice() -> Client {
    Client::named("alice")
}

/// Returns the number of `n` requests of cost 1 that pass.
fn passed(layer: &TokenBucketLayer, client: &Client, n: usize) -> usize {
    (0..n).filter(|_| layer.handle().check(client, Cost::ONE).is_ok()).count()
}

/// A request from a peer, with these header lines.
fn from(peer: &str, lines: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(SocketAddr::new(peer.parse().unwrap(), 4711));
    for (name, value) in lines {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request
}

async fn status(layer: &TokenBucketLayer, request: Request<()>) -> u16 {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(Full::<Bytes>::default())) });
    layer.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

#[test]
fn retry_after_is_not_zero_nor_rounded_down() {
    let clock = FakeClock::new();
    for (interval, told) in [(1, 1), (1_000, 1), (1_001, 2), (1_900, 2), (59_001, 60)] {
        let rate = Rate::every(Duration::from_millis(interval));
        let layer = TokenBucketLayer::new(rate).clock(clock.clone());
        assert_eq!(passed(&layer, &alice(), 2), 1);
        let refusal = layer.handle().check(&alice(), Cost::ONE).unwrap_err();
        assert_eq!(refusal.retry_after_seconds(), Some(told), "{interval} ms");
        clock.advance(Duration::from_secs(told));
        assert_eq!(passed(&layer, &alice(), 1), 1, "who obeys is not refused again");
    }
}

#[tokio::test]
async fn direct_client_with_a_forged_field_is_charged_as_itself() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    let layer = TokenBucketLayer::new(Rate::per_hour(1)).clock(FakeClock::new()).identify_by(who);
    assert_eq!(status(&layer, from("192.0.2.1", &[("x-forwarded-for", "1.1.1.1")])).await, 200);
    assert_eq!(status(&layer, from("192.0.2.1", &[("x-forwarded-for", "2.2.2.2")])).await, 429);
}

#[tokio::test]
async fn missing_connect_info_shares_a_bucket_by_choice() {
    let log = Log::default();
    let heard = log.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).on_unidentified(OnUnidentified::Share);
    let layer = layer.clock(FakeClock::new()).observe(move |event: &Event<'_>| {
        if let Event::Unidentified { .. } = event {
            heard.push("unidentified");
        }
    });
    let app = Router::new().route("/", get(|| async {})).layer(layer);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        statuses.push(app.clone().oneshot(request).await.unwrap().status().as_u16());
    }
    assert_eq!((statuses, log.lines().len()), (vec![200, 200, 429], 1));
}

#[tokio::test]
async fn layer_calls_do_not_create_separate_state() {
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).on_unidentified(OnUnidentified::Share).clock(FakeClock::new());
    let app = ["/a", "/b", "/c"].iter().fold(Router::new(), |app, path| app.route(path, get(|| async {}))).layer(layer);
    let mut passed = 0;
    for path in ["/a", "/b", "/c", "/a", "/b", "/c"] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        passed += usize::from(app.clone().oneshot(request).await.unwrap().status() == 200);
    }
    assert_eq!(passed, 2);
}

#[tokio::test]
async fn handler_is_not_called_before_the_decision() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let layer = TokenBucketLayer::new(Rate::per_hour(1)).clock(FakeClock::new());
    let service = layer.layer(service_fn(move |_: Request<()>| {
        counted.fetch_add(1, Ordering::SeqCst); // what a handler does before its first await
        async { Ok::<_, ()>(Response::new(Full::<Bytes>::default())) }
    }));
    for _ in 0..10 {
        service.clone().oneshot(from("192.0.2.1", &[])).await.unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn sixty_a_second_is_not_one_a_minute() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(60)).clock(clock.clone());
    assert_eq!(passed(&layer, &alice(), 100), 60);
    clock.advance(SECOND + Duration::from_nanos(60)); // an interval is rounded up by less than a nanosecond
    assert_eq!(passed(&layer, &alice(), 100), 60);
}

#[test]
fn large_burst_at_a_slow_rate_does_not_overflow() {
    let slow = Rate::per(1, DAY).burst(50_000); // 137 years to fill
    let layer = TokenBucketLayer::new(slow).clock(FakeClock::new());
    assert_eq!(passed(&layer, &alice(), 50_100), 50_000);
    assert!(Rate::per(1, DAY).try_burst(300_000).is_err(), "821 years are more than the clock can count");
}

#[test]
fn cost_far_above_the_burst_does_not_wrap_around() {
    let layer = TokenBucketLayer::new(Rate::per_second(5).burst(2)).clock(FakeClock::new());
    for cost in [3, 1_844_674_409, 1_844_674_407_370_955, (1 << 53) - 1] {
        let refusal = layer.handle().check(&alice(), Cost::new(cost)).unwrap_err();
        assert_eq!((refusal.reason(), refusal.retry_after()), (Reason::TooLarge, None), "{cost}");
    }
    assert_eq!(passed(&layer, &alice(), 5), 2);
}

#[test]
fn rest_does_not_bring_more_than_one_burst() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(5).burst(10)).clock(clock.clone());
    assert_eq!(passed(&layer, &alice(), 1), 1); // the key is there
    for rest in [SECOND, 2 * SECOND, DAY] {
        clock.advance(rest);
        assert_eq!(passed(&layer, &alice(), 100), 10, "{rest:?}");
        clock.advance(10 * SECOND);
    }
}

#[test]
fn flood_neither_grows_the_table_nor_resets_a_limit() {
    let layer = TokenBucketLayer::new(Rate::per_hour(100)).max_clients(1_000).clock(FakeClock::new());
    let buckets = layer.handle();
    buckets.check(&alice(), Cost::new(100)).unwrap();
    let empty = buckets.allocated_bytes();
    for n in 0..50_000 {
        let _ = buckets.check(&Client::named(n.to_string()), Cost::ONE);
    }
    assert!(buckets.live_clients() <= 1_000, "{}", buckets.live_clients());
    assert!(buckets.allocated_bytes() < empty + 128 * 1_000, "{}", buckets.allocated_bytes());
    assert_eq!(passed(&layer, &alice(), 10), 0, "who had used up its limit still has");
}

#[test]
fn first_limit_is_not_charged_when_the_second_refuses() {
    let layer = TokenBucketLayer::new(Rate::per_hour(5)).and_global(Rate::per_hour(3)).clock(FakeClock::new());
    let buckets = layer.handle();
    buckets.check(&Client::named("bob"), Cost::new(3)).unwrap();
    for _ in 0..10 {
        assert_eq!(buckets.check(&alice(), Cost::ONE).unwrap_err().reason(), Reason::Capacity);
    }
    assert_eq!(buckets.peek(&alice()).remaining, 5);
}

#[test]
fn change_of_tier_and_back_is_not_a_fresh_bucket() {
    let layer = TokenBucketLayer::new(Rate::per_hour(10)).rate_for("pro", Rate::per_second(10)).clock(FakeClock::new());
    let (pro, gold) = (alice().with_tier("pro"), alice().with_tier("gold"));
    assert_eq!((passed(&layer, &alice(), 20), passed(&layer, &pro, 20)), (10, 10));
    assert_eq!((passed(&layer, &alice(), 20), passed(&layer, &pro, 20)), (0, 0));
    assert_eq!(passed(&layer, &gold, 20), 0, "a tier without a rate of its own has the usual bucket");
}

/// With one bucket that was rescaled at each change of tier, these two keys passed 50,000 requests.
#[test]
fn keys_of_two_tiers_in_turn_gain_no_tokens() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(10))
        .rate_for("pro", Rate::per_second(10).burst(1_000))
        .clock(clock.clone());
    let (mut free, mut pro) = (0, 0);
    for _ in 0..1_000 {
        pro += passed(&layer, &alice().with_tier("pro"), 50);
        free += passed(&layer, &alice(), 50);
        clock.advance(SECOND);
    }
    assert_eq!((free, pro), (10 + 999, 1_000 + 9_990));
}

#[tokio::test]
async fn refusal_event_does_not_contain_the_key() {
    let log = Log::default();
    let heard = log.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(1))
        .identify_by(Unverified::header("x-session"))
        .observe(move |event: &Event<'_>| heard.push(format!("{event:?}")));
    for _ in 0..3 {
        status(&layer, from("192.0.2.1", &[("x-session", "canary-7f3a")])).await;
    }
    assert!(log.lines().len() == 3 && !log.lines().concat().contains("canary"), "{:?}", log.lines());
}
