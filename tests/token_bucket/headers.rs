//! Fields and documents that the layer adds to responses.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use tollgate::{Client, Cost, FakeClock, Rate, Refusal, RequestHead, TokenBucketLayer, refusal::Dialect};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use crate::{ask, field, from, hello};

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
async fn rate_that_does_not_divide_a_second_is_reported_as_set() {
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
async fn custom_answer_keeps_the_fields() {
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

/// A layer whose requests cost the value of `x-cost`.
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
async fn refusal_for_cost_reports_the_remaining_amount() {
    let layer = costly(Dialect::Draft11);
    ask_for(&layer, "8060").await;
    let refused = ask_for(&layer, "5000").await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(field(&refused, "ratelimit"), Some("\"default\";r=1940;t=3060"));
    assert_eq!(field(&refused, "retry-after"), Some("3060"));
    let problem: serde_json::Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(problem["detail"], "Too little is left of the limit of 10000. Retry in 51 minutes.");

    ask_for(&layer, "1940").await;
    let empty = ask_for(&layer, "1").await;
    assert_eq!(field(&empty, "ratelimit"), Some("\"default\";r=0;t=1"));
}

#[tokio::test]
async fn single_valued_dialects_report_the_remaining_amount() {
    let layer = costly(Dialect::XRateLimit { reset: tollgate::refusal::Reset::Delta });
    ask_for(&layer, "8060").await;
    let refused = ask_for(&layer, "5000").await;
    assert_eq!(field(&refused, "x-ratelimit-limit"), Some("10000"));
    assert_eq!(field(&refused, "x-ratelimit-remaining"), Some("1940"));
    assert_eq!(field(&refused, "x-ratelimit-reset"), Some("3060"));
}

#[tokio::test]
async fn retry_after_is_raised_to_the_wait_with_some_left() {
    let layer = costly(Dialect::Draft11)
        .refuse_with(|_: &Refusal| Response::builder().status(429).header("retry-after", "3").body("later").unwrap());
    ask_for(&layer, "8060").await;
    let refused = ask_for(&layer, "5000").await;
    assert_eq!(field(&refused, "ratelimit"), Some("\"default\";r=1940;t=3060"));
    assert_eq!(field(&refused, "retry-after"), Some("3060"));
}

#[tokio::test]
async fn first_rate_is_reported_beside_a_shared_further_bucket() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(10)).and_rate(Rate::per_hour(5)).max_clients(1);
    let layer = layer.clock(clock.clone());
    let buckets = layer.handle();
    buckets.check(&Client::named("first"), Cost::ONE).unwrap();
    clock.advance(Duration::from_secs(2));
    buckets.forget_idle(); // the table of the second rate is full now, that of the first is not
    let answer = ask(&layer, from("192.0.2.1:1")).await;
    assert_eq!(field(&answer, "ratelimit"), Some("\"default\";r=9;t=1"));
    assert_eq!(field(&answer, "ratelimit-policy"), Some("\"default\";q=10;w=1, \"default-2\";q=5;w=3600"));
}
