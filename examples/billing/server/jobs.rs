//! Jobs: charged and done once, however often they are sent.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tollgate::JobRun;

use super::{
    Shop, UNITS,
    parameters::{Parameters, header, tenant},
    problem::Problem,
};

/// Longest work.
const LONGEST_MS: u64 = 600_000;

const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

pub(super) async fn job(
    State(shop): State<Shop>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Response, Problem> {
    let (name, id) = (header(&headers, "x-tenant")?, header(&headers, "x-job-id")?);
    parameters.only(&["amount", "hold_ms"])?;
    let (tenant, amount) = (tenant(name)?, parameters.amount("amount")?);
    let hold = hold(parameters.get("hold_ms")?)?;

    let run = shop.quotas.run_job(&tenant, id, (UNITS, amount), work(hold)).await?;

    let mut answer = Json(json!({ "tenant": name, "job": id, "charged": amount })).into_response();
    if run == JobRun::Replayed {
        answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(answer)
}

/// Work that the tenant pays for.
async fn work(hold: Duration) {
    tokio::time::sleep(hold).await;
}

fn hold(text: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let millis = text.parse().ok().filter(|millis| *millis <= LONGEST_MS);
    let bad_request = || Problem::bad_request(format!("hold_ms must be a whole number from 0 to {LONGEST_MS}"));
    millis.map(Duration::from_millis).ok_or_else(bad_request)
}
