//! Tests of a program whose billed quota follows a clock that the test moves.

use std::time::{Duration, SystemTime};

use axum::{Extension, Router, body::Body, routing::post};
use http::{Request, StatusCode};
use tollgate::{
    ApiKey, Charge, Client, Clock, FakeClock, Ledger, LedgerBuilder, OnFailure, Period, Plan, Principal, Quota,
    QuotaLayer, Quotas,
};
use tower::ServiceExt;

use crate::support::directory::Directory;

const MONTH: Duration = Duration::from_secs(31 * 86_400);

fn layer(ledger: &Ledger, clock: &FakeClock) -> QuotaLayer {
    let plan = Plan::new("paid").limit(Quota::units("tokens", 100).per(Period::month()));
    QuotaLayer::new(plan)
        .identify_by(
            ApiKey::header("x-api-key", |key: &str| (key == "k").then(|| Principal::named("acme"))).named_only(),
        )
        .cost("tokens", |_| Some(50))
        .share_with_handler()
        .store_in(ledger, OnFailure::FailClosed)
        .clock(clock.clone())
}

async fn used(quotas: &Quotas) -> (u64, u64) {
    let usage = quotas.usage(&Client::named("acme")).await.unwrap();
    (usage.limits[0].used, usage.limits[0].reserved)
}

#[tokio::test]
async fn a_month_ends_when_the_test_says_so() {
    month_ends(Ledger::sqlite_in_memory()).await;
}

#[tokio::test]
async fn a_lost_reservation_ends_by_the_tests_clock() {
    let directory = Directory::new();
    lost_reservation_ends(Ledger::sqlite(directory.0.join("quota.db"))).await;
}

#[tokio::test]
async fn boundary_of_a_refusal_is_by_the_ledgers_clock() {
    boundary_is_by_the_ledgers_clock(Ledger::sqlite_in_memory()).await;
}

#[cfg(feature = "postgres")]
mod on_a_server {
    use super::*;

    fn ledger() -> LedgerBuilder {
        Ledger::postgres(crate::support::postgres::Postgres::shared().database())
    }

    #[tokio::test]
    async fn a_month_ends_when_the_test_says_so() {
        month_ends(ledger()).await;
    }

    #[tokio::test]
    async fn a_lost_reservation_ends_by_the_tests_clock() {
        lost_reservation_ends(ledger()).await;
    }

    #[tokio::test]
    async fn boundary_of_a_refusal_is_by_the_ledgers_clock() {
        boundary_is_by_the_ledgers_clock(ledger()).await;
    }
}

async fn month_ends(ledger: LedgerBuilder) {
    let clock = FakeClock::new();
    let ledger = ledger.clock(clock.clone()).open().await.unwrap();
    let layer = layer(&ledger, &clock);
    let quotas = layer.handle();
    let handler = async |Extension(charge): Extension<Charge>| {
        charge.record("tokens", 40);
        "done"
    };
    let app = Router::new().route("/", post(handler)).layer(layer);
    let send = async || {
        let request = Request::post("/").header("x-api-key", "k").body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap().status()
    };

    let january = SystemTime::UNIX_EPOCH + Clock::from(clock.clone()).wall();
    assert_eq!(send().await, StatusCode::OK);
    ledger.flush().await;
    assert_eq!(used(&quotas).await, (40, 0));
    assert_eq!(send().await, StatusCode::OK);
    assert_eq!(send().await, StatusCode::TOO_MANY_REQUESTS);
    clock.advance(MONTH);
    assert_eq!(send().await, StatusCode::OK);
    ledger.flush().await;
    assert_eq!(used(&quotas).await, (40, 0));

    let invoice = ledger.invoice("acme", january, january + MONTH, |_, quantity| quantity).await.unwrap();
    assert!(invoice.closed, "the test's clock has reached its end");
    assert_eq!(invoice.total, 80);
    let past = ledger.usage_at("acme", january).await.unwrap();
    assert_eq!(past.len(), 1, "of January alone: {past:?}");
    let mut rows = ledger.entries("acme", january, january + MONTH);
    assert_eq!(rows.next().await.unwrap().unwrap().at, january);
}

async fn lost_reservation_ends(ledger: LedgerBuilder) {
    let clock = FakeClock::new();
    let ledger = ledger.clock(clock.clone()).open().await.unwrap();
    let quotas = layer(&ledger, &clock).handle();
    let acme = Client::named("acme");
    let id = quotas.reserve(&acme, ("tokens", 50)).await.unwrap().detach();
    assert_eq!(used(&quotas).await, (0, 50));
    clock.advance(Duration::from_secs(7 * 86_400));
    while used(&quotas).await.1 > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await; // the round that releases it
    }
    assert!(quotas.commit(&id, ("tokens", 1)).await.is_ok());
}

/// The clock of the process is ahead of the one of the ledger, by less than a second.
async fn boundary_is_by_the_ledgers_clock(ledger: LedgerBuilder) {
    let (clock, ahead) = (FakeClock::new(), FakeClock::new());
    let ledger = ledger.clock(clock).open().await.unwrap();
    let (quotas, acme) = (layer(&ledger, &ahead).handle(), Client::named("acme"));
    quotas.charge(&acme, ("tokens", 100)).await.unwrap();
    let ends = quotas.usage(&acme).await.unwrap().limits[0].resets_at.unwrap();
    let mut told = Vec::new();
    for _ in 0..9 {
        ahead.advance(Duration::from_millis(70));
        let refusal = quotas.charge(&acme, ("tokens", 1)).await.unwrap_err();
        assert_eq!(refusal.resets_at().map(|at| SystemTime::UNIX_EPOCH + at), Some(ends));
        told.push(refusal.retry_after_seconds().unwrap());
    }
    told.dedup();
    assert_eq!(told.len(), 1, "one client is told one moment: {told:?}");
}

#[tokio::test]
async fn flush_waits_for_settlements_and_not_for_more() {
    let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    ledger.flush().await; // nothing was ever written
    let quotas = layer(&ledger, &FakeClock::new()).handle();
    let acme = Client::named("acme");
    let reservations = futures_util::future::join_all((0..2).map(|_| quotas.reserve(&acme, ("tokens", 50)))).await;
    assert_eq!(used(&quotas).await, (0, 100));
    drop(reservations);
    ledger.flush().await;
    assert_eq!(used(&quotas).await, (0, 0));
    let (first, second) = tokio::join!(ledger.flush(), ledger.flush());
    assert_eq!((first, second), ((), ()));
}
