//! Approved grants in the ledger.

use std::time::{Duration, SystemTime};

use tollgate::Grant;

use crate::*;

on_each_database! {
    stop_grant_and_revocation_have_rows
    expired_grant_stops_the_next_request
    grant_is_visible_to_another_process
    expired_grant_is_rejected_with_a_reason
}

fn in_an_hour() -> SystemTime {
    now() + Duration::from_secs(3_600)
}

async fn stop_grant_and_revocation_have_rows(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    assert!(quotas.charge(&acme(), ("tokens", 1)).await.is_err(), "the hard stop");
    let grant = Grant::new("tokens_per_month", 5, in_an_hour()).approved_by("M. Okafor").because("launch day");
    let id = quotas.grant(&acme(), grant).await.unwrap();
    quotas.charge(&acme(), ("tokens", 3)).await.unwrap();
    assert!(quotas.charge(&acme(), ("tokens", 3)).await.is_err(), "two are left of it");
    assert_eq!(quotas.grants(&acme()).await.unwrap()[0].used, 3);
    assert!(quotas.revoke(&acme(), id).await.unwrap());
    assert!(!quotas.revoke(&acme(), id).await.unwrap());
    assert!(quotas.charge(&acme(), ("tokens", 1)).await.is_err());
    assert_eq!(quotas.usage(&acme()).await.unwrap().limits[0].limit, 13, "what it has paid for stays paid");

    let rows = rows(&ledger, "acme").await;
    let grants: Vec<_> = rows.iter().filter_map(|row| row.grant.as_ref().map(|grant| (row.amount, grant))).collect();
    assert_eq!((grants[0].0, grants[0].1.amount), (0, 5));
    assert_eq!((&*grants[0].1.approver, &*grants[0].1.reason), ("M. Okafor", "launch day"));
    assert_eq!((grants[1].0, grants[1].1.amount), (0, 0), "its end is a row as well");
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn expired_grant_stops_the_next_request(database: Database) {
    let quotas = quotas(&database.open().await, tokens(10));
    quotas.charge(&acme(), ("tokens", 10)).await.unwrap();
    // The database's clock decides, which is this machine's. The grant lasts until it is used, however slow that is.
    let (mut lasts, mut used) = (Duration::from_secs(1), false);
    let mut until = now();
    while !used {
        (until, lasts) = (now() + lasts, lasts * 2);
        // On a slow machine it may have ended before the ledger decides about it.
        let granted = quotas.grant(&acme(), Grant::new("tokens_per_month", 1_000_000, until)).await;
        assert!(granted.is_ok() || now() >= until, "{granted:?}");
        while now() < until + Duration::from_millis(50) {
            let passed = quotas.charge(&acme(), ("tokens", 1)).await.is_ok();
            assert!(passed || now() >= until, "it has not ended yet");
            used |= passed;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert!(quotas.charge(&acme(), ("tokens", 1)).await.is_err());
    assert!(quotas.grants(&acme()).await.unwrap().is_empty());
    let error = quotas.grant(&acme(), Grant::new("tokens_per_month", 1, until)).await.unwrap_err().to_string();
    assert!(error.starts_with("end of a grant must be in the future, got "), "{error}");
}

async fn grant_is_visible_to_another_process(database: Database) {
    let (first, second) = (quotas(&database.open().await, tokens(10)), quotas(&database.open().await, tokens(10)));
    first.grant(&acme(), Grant::new("tokens_per_month", 5, in_an_hour())).await.unwrap();
    second.charge(&acme(), ("tokens", 15)).await.unwrap();
    assert!(first.charge(&acme(), ("tokens", 1)).await.is_err());
    assert_eq!(first.grants(&acme()).await.unwrap()[0].used, 5);
}

async fn expired_grant_is_rejected_with_a_reason(database: Database) {
    let quotas = quotas(&database.open().await, tokens(10));
    let grant = Grant::new("tokens_per_month", 5, SystemTime::UNIX_EPOCH);
    let error = quotas.grant(&acme(), grant).await.unwrap_err();
    assert_eq!(error.to_string(), "end of a grant must be in the future, got 1970-01-01T00:00:00.000000Z");
}
