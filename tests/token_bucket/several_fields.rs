//! Fields of responses of a layer with several rates: all policies, and the one that is nearest to a refusal.

use std::{collections::HashSet, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{
    CircuitBreakerLayer, Client, Cost, Dialect, FakeClock, Rate, RequestHead, TokenBucketLayer, refusal::Reset,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{ask, field, from, hello};

/// A layer whose clients are called alice and have the tier that `x-tier` names.
fn layer(rates: &[Rate]) -> TokenBucketLayer {
    let layer = TokenBucketLayer::new(rates[0]).clock(FakeClock::new()).identify_by(
        |request: &RequestHead<'_>, _: &tollgate::Digester| {
            let tier = request.headers.get("x-tier").and_then(|tier| tier.to_str().ok());
            let alice = Client::named("alice");
            Some(tier.map_or(alice.clone(), |tier| alice.with_tier(tier)))
        },
    );
    rates[1..].iter().fold(layer, |layer, rate| layer.and_rate(*rate))
}

fn of_tier(tier: &'static str) -> Request<Full<Bytes>> {
    let mut request = from("192.0.2.1:1");
    request.headers_mut().insert("x-tier", tier.parse().unwrap());
    request
}

/// Both fields of a response.
fn fields(response: &Response<Bytes>) -> (&str, &str) {
    (field(response, "ratelimit-policy").unwrap(), field(response, "ratelimit").unwrap())
}

#[tokio::test]
async fn each_of_several_rates_is_reported_when_nearest() {
    let names = ["default", "default-2", "default-3"];
    let item = |(count, name): (&u64, &str)| format!("\"{name}\";q={count};w=3600");
    for counts in [&[10, 20][..], &[20, 10], &[10, 20, 30], &[20, 10, 30], &[20, 30, 10], &[30, 20, 10]] {
        let rates: Vec<_> = counts.iter().map(|count| Rate::per_hour(*count)).collect();
        let narrow = names[counts.iter().position(|count| *count == 10).unwrap()];
        let policies: Vec<_> = counts.iter().zip(names).map(item).collect();
        let response = ask(&layer(&rates), from("192.0.2.1:1")).await;
        assert_eq!(fields(&response), (&*policies.join(", "), &*format!("\"{narrow}\";r=9;t=3240")));

        let dialect = Dialect::XRateLimit { reset: Reset::Delta };
        let response = ask(&layer(&rates).rate_limit_headers(dialect), from("192.0.2.1:1")).await;
        let single = ["limit", "remaining", "reset"].map(|part| field(&response, &format!("x-ratelimit-{part}")));
        assert_eq!(single, [Some("10"), Some("9"), Some("3240")]);
    }
}

#[tokio::test]
async fn nearest_rate_changes_as_tokens_come_and_go() {
    let clock = FakeClock::new();
    let layer = layer(&[Rate::per_second(3), Rate::per_hour(5)]).clock(clock.clone());
    let history = [
        (0, "\"default\";r=2;t=1"),
        (0, "\"default\";r=1;t=1"),
        (1, "\"default-2\";r=2;t=1441"), // of two with the same remainder, the slower one
        (0, "\"default-2\";r=1;t=721"),
        (1, "\"default-2\";r=0;t=718"),
        (0, "\"default-2\";r=0;t=718"), // refused
    ];
    for (pause, expected) in history {
        clock.advance(Duration::from_secs(pause));
        let response = ask(&layer, from("192.0.2.1:1")).await;
        assert_eq!(fields(&response), ("\"default\";q=3;w=1, \"default-2\";q=5;w=3600", expected));
    }
}

#[tokio::test]
async fn refusal_is_that_of_the_refusing_rate_alone() {
    let (narrow, wide) = (Rate::per_hour(1), Rate::per_hour(9));
    for (rates, name) in [([narrow, wide], "default"), ([wide, narrow], "default-2")] {
        let (alone, several) = (layer(&[narrow]).named(name), layer(&rates));
        for admitted in [true, false] {
            let alone = ask(&alone, from("192.0.2.1:1")).await;
            let several = ask(&several, from("192.0.2.1:1")).await;
            assert_eq!(alone.status().is_success(), admitted);
            assert_eq!((alone.status(), alone.body()), (several.status(), several.body()));
            for name in ["ratelimit", "retry-after", "content-type"] {
                assert_eq!(field(&alone, name), field(&several, name), "{name}");
            }
            let [first, second] = rates.map(|rate| rate.capacity());
            let policies = format!("\"default\";q={first};w=3600, \"default-2\";q={second};w=3600");
            assert_eq!(fields(&several).0, policies);
        }
    }
}

#[tokio::test]
async fn policies_are_those_of_the_tier_and_the_rates_in_force() {
    let layer = layer(&[Rate::per_hour(50), Rate::per_hour(70)]).rate_for("pro", Rate::per_hour(90));
    let buckets = layer.handle();
    let expect = async |tier, first: u64, item: &str| {
        let response = ask(&layer, of_tier(tier)).await;
        let policies = format!("\"default\";q={first};w=3600, \"default-2\";q=70;w=3600");
        assert_eq!(fields(&response), (&*policies, item), "{tier}");
    };
    expect("free", 50, "\"default\";r=49;t=3528").await;
    expect("pro", 90, "\"default-2\";r=68;t=3498").await;
    buckets.set_rate(Rate::per_hour(100));
    expect("free", 100, "\"default-2\";r=67;t=3446").await;
    buckets.set_rate_for("pro", Rate::per_hour(60));
    expect("pro", 60, "\"default\";r=58;t=3480").await;
    buckets.set_global(Some(Rate::per_hour(10)));
    expect("pro", 60, "\"default\";r=57;t=3420").await;
    buckets.remove_tier_rate("pro");
    expect("pro", 100, "\"default-2\";r=64;t=3292").await;
    buckets.set_rate_for("new", Rate::per_hour(1));
    expect("new", 1, "\"default\";r=0;t=3600").await;
}

#[tokio::test]
async fn refund_reaches_all_buckets_when_a_further_one_is_reported() {
    let clock = FakeClock::new();
    let layer = layer(&[Rate::per_hour(5), Rate::per_hour(4)]).rate_for("pro", Rate::per_hour(6)).clock(clock.clone());
    layer.handle().set_global(Some(Rate::per_hour(7)));
    let breaker = CircuitBreakerLayer::for_server().clock(clock);
    breaker.handle().force_open();
    let service = layer.layer(breaker.layer(service_fn(hello)));
    for tier in ["free", "pro"] {
        for _ in 0..20 {
            let refused = service.clone().oneshot(of_tier(tier)).await.unwrap();
            assert_eq!(refused.status(), 503, "{tier}");
            assert_eq!(refused.headers()["ratelimit"], "\"default-2\";r=4;t=3600", "{tier}");
        }
    }
}

#[tokio::test]
async fn shared_bucket_of_a_further_rate_leaves_the_first_reported() {
    for (cost, item, left) in [(Cost::ONE, "\"default\";r=8;t=1", 4), (Cost::PREFLIGHT, "\"default\";r=9;t=2", 5)] {
        let clock = FakeClock::new();
        let layer = layer(&[Rate::per_second(9), Rate::per_hour(5)]).max_clients(1).clock(clock.clone());
        let layer = layer.cost(move |_| cost);
        let buckets = layer.handle();
        buckets.check(&Client::named("bob"), Cost::ONE).unwrap();
        clock.advance(Duration::from_secs(2)); // bob's bucket of the first rate is full, that of the second is not
        buckets.forget_idle();
        let response = ask(&layer, from("192.0.2.1:1")).await;
        assert_eq!(fields(&response), ("\"default\";q=9;w=1, \"default-2\";q=5;w=3600", item));
        let others = (0..9).filter(|_| buckets.check(&Client::named("carol"), Cost::ONE).is_ok());
        assert_eq!(others.count(), left);
    }
}

#[tokio::test]
async fn names_stay_unique_in_a_stack_of_several_rates() {
    let long = "a".repeat(64);
    for name in ["default", &long] {
        let rates = |count| layer(&[Rate::per_hour(count + 1), Rate::per_hour(count)]).named(name);
        let stack = rates(8).layer(rates(7).layer(rates(6).layer(service_fn(hello))));
        let response = stack.oneshot(from("192.0.2.1:1")).await.unwrap();
        let names = |field: &str| {
            let lines = response.headers()[field].to_str().unwrap().split(", ");
            lines.map(|item| item.split(';').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (policies, items) = (names("ratelimit-policy"), names("ratelimit"));
        assert_eq!((policies.len(), items.len()), (6, 3));
        assert_eq!(policies.iter().collect::<HashSet<_>>().len(), 6, "{policies:?}");
        assert!(items.iter().all(|item| policies.contains(item)), "{items:?} of {policies:?}");
    }
}
