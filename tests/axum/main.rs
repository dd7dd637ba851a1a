//! Refusals that handlers of axum return.

use std::{convert::Infallible, time::Duration};

use axum::{Extension, Router, body::Body, routing::get};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tollgate::{
    CallError, CircuitBreaker, CircuitBreakerLayer, Client, Dialect, FakeClock, JobError, OnUnidentified, Period, Plan,
    Quota, QuotaLayer, Quotas, Reason, Refusal, Trip, refusal::Reset,
};
use tower::{Service, ServiceExt};

const NOW: Duration = Duration::from_millis(1_790_000_000_500);

fn quotas(dialect: Dialect) -> QuotaLayer {
    let plan = Plan::new("free").limit(Quota::requests(1).per(Period::hour()));
    QuotaLayer::new(plan).clock(FakeClock::at(NOW)).rate_limit_headers(dialect).on_unidentified(OnUnidentified::Share)
}

async fn answer<S>(service: S) -> (StatusCode, HeaderMap, Option<Refusal>, Vec<u8>)
where
    S: Service<Request<Body>, Response = Response<axum::body::Body>, Error = Infallible>,
{
    let (mut head, body) = service.oneshot(Request::new(Body::empty())).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    (head.status, head.headers, head.extensions.remove(), body)
}

/// Charges a request to the client of unidentified requests, as the layer does.
async fn charged(Extension(quotas): Extension<Quotas>) -> Result<&'static str, Refusal> {
    quotas.charge(&quotas.anonymous(), ("requests", 1)).await?;
    Ok("rows")
}

#[tokio::test]
async fn handler_answers_as_the_layer_would() {
    for dialect in [Dialect::Draft11, Dialect::XRateLimit { reset: Reset::Epoch }, Dialect::None] {
        let layer = quotas(dialect);
        layer.handle().record(&layer.handle().anonymous(), ("requests", 1)).await.unwrap();
        let by_handler = answer(Router::new().route("/", get(charged)).layer(Extension(layer.handle()))).await;
        let by_layer = answer(Router::new().route("/", get(async || "rows")).layer(layer)).await;
        assert_eq!(by_handler, by_layer);
        let (status, headers, refusal, body) = by_handler;
        assert_eq!((status, refusal.unwrap().reason()), (StatusCode::TOO_MANY_REQUESTS, Reason::RateLimited));
        assert_eq!([&headers["cache-control"], &headers["content-type"]], ["no-store", "application/problem+json"]);
        assert!(headers.contains_key("retry-after") && body.starts_with(b"{\"type\":"));
    }
}

#[tokio::test]
async fn outer_layers_see_a_refusal_and_no_failure() {
    let inner = quotas(Dialect::Draft11).handle();
    inner.record(&inner.anonymous(), ("requests", 1)).await.unwrap();
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    let outer = quotas(Dialect::Draft11).named("outer");
    let app =
        Router::new().route("/", get(charged)).layer(Extension(inner)).layer(breaker.clone()).layer(outer.clone());
    let (status, ..) = answer(app).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(breaker.handle().counts().calls, 0);
    let usage = outer.handle().usage(&outer.handle().anonymous()).await.unwrap();
    assert_eq!(usage.limits[0].used, 0, "the request is refunded");
}

#[tokio::test]
async fn refusal_of_an_outbound_breaker_is_a_charged_response() {
    async fn item(Extension(inventory): Extension<CircuitBreaker>) -> Result<&'static str, CallError<StatusCode>> {
        inventory.call(async { Err(StatusCode::BAD_GATEWAY) }).await
    }
    let inventory = CircuitBreakerLayer::for_client(Duration::from_secs(2)).trip(Trip::consecutive(1)).handle();
    let outer = quotas(Dialect::Draft11);
    let app = Router::new().route("/", get(item)).layer(Extension(inventory.clone())).layer(outer.clone());
    inventory.force_open();
    let (status, headers, refusal, _) = answer(app).await;
    assert_eq!((status, &headers["cache-control"]), (StatusCode::SERVICE_UNAVAILABLE, &"no-store".parse().unwrap()));
    assert!(refusal.unwrap().is_outbound());
    let usage = outer.handle().usage(&outer.handle().anonymous()).await.unwrap();
    assert_eq!(usage.limits[0].used, 1, "the handler did its work");
}

#[tokio::test]
async fn inner_errors_answer_for_themselves() {
    use axum::response::IntoResponse;

    let failed = CallError::Inner(StatusCode::BAD_GATEWAY).into_response();
    assert_eq!((failed.status(), failed.extensions().get::<Refusal>()), (StatusCode::BAD_GATEWAY, None));
    let failed = JobError::Failed((StatusCode::IM_A_TEAPOT, "no printer")).into_response();
    assert_eq!(failed.status(), StatusCode::IM_A_TEAPOT);

    let quotas = quotas(Dialect::Draft11).handle();
    let alice = Client::named("alice");
    let job = || quotas.try_run_job(&alice, "order 17", ("requests", 2), async { Err::<(), _>(StatusCode::OK) });
    let refused = job().await.unwrap_err().into_response();
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(refused.extensions().get::<Refusal>().map(Refusal::reason), Some(Reason::TooLarge));
}
