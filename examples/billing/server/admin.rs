//! Administration behind the token: grants, jobs whose outcome is unknown, and a check of counters against rows.

use std::time::SystemTime;

use axum::{
    Json,
    extract::{FromRequestParts, Path, State},
    http::{StatusCode, header::AUTHORIZATION, request::Parts},
};
use serde_json::{Value, json};
use tollgate::{Digester, Grant, JobOutcome, JobState, Period};

use super::{
    DAILY, Shop,
    parameters::{Parameters, tenant},
    problem::Problem,
    reports::{present, text},
};

/// Proof that a request carries the token.
pub(super) struct Admin;

impl FromRequestParts<Shop> for Admin {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Problem> {
        let Some(token) = &shop.admin_token else {
            return Err(Problem::new(StatusCode::FORBIDDEN, "administration is off: the server has no ADMIN_TOKEN"));
        };
        let value = parts.headers.get(AUTHORIZATION).map_or(&b""[..], |value| value.as_bytes());
        match value.split_at_checked(7) {
            Some((scheme, value)) if scheme.eq_ignore_ascii_case(b"bearer ") && is_same(value, token.as_bytes()) => {
                Ok(Self)
            }
            _ => {
                Err(Problem::new(StatusCode::UNAUTHORIZED, "Authorization must be Bearer followed by the ADMIN_TOKEN"))
            }
        }
    }
}

/// Compares digests under a secret key, so that the time of the comparison reveals neither the token nor its length.
fn is_same(value: &[u8], token: &[u8]) -> bool {
    let digest = |text: &[u8]| Digester::process().digest("admin token", [text]);
    digest(value) == digest(token)
}

pub(super) async fn grant(
    _: Admin,
    State(shop): State<Shop>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    parameters.only(&["amount", "approver", "reason", "until"])?;
    let (client, amount) = (tenant(&name)?, parameters.amount("amount")?);
    let until = match parameters.get("until")? {
        Some(value) => {
            let time = value.parse::<jiff::Timestamp>().ok().and_then(|time| SystemTime::try_from(time).ok());
            let bad_request = || format!("until must be a time such as {}, got {value:?}", text(end_of_day()));
            time.ok_or_else(|| Problem::bad_request(bad_request()))?
        }
        None => end_of_day(),
    };
    let grant = Grant::try_new(DAILY, amount, until).map_err(|invalid| Problem::bad_request(invalid.to_string()))?;
    let grant = grant.approved_by(parameters.text("approver")?).because(parameters.text("reason")?);
    shop.quotas.grant(&client, grant).await?;
    Ok(Json(json!({ "tenant": name, "granted": amount, "until": text(until) })))
}

/// Settles a job whose outcome is unknown, as after a kill.
pub(super) async fn settle(
    _: Admin,
    State(shop): State<Shop>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Json<Value>, Problem> {
    parameters.only(&["job", "outcome"])?;
    let (client, job) = (tenant(&name)?, parameters.text("job")?);
    let outcome = match parameters.text("outcome")? {
        "done" => JobOutcome::Done,
        "free" => JobOutcome::Free,
        other => return Err(Problem::bad_request(format!("outcome must be done or free, got {other:?}"))),
    };
    match shop.quotas.settle_job(&client, job, outcome).await? {
        Some(JobState::Unknown) => {
            Ok(Json(json!({ "tenant": name, "job": job, "outcome": parameters.text("outcome")? })))
        }
        Some(state) => {
            let detail = format!("outcome of the job must be unknown to be settled, got a job in the state {state:?}");
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("tenant {name:?} has no job {job:?}"))),
    }
}

pub(super) async fn reconcile(_: Admin, State(shop): State<Shop>) -> Result<Json<Value>, Problem> {
    let report = shop.ledger.reconcile().await?;
    let drifts = report.drifts.iter().map(|drift| {
        json!({
            "tenant": drift.tenant, "limit": drift.limit, "window_start": text(drift.window_start),
            "counted": drift.counted, "written": drift.written,
        })
    });
    let drifts: Vec<_> = drifts.collect();
    Ok(Json(json!({ "compared": report.compared, "drift": report.drift(), "drifts": drifts })))
}

/// Default end of a grant.
fn end_of_day() -> SystemTime {
    SystemTime::UNIX_EPOCH + present(Period::day()).end()
}
