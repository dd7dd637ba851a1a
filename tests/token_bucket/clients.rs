//! Clients of one layer: unidentified, forged, idle, and more than fit in the table.

use std::{collections::HashMap, net::Ipv6Addr, time::Duration};

use tollgate::{
    ApiKey, Client, Cost, Event, FakeClock, Forwarded, Identify, OnUnidentified, PeerIp, Principal, Rate, Reason,
    TokenBucketLayer,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    ask, field, from, hello,
    support::gate::{Log, get as request},
};

#[tokio::test]
async fn unidentified_requests_share_a_bucket_and_warn_once() {
    let log = Log::default();
    let heard = log.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(2)).on_unidentified(OnUnidentified::Share);
    let layer = layer.clock(FakeClock::new()).observe(move |event: &Event<'_>| {
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

    let refusing = layer.fork().on_unidentified(OnUnidentified::Refuse);
    assert_eq!(ask(&refusing, request("/")).await.status(), 403);
    let passing = layer.fork().on_unidentified(OnUnidentified::Pass);
    for _ in 0..10 {
        let passed = ask(&passing, request("/")).await;
        assert_eq!((passed.status().as_u16(), field(&passed, "ratelimit")), (200, None));
    }
}

#[tokio::test]
async fn random_keys_from_one_peer_share_one_bucket() {
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
async fn forged_forwarding_headers_share_one_bucket() {
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
async fn addresses_of_one_ipv6_network_share_one_bucket() {
    let layer = TokenBucketLayer::new(Rate::per_hour(5)).clock(FakeClock::new());
    let mut passed = 0;
    for n in 0..5_000_u16 {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 7, n, n);
        passed += usize::from(ask(&layer, from(&format!("[{ip}]:1"))).await.status() == 200);
    }
    assert_eq!(passed, 5);
}

#[tokio::test]
async fn full_table_moves_no_known_client() {
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
    assert_eq!(passed, live - 1 + 50, "the newcomers with a slot, and a full overflow bucket");
    assert_eq!(overflows.lines().len(), 50_000 - (live - 1));
    assert_eq!(buckets.peek(&victim).remaining, 5, "at 95 % it stays at 95 %");
    let late = buckets.check(&Client::named("late"), Cost::ONE).unwrap_err();
    assert_eq!((late.reason(), late.retry_after_seconds()), (Reason::Capacity, Some(72)));

    clock.advance(Duration::from_secs(3_600));
    assert!(buckets.check(&Client::named("late"), Cost::ONE).is_ok(), "the flood is forgotten");
}

#[test]
fn idle_clients_are_evicted_while_others_are_served() {
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
fn sweep_evicts_idle_clients_without_a_request() {
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
