//! Faults that rate limiters and circuit breakers were seen to have, one test each: the name says what must not be.

mod support;

use std::{
    collections::HashSet,
    future::{Future, pending},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use axum::{Router, routing::get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use support::gate::{Log, Strict, get as request};
use tollgate::{
    Admit, CircuitBreakerLayer, CircuitState, Client, Cost, Digester, Event, FakeClock, Forwarded, GateLayer, Identify,
    MaybeFuture, Moment, Outcome, PeerIp, Permit, PolicyName, Rate, Reason, Refusal, RequestHead, TokenBucketLayer,
    Trip, Unverified,
    rule::{Lease, Leases},
};
use tower::{Layer, ServiceExt, limit::ConcurrencyLimitLayer, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn alice() -> Client {
    Client::named("alice")
}

/// How many of `n` requests of cost 1 pass.
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

/// Who is charged for it, by name.
fn charged(who: &impl Identify, request: &Request<()>) -> String {
    let client = who.identify(&RequestHead::of(request), Digester::process());
    client.map_or_else(|| "nobody".into(), |client| client.name().unwrap().to_string())
}

async fn status(layer: &TokenBucketLayer, request: Request<()>) -> u16 {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(Full::<Bytes>::default())) });
    layer.layer(inner).oneshot(request).await.unwrap().status().as_u16()
}

/// Polls a future once: whether it is still at work.
fn waits<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// A breaker that three failures in a row have opened, and its clock.
async fn opened(layer: CircuitBreakerLayer) -> (CircuitBreakerLayer, FakeClock) {
    let clock = FakeClock::new();
    let layer = layer.recovery_timeout(10 * SECOND).clock(clock.clone());
    for _ in 0..3 {
        let _ = layer.handle().call(async { Err::<(), _>("down") }).await;
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    (layer, clock)
}

// Retry-After

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

// Identity

#[test]
fn the_leftmost_x_forwarded_for_is_not_the_client() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    for n in 0..10_000_u32 {
        let field = format!("{}, 203.0.113.9", Ipv4Addr::from(n * 4_099));
        assert_eq!(charged(&who, &from("10.0.0.1", &[("x-forwarded-for", &field)])), "203.0.113.9");
    }
}

#[test]
fn the_leftmost_forwarded_is_not_the_client() {
    let who = PeerIp::new().trust_forwarded(Forwarded::rfc7239().from_networks(["10.0.0.0/8"]));
    let request = from("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=203.0.113.9;proto=https")]);
    assert_eq!(charged(&who, &request), "203.0.113.9");
}

#[test]
fn an_address_with_a_port_is_not_skipped_for_a_forged_one() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    for last in ["203.0.113.9:4711", "[2001:db8::7]:4711"] {
        let request = from("10.0.0.1", &[("x-forwarded-for", &format!("1.1.1.1, {last}"))]);
        assert_ne!(charged(&who, &request), "1.1.1.1", "{last}");
    }
}

#[test]
fn a_second_line_of_the_field_is_not_overlooked() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    let request = from("10.0.0.1", &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9")]);
    assert_eq!(charged(&who, &request), "203.0.113.9");
}

#[tokio::test]
async fn a_direct_client_that_sends_the_field_is_served_and_charged_as_itself() {
    let who = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    let layer = TokenBucketLayer::new(Rate::per_hour(1)).clock(FakeClock::new()).identify_by(who);
    assert_eq!(status(&layer, from("192.0.2.1", &[("x-forwarded-for", "1.1.1.1")])).await, 200);
    assert_eq!(status(&layer, from("192.0.2.1", &[("x-forwarded-for", "2.2.2.2")])).await, 429);
}

#[test]
fn a_household_does_not_have_two_to_the_64_identities() {
    let clients: HashSet<_> = (0..5_000_u16)
        .map(|n| charged(&PeerIp::new(), &from(&Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 7, n, n).to_string(), &[])))
        .collect();
    assert_eq!(clients.len(), 1);
}

