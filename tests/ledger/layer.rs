//! The layer in front of a service, with its accounts in a ledger.

use std::convert::Infallible;

use http::{Request, Response, StatusCode};
use tollgate::{Charge, JobIdSource, Principal, Verified};
use tower::{Layer, ServiceExt, service_fn};

use crate::*;

on_each_database! {
    request_is_charged_and_gets_limit_fields
    handler_records_the_actual_amount
    job_runs_once
    body_bytes_are_written
    unsupported_plan_fails_at_construction
}

#[derive(Clone)]
struct Tenant(&'static str);

fn layer(ledger: &Ledger, plan: Plan) -> QuotaLayer {
    let tenant = Verified::from_extension(|tenant: &Tenant| Some(Principal::named(tenant.0))).named_only();
    QuotaLayer::new(plan).identify_by(tenant).store_in(ledger, OnFailure::FailClosed)
}

fn request(uri: &str) -> Request<String> {
    Request::post(uri).extension(Tenant("acme")).body(String::new()).unwrap()
}

async fn answer(request: Request<String>) -> Result<Response<String>, Infallible> {
    if let Some(charge) = request.extensions().get::<Charge>() {
        charge.record("tokens", 3);
    }
    Ok(Response::new(String::from("0123456789")))
}

async fn ask(layer: &QuotaLayer, request: Request<String>) -> (StatusCode, http::HeaderMap) {
    let answer = layer.layer(service_fn(answer)).oneshot(request).await.unwrap();
    let (head, body) = answer.into_parts();
    http_body_util::BodyExt::collect(body).await.unwrap();
    (head.status, head.headers)
}

async fn request_is_charged_and_gets_limit_fields(database: Database) {
    let ledger = database.open().await;
    let layer = layer(&ledger, Plan::new("paid").limit(Quota::requests(2).per(MONTH).named("requests_per_month")));
    let (status, headers) = ask(&layer, request("/")).await;
    assert_eq!(status, StatusCode::OK);
    assert!(headers["ratelimit"].to_str().unwrap().starts_with("\"requests_per_month\";r=1;t="));
    assert_eq!(ask(&layer, request("/")).await.0, StatusCode::OK);
    let (status, headers) = ask(&layer, request("/")).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(headers.contains_key("retry-after"));
    assert_eq!(told(&rows(&ledger, "acme").await).len(), 2, "a refusal writes nothing");
}

async fn handler_records_the_actual_amount(database: Database) {
    let ledger = database.open().await;
    let layer = layer(&ledger, tokens(100)).share_with_handler();
    assert_eq!(ask(&layer, request("/")).await.0, StatusCode::OK);
    settled(&ledger).await;
    assert_eq!(counts(&layer.handle(), &acme()).await, (3, 0));
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn job_runs_once(database: Database) {
    let ledger = database.open().await;
    let layer = layer(&ledger, Plan::new("paid").limit(Quota::requests(9).per(Period::month())));
    let layer = layer.job_ids(JobIdSource::header("x-job-id"));
    let job = |id: &str, uri: &str| {
        let mut request = request(uri);
        request.headers_mut().insert("x-job-id", id.parse().unwrap());
        request
    };
    assert_eq!(ask(&layer, job("17", "/scan")).await.0, StatusCode::OK);
    assert_eq!(ask(&layer, job("17", "/scan")).await.0, StatusCode::CONFLICT);
    assert_eq!(ask(&layer, job("17", "/other")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(told(&rows(&ledger, "acme").await), [("17", "charge", 1)]);
}

/// Returns the error of a layer with this plan over a ledger.
async fn said(ledger: &Ledger, make: impl FnOnce(&Ledger) -> QuotaLayer) -> String {
    let build = std::panic::AssertUnwindSafe(|| drop(make(ledger).handle()));
    let panic = std::panic::catch_unwind(build).unwrap_err();
    panic.downcast_ref::<String>().unwrap().clone()
}

async fn unsupported_plan_fails_at_construction(database: Database) {
    let ledger = database.open().await;
    let odd = Period::rolling(std::time::Duration::new(60, 1));
    let plan = Plan::new("odd").limit(Quota::units("tokens", 5).per(odd));
    let text = said(&ledger, |ledger| layer(ledger, plan)).await;
    assert!(
        text.ends_with("of plan \"odd\" in a ledger must begin and end at whole microseconds, got 60.000000001s"),
        "{text}"
    );
    let text = said(&ledger, |ledger| layer(ledger, tokens(5).starting_fresh())).await;
    assert!(text.contains("starts fresh, but a ledger continues its counters"), "{text}");
    let nameless = Verified::from_extension(|tenant: &Tenant| Some(Principal::private(tenant.0)));
    let text = said(&ledger, |ledger| layer(ledger, tokens(5)).identify_by(nameless)).await;
    assert!(text.contains("without one; call .named_only() on the ApiKey or Verified"), "{text}");
}

async fn body_bytes_are_written(database: Database) {
    let ledger = database.open().await;
    let plan = Plan::new("paid").limit(Quota::bytes(15).per(MONTH));
    let layer = layer(&ledger, plan);
    for used in [10, 20] {
        assert_eq!(ask(&layer, request("/")).await.0, StatusCode::OK);
        settled(&ledger).await;
        assert_eq!(counts(&layer.handle(), &acme()).await, (used, 0));
    }
    assert_eq!(ask(&layer, request("/")).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}
