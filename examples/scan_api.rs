//! Scans with a concurrency limit and a daily byte budget, shared by two routes.
//!
//! ```text
//! cargo run --example scan_api                                     # on 127.0.0.1:3000
//! MAX_CONCURRENT=2 DAILY_BYTES=1000 PORT=8080 cargo run --example scan_api
//! ```
//!
//! `POST /api/v2/scan` and `POST /api/query` take the parameters `bytes` and `hold_ms`, `GET /usage` returns the bytes
//! of the day. Each needs the header `x-user`. On SIGTERM or Ctrl-C it accepts nothing new and finishes running scans,
//! for at most 10 s.
//!
//! The bytes of a scan are known only at its end. A request is refused once the budget of the day is used up; the bytes
//! of a scan are recorded in any case.

#[path = "support/mod.rs"]
mod support;

use std::time::Duration;

use axum::{
    Extension, Json, Router,
    extract::{FromRequestParts, Query, Request, State, rejection::QueryRejection},
    http::{StatusCode, header::CONTENT_TYPE, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate::{Client, ConfigError, Identify, Period, Plan, Quota, QuotaLayer, Quotas, RequestHead, Unverified};

/// 50 GiB.
const DAILY_BYTES: u64 = 53_687_091_200;

/// Largest limit: JSON numbers hold it exactly.
const MOST: u64 = (1 << 53) - 1;

/// Kind of the counted bytes.
const SCANNED: &str = "bytes_scanned";

/// Identity of a request by an unverified field: a real service puts its authentication in front.
fn user() -> Unverified {
    Unverified::header("x-user")
}

fn layer(max_concurrent: u64, daily_bytes: u64) -> Result<QuotaLayer, ConfigError> {
    let plan = Plan::new("scans")
        .try_limit(Quota::try_of(SCANNED.into(), daily_bytes)?.per(Period::day()).named("daily_bytes"))?
        .try_limit(Quota::try_concurrent(max_concurrent)?.named("concurrent_scans"))?;
    Ok(QuotaLayer::new(plan).identify_by(user()).accept_unverified())
}

fn app(layer: QuotaLayer) -> Router {
    let quotas = layer.handle();
    let scans = Router::new().route("/api/v2/scan", post(scan)).route("/api/query", post(query)).layer(layer);
    let usage = Router::new().route("/usage", get(usage)); // never limited
    scans.merge(usage).layer(middleware::from_fn_with_state(quotas.clone(), identify)).with_state(quotas)
}

/// Inserts the client for the handlers, the same that the layer charges.
async fn identify(State(quotas): State<Quotas>, mut request: Request, next: Next) -> Response {
    let Some(client) = user().identify(&RequestHead::of(&request), quotas.digester()) else {
        return BadRequest(String::from("x-user must be sent once, in at most 4 KiB, such as x-user: alice"))
            .into_response();
    };
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// Size and duration of a scan.
#[derive(Deserialize)]
struct Scan {
    #[serde(default)]
    bytes: u64,
    #[serde(default)]
    hold_ms: u64,
}

impl<S: Send + Sync> FromRequestParts<S> for Scan {
    type Rejection = BadRequest;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, BadRequest> {
        let scan: Result<Query<Self>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let query = parts.uri.query().unwrap_or_default();
        let bad_request =
            |_| BadRequest(format!("bytes and hold_ms must be whole numbers, each given once, got {query:?}"));
        scan.map(|Query(scan)| scan).map_err(bad_request)
    }
}

/// Error of a request, as a problem document.
struct BadRequest(String);

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        let Self(detail) = self;
        let problem = json!({ "type": "about:blank", "title": "Bad Request", "status": 400, "detail": detail });
        (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/problem+json")], problem.to_string()).into_response()
    }
}

async fn scan(State(quotas): State<Quotas>, Extension(client): Extension<Client>, scan: Scan) -> Json<Value> {
    Json(json!({ "scanned": read(&quotas, &client, scan).await }))
}

async fn query(State(quotas): State<Quotas>, Extension(client): Extension<Client>, scan: Scan) -> Json<Value> {
    Json(json!({ "read": read(&quotas, &client, scan).await }))
}

/// Scans, and records the size that is known at the end.
async fn read(quotas: &Quotas, client: &Client, scan: Scan) -> u64 {
    tokio::time::sleep(Duration::from_millis(scan.hold_ms)).await;
    quotas.record(client, (SCANNED, scan.bytes)).await.expect("memory always answers");
    scan.bytes
}

/// Returns this user's usage of the day.
async fn usage(State(quotas): State<Quotas>, Extension(client): Extension<Client>) -> Json<Value> {
    let usage = quotas.usage(&client).await.expect("memory always answers");
    let day = usage.get("daily_bytes").expect("the plan has it");
    let resets_at = day.resets_at.and_then(|at| jiff::Timestamp::try_from(at).ok()).map(|at| at.to_string());
    Json(json!({ "used": day.used, "limit": day.limit, "remaining": day.remaining, "resets_at": resets_at }))
}

/// Reads a limit from the environment.
fn limit(name: &str, usual: u64) -> Result<u64, String> {
    let Some(text) = support::variable(name)? else { return Ok(usual) };
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| format!("{name} must be a whole number from 1 to 2^53 - 1, got {text:?}"))
}

#[tokio::main]
async fn main() -> Result<(), support::ExampleError> {
    support::start(include_str!("scan_api.rs"), None)?;
    let layer = layer(limit("MAX_CONCURRENT", 5)?, limit("DAILY_BYTES", DAILY_BYTES)?)?;
    let listener = support::bind(3000).await?;
    let address = listener.local_addr()?;
    let stop = support::stop_signal()?;
    println!("listening on http://{address}");
    println!("curl -X POST -H 'x-user: alice' 'http://{address}/api/v2/scan?bytes=1000&hold_ms=5000'");
    println!("curl -X POST -H 'x-user: alice' 'http://{address}/api/query?bytes=1000'");
    println!("curl -H 'x-user: alice' 'http://{address}/usage'");
    let server = |stop| axum::serve(listener, app(layer)).with_graceful_shutdown(stop).into_future();
    Ok(support::run(stop, server).await?)
}