#[tokio::test]
async fn no_connect_info_is_not_500_for_everyone() {
    let log = Log::default();
    let heard = log.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).clock(FakeClock::new()).observe(move |event: &Event<'_>| {
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

#[test]
fn composite_keys_that_look_alike_when_joined_do_not_collide() {
    let who = Unverified::header("x-tenant").and(Unverified::header("x-user"));
    let client = |tenant: &str, user: &str| {
        let request = from("192.0.2.1", &[("x-tenant", tenant), ("x-user", user)]);
        who.identify(&RequestHead::of(&request), Digester::process()).unwrap()
    };
    for separator in ["|", ",", ":"] {
        let (left, right) = (format!("a{separator}b"), format!("b{separator}c"));
        assert_ne!(client(&left, "c"), client("a", &right), "{separator}");
    }
}

// The service

#[tokio::test]
async fn each_layer_call_does_not_make_a_state_of_its_own() {
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).clock(FakeClock::new());
    let app = ["/a", "/b", "/c"].iter().fold(Router::new(), |app, path| app.route(path, get(|| async {}))).layer(layer);
    let mut passed = 0;
    for path in ["/a", "/b", "/c", "/a", "/b", "/c"] {
        let request = Request::get(path).body(axum::body::Body::empty()).unwrap();
        passed += usize::from(app.clone().oneshot(request).await.unwrap().status() == 200);
    }
    assert_eq!(passed, 2);
}

