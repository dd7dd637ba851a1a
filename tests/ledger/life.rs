//! The life of a charge in a ledger.

use std::time::Duration;

use tollgate::{Amounts, CloseOutcome, Kind, OnExpiry, QuotaLayer, Reason, ReservationError, ReservationId};

use crate::*;

on_each_database! {
    reservation_outlives_its_process
    unknown_id_closes_nothing
    reservations_of_long_names_are_found_again
    abandoned_reservation_stays_charged
    abandoned_reservation_is_released_when_configured
    concurrency_is_limited_per_process
    unnamed_client_is_refused
}

async fn reservation_outlives_its_process(database: Database) {
    let ledger = database.open().await;
    let held = quotas(&ledger, tokens(100)).reserve(&acme(), ("tokens", 80)).await.unwrap();
    let id = held.detach().to_string();
    ledger.shut_down(HUNG).await;

    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    assert_eq!(counts(&quotas, &acme()).await, (0, 80));
    let id = id.parse().unwrap();
    assert_eq!(quotas.commit(&id, ("tokens", 30)).await, Ok(CloseOutcome::Closed));
    for actual in [30, 31, 0] {
        let again = CloseOutcome::AlreadyClosed { charged: ("tokens", 30).into() };
        assert_eq!(quotas.commit(&id, ("tokens", actual)).await, Ok(again));
    }
    assert_eq!(quotas.roll_back(&id).await, Err(ReservationError::Committed));
    assert_eq!(counts(&quotas, &acme()).await, (30, 0));
    let strange = "l.0.0.0.YWNtZQ.bm8".parse().unwrap();
    assert_eq!(quotas.roll_back(&strange).await, Err(ReservationError::Unknown));
}

async fn unknown_id_closes_nothing(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    quotas.run_job(&acme(), "order 17", ("tokens", 80), async {}).await.unwrap();
    let id = quotas.reserve(&acme(), ("tokens", 5)).await.unwrap().detach().to_string();
    let job = id.rsplit('.').next().unwrap();
    for forged in ["l.0.0.0.YWNtZQ.b3JkZXIgMTc".into(), format!("l.0.0.0.YWNtZQ.{job}")] {
        let forged = forged.parse().unwrap();
        assert_eq!(quotas.roll_back(&forged).await, Err(ReservationError::Unknown), "{forged}");
        assert_eq!(quotas.commit(&forged, ("tokens", 1)).await, Err(ReservationError::Unknown), "{forged}");
    }
    assert_eq!(counts(&quotas, &acme()).await, (80, 5));
}

async fn reservations_of_long_names_are_found_again(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let client = tollgate::Client::named("a".repeat(1_000));
    let id = quotas.reserve(&client, ("tokens", 80)).await.unwrap().detach().to_string();
    assert_eq!(quotas.roll_back(&id.parse().unwrap()).await, Ok(CloseOutcome::Closed));
}

/// Quotas whose reservations expire at once, and a reservation of 80 that is never closed.
async fn forgotten(database: &Database, on_expiry: Option<OnExpiry>) -> (Ledger, Quotas, ReservationId) {
    let ledger = database.open().await;
    let mut layer = QuotaLayer::new(tokens(100)).store_in(&ledger, OnFailure::FailClosed);
    if let Some(on_expiry) = on_expiry {
        layer = layer.on_expiry(on_expiry);
    }
    let quotas = layer.reservations_last(Duration::from_millis(1)).handle();
    let id = quotas.reserve(&acme(), ("tokens", 80)).await.unwrap().detach();
    (ledger, quotas, id)
}

async fn comes_to(quotas: &Quotas, expected: (u64, u64)) {
    until(&format!("{expected:?} are counted"), async || counts(quotas, &acme()).await == expected).await;
}

async fn abandoned_reservation_stays_charged(database: Database) {
    let (ledger, quotas, id) = forgotten(&database, None).await;
    comes_to(&quotas, (80, 0)).await;
    assert_eq!(quotas.roll_back(&id).await, Ok(CloseOutcome::Expired), "it changes nothing");
    assert_eq!(counts(&quotas, &acme()).await, (80, 0));
    assert_eq!(quotas.commit(&id, ("tokens", 30)).await, Ok(CloseOutcome::Expired));
    assert_eq!(counts(&quotas, &acme()).await, (30, 0));
    let again = CloseOutcome::AlreadyClosed { charged: ("tokens", 30).into() };
    assert_eq!(quotas.commit(&id, ("tokens", 9)).await, Ok(again));
    let said: Vec<_> = rows(&ledger, "acme").await.iter().map(|row| (row.entry.as_str(), row.amount)).collect();
    assert_eq!(said, [("reserve", 80), ("expire", 0), ("record", -50)]);
}

async fn abandoned_reservation_is_released_when_configured(database: Database) {
    let (ledger, quotas, id) = forgotten(&database, Some(OnExpiry::Return)).await;
    comes_to(&quotas, (0, 0)).await;
    assert_eq!(quotas.commit(&id, Amounts::new()).await, Ok(CloseOutcome::Expired), "it was used after all");
    assert_eq!(counts(&quotas, &acme()).await, (80, 0));
    let said: Vec<_> = rows(&ledger, "acme").await.iter().map(|row| (row.entry.as_str(), row.amount)).collect();
    assert_eq!(said, [("reserve", 80), ("expire", -80), ("record", 80)]);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn concurrency_is_limited_per_process(database: Database) {
    let quotas = quotas(&database.open().await, tokens(10).limit(Quota::concurrent(1)));
    let acme = acme();
    let held = quotas.run(&acme, ("tokens", 1), async {
        let refusal = quotas.run(&acme, ("tokens", 1), async {}).await.unwrap_err();
        assert_eq!(refusal.violations()[0].kind, Kind::Concurrent);
        quotas.usage(&acme).await.unwrap().limits[1].used
    });
    assert_eq!(held.await.unwrap(), 1);
    quotas.run(&acme, ("tokens", 1), async {}).await.unwrap();
    assert_eq!(counts(&quotas, &acme).await, (2, 0));
}

async fn unnamed_client_is_refused(database: Database) {
    let quotas = quotas(&database.open().await, tokens(10));
    let nameless = quotas.digester().secret("session", b"s3cret");
    assert_eq!(quotas.charge(&nameless, ("tokens", 1)).await.unwrap_err().reason(), Reason::Unidentified);
    let long = tollgate::Client::named("x".repeat(1_025));
    assert_eq!(quotas.charge(&long, ("tokens", 1)).await.unwrap_err().reason(), Reason::Unidentified);
    quotas.charge(&tollgate::Client::named("x".repeat(1_024)), ("tokens", 1)).await.unwrap();
    let error = quotas.usage(&nameless).await.unwrap_err().to_string();
    assert_eq!(error, "a ledger bills by public name, but the client has none of at most 1,024 bytes");
}

#[tokio::test]
async fn ledger_after_shut_down_is_one_file() {
    let file = Database::new_file();
    let database = Database::Sqlite(file.clone());
    let beside = ["-wal", "-shm"].map(|end| std::path::PathBuf::from(format!("{}{end}", file.display())));
    for charged in [1, 2] {
        let ledger = database.open().await;
        let quotas = quotas(&ledger, tokens(100));
        quotas.charge(&acme(), ("tokens", 1)).await.unwrap();
        assert_eq!(counts(&quotas, &acme()).await, (charged, 0));
        assert!(beside.iter().all(|path| path.exists()));
        ledger.shut_down(HUNG).await;
        assert!(beside.iter().all(|path| !path.exists()));
        assert!(quotas.usage(&acme()).await.is_err(), "it is closed");
    }
}
