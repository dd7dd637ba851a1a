//! Usage, ledger rows and invoice of a tenant.

use std::time::{Duration, SystemTime};

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tollgate::{Clock, Period, QuotaError, Window};

use super::{DAILY, Shop, UNITS, parameters::tenant, problem::Problem};

/// Price of a unit, in cents.
const CENTS: u64 = 2;

/// A time after any row, since 1970.
const NEVER: Duration = Duration::from_secs(1 << 33);

pub(super) async fn usage(State(shop): State<Shop>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let client = tenant(&name)?;
    let usage = shop.quotas.usage(&client).await?;
    let day = usage.get(DAILY).expect("the plan has it");
    let grants = shop.quotas.grants(&client).await?.into_iter().map(|granted| {
        let grant = granted.grant;
        json!({
            "amount": grant.amount(), "used": granted.used, "until": text(grant.until()),
            "approver": grant.approver(), "reason": grant.reason(),
        })
    });
    Ok(Json(json!({
        "tenant": name, "limit": day.limit, "used": day.used, "reserved": day.reserved, "remaining": day.remaining,
        "resets_at": day.resets_at.map(text), "grants": grants.collect::<Vec<_>>(),
    })))
}

/// Streams all rows as they are read, because a ledger may exceed memory.
pub(super) async fn ledger(State(shop): State<Shop>, Path(name): Path<String>) -> Result<Response, Problem> {
    tenant(&name)?;
    let mut entries = shop.ledger.entries(&name, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + NEVER);
    let first = entries.next().await?; // an unavailable ledger can still be reported here
    let rest = stream::try_unfold(entries, |mut entries| async {
        let entry = entries.next().await?;
        Ok::<_, QuotaError>(entry.map(|entry| (entry, entries)))
    });
    let lines = stream::iter(first.map(Ok)).chain(rest).map(|entry| entry.map(|entry| format!("{entry}\n")));
    Ok(([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response())
}

/// Returns the invoice of this month until now.
pub(super) async fn invoice(State(shop): State<Shop>, Path(name): Path<String>) -> Result<Response, Problem> {
    tenant(&name)?;
    let month = present(Period::month());
    let price = |kind: &str, quantity: u64| if kind == UNITS { quantity.saturating_mul(CENTS) } else { 0 };
    let (from, until) = (SystemTime::UNIX_EPOCH + month.start(), SystemTime::UNIX_EPOCH + month.end());
    let invoice = shop.ledger.invoice(&name, from, until, price).await?;
    Ok(([(CONTENT_TYPE, "application/json")], format!("{invoice}\n")).into_response())
}

/// Returns the current period.
pub(super) fn present(period: Period) -> Window {
    period.window_at(Clock::system().wall())
}

/// Formats a time as RFC 3339.
pub(super) fn text(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| String::from("never"), |time| time.to_string())
}