#[tokio::test]
async fn no_clone_is_called_that_was_not_polled_ready() {
    // A concurrency limit panics, and so does `Strict`, when it is called without having been polled ready.
    let inner = ConcurrencyLimitLayer::new(1).layer(Strict::default());
    let bucket = TokenBucketLayer::new(Rate::per_second(100)).layer(inner.clone());
    let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).layer(inner);
    for _ in 0..10 {
        assert_eq!(bucket.clone().oneshot(request("/")).await.unwrap().status(), 200);
        assert_eq!(breaker.clone().oneshot(request("/")).await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_service_is_not_called_before_the_decision() {
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

/// So many at once, the simplest policy that holds something.
struct AtMost(Mutex<Leases>);
struct Slot(Arc<AtMost>, Lease);

impl Admit for AtMost {
    type Permit = Slot;
    fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Slot, Refusal>> {
        let acquired = self.0.lock().unwrap().acquire(Moment::default());
        let full = || Refusal::new(Reason::Capacity, PolicyName::try_new("at most").unwrap());
        MaybeFuture::Ready(acquired.map(|acquired| Slot(Arc::clone(self), acquired.lease)).ok_or_else(full))
    }
}

impl Permit for Slot {
    fn settle(self, _: Outcome<'_>) {
        self.0.0.lock().unwrap().release(self.1);
    }
}

#[tokio::test]
async fn a_slot_is_not_free_at_the_head_while_the_body_streams() {
    let layer = GateLayer::of(AtMost(Mutex::new(Leases::new(2, Duration::MAX, Duration::MAX))));
    let service = layer.layer(service_fn(|_: Request<()>| async {
        let frames = futures_util::stream::pending::<Result<Frame<Bytes>, ()>>();
        Ok::<_, ()>(Response::new(StreamBody::new(frames)))
    }));
    let mut streaming = Vec::new();
    for _ in 0..500 {
        let response = service.clone().oneshot(Request::new(())).await.unwrap();
        if response.status() == StatusCode::OK {
            streaming.push(response);
        }
    }
    assert_eq!(streaming.len(), 2);
    streaming.pop();
    assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), StatusCode::OK, "one place is free again");
}

// The breaker

#[tokio::test]
async fn ten_thousand_successes_do_not_outweigh_a_window_of_failures() {
    for trip in [Trip::failure_rate(0.5).over_calls(100), Trip::failure_rate(0.5).over_time(10 * SECOND)] {
        let clock = FakeClock::new();
        let breaker = CircuitBreakerLayer::new(trip).clock(clock.clone()).handle();
        for _ in 0..10_000 {
            breaker.call(async { Ok::<_, ()>(()) }).await.unwrap();
        }
        clock.advance(10 * SECOND);
        let mut failures = 0;
        while breaker.state() == CircuitState::Closed && failures <= 100 {
            let _ = breaker.call(async { Err::<(), _>(()) }).await;
            failures += 1;
        }
        assert!(failures <= 100, "{failures}");
    }
}

#[tokio::test]
async fn a_thousand_callers_are_not_a_thousand_probes() {
    let (layer, clock) = opened(CircuitBreakerLayer::new(Trip::consecutive(3)).probes(3)).await;
    clock.advance(12 * SECOND);
    let calls = AtomicUsize::new(0);
    let breaker = layer.handle();
    let call = || {
        breaker.call(async {
            calls.fetch_add(1, Ordering::SeqCst);
            pending::<Result<(), ()>>().await
        })
    };
    let mut all: Vec<_> = (0..1_000).map(|_| Box::pin(call())).collect();
    assert_eq!(all.iter_mut().map(waits).filter(|waits| *waits).count(), 3);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_cancelled_probe_neither_wedges_nor_closes_a_circuit() {
    let (layer, clock) = opened(CircuitBreakerLayer::new(Trip::consecutive(3))).await;
    let breaker = layer.handle();
    clock.advance(12 * SECOND);
    for _ in 0..1_000 {
        let mut probe = Box::pin(breaker.call(pending::<Result<(), ()>>()));
        assert!(waits(&mut probe), "each gets the place of the last");
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    breaker.call(async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test]
async fn a_lost_probe_does_not_wedge_a_circuit() {
    let (layer, clock) = opened(CircuitBreakerLayer::new(Trip::consecutive(3))).await;
    let breaker = layer.handle();
    clock.advance(12 * SECOND);
    let mut lost = Box::pin(breaker.call(pending::<Result<(), ()>>()));
    assert!(waits(&mut lost));
    std::mem::forget(lost);
    clock.advance(31 * SECOND);
    layer.handle().call(async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(layer.handle().state(), CircuitState::Closed);
}

#[tokio::test]
async fn successes_from_before_the_trip_do_not_close_it() {
    let clock = FakeClock::new();
    let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).clock(clock.clone());
    let breaker = layer.handle();
    let (release, released) = tokio::sync::watch::channel(false);
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let (breaker, mut released) = (breaker.clone(), released.clone());
            tokio::spawn(async move {
                breaker.call(async { released.wait_for(|go| *go).await.map(|_| ()).map_err(|_| ()) }).await
            })
        })
        .collect();
    support::gate::yield_times(10).await;
    for _ in 0..3 {
        let _ = breaker.call(async { Err::<(), _>(()) }).await;
    }
    clock.advance(12 * SECOND);
    let mut probe = Box::pin(breaker.call(pending::<Result<(), ()>>()));
    assert!(waits(&mut probe));
    release.send(true).unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
}

#[tokio::test]
async fn server_errors_and_grpc_trailers_are_not_invisible() {
    let failing = service_fn(|request: Request<()>| async move {
        let grpc = request.headers().contains_key("content-type");
        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]);
        let body = Full::<Bytes>::default().with_trailers(async move { grpc.then_some(Ok(trailers)) });
        let status = if grpc { 200 } else { 503 };
        Ok::<_, ()>(Response::builder().status(status).header("content-type", "application/grpc").body(body).unwrap())
    });
    for lines in [&[][..], &[("content-type", "application/grpc")]] {
        let layer = CircuitBreakerLayer::new(Trip::consecutive(3));
        for _ in 0..3 {
            let response = layer.layer(failing).oneshot(from("192.0.2.1", lines)).await.unwrap();
            let _ = Box::pin(response.into_body()).collect().await;
        }
        assert_eq!(layer.handle().state(), CircuitState::Open, "{lines:?}");
    }
}

#[tokio::test]
async fn callers_whose_patience_ends_are_not_invisible() {
    let clock = FakeClock::new();
    let breaker = CircuitBreakerLayer::new(Trip::consecutive(3)).clock(clock.clone()).handle();
    for _ in 0..3 {
        let mut call = Box::pin(breaker.call(pending::<Result<(), ()>>()));
        assert!(waits(&mut call));
        clock.advance(10 * SECOND);
        drop(call); // the caller's own time-out, further out
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn the_gauge_of_the_old_state_does_not_stay_up() {
    let up = Arc::new(Mutex::new(HashSet::from(["closed"])));
    let gauges = Arc::clone(&up);
    let layer = CircuitBreakerLayer::new(Trip::consecutive(3)).observe(move |event: &Event<'_>| {
        if let Event::Transition { from, to, .. } = event {
            let mut up = gauges.lock().unwrap();
            assert!(up.remove(from) && up.insert(to), "{from} -> {to}");
        }
    });
    let (layer, clock) = opened(layer).await;
    assert_eq!(*up.lock().unwrap(), ["open"].into());
    clock.advance(12 * SECOND);
    layer.handle().call(async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(*up.lock().unwrap(), ["closed"].into());
}

// The bucket

#[test]
fn sixty_a_second_is_not_one_a_minute() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(60)).clock(clock.clone());
    assert_eq!(passed(&layer, &alice(), 100), 60);
    clock.advance(SECOND + Duration::from_nanos(60)); // an interval is rounded up by less than a nanosecond
    assert_eq!(passed(&layer, &alice(), 100), 60);
}

#[test]
fn a_large_burst_at_a_slow_rate_does_not_overflow() {
    let slow = Rate::per(1, DAY).burst(50_000); // 137 years to fill
    let layer = TokenBucketLayer::new(slow).clock(FakeClock::new());
    assert_eq!(passed(&layer, &alice(), 50_100), 50_000);
    assert!(Rate::per(1, DAY).try_burst(300_000).is_err(), "821 years are more than the clock can count");
}

#[test]
fn a_cost_far_above_the_burst_does_not_wrap_around() {
    let layer = TokenBucketLayer::new(Rate::per_second(5).burst(2)).clock(FakeClock::new());
    for cost in [3, 1_844_674_409, 1_844_674_407_370_955, (1 << 53) - 1] {
        let refusal = layer.handle().check(&alice(), Cost::new(cost)).unwrap_err();
        assert_eq!((refusal.reason(), refusal.retry_after()), (Reason::TooLarge, None), "{cost}");
    }
    assert_eq!(passed(&layer, &alice(), 5), 2);
}

#[test]
fn a_rest_does_not_bring_more_than_one_burst() {
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
fn a_flood_neither_grows_the_table_nor_resets_a_limit() {
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
fn the_first_of_two_limits_is_not_charged_when_the_second_refuses() {
    let layer = TokenBucketLayer::new(Rate::per_hour(5)).and_global(Rate::per_hour(3)).clock(FakeClock::new());
    let buckets = layer.handle();
    buckets.check(&Client::named("bob"), Cost::new(3)).unwrap();
    for _ in 0..10 {
        assert_eq!(buckets.check(&alice(), Cost::ONE).unwrap_err().reason(), Reason::Capacity);
    }
    assert_eq!(buckets.peek(&alice()).remaining, 5);
}

#[test]
fn a_change_of_tier_is_not_a_fresh_bucket() {
    let layer = TokenBucketLayer::new(Rate::per_hour(10)).rate_for("pro", Rate::per_second(10)).clock(FakeClock::new());
    assert_eq!(passed(&layer, &alice(), 20), 10);
    assert_eq!(passed(&layer, &alice().with_tier("pro"), 20), 0);
    assert_eq!(passed(&layer, &alice(), 20), 0);
}

#[tokio::test]
async fn a_refusal_does_not_tell_the_log_whose_key_it_was() {
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
