//! Tenants that have no account: an operation on one says so, and none comes into being by a read or a refusal.

use std::time::{Duration, SystemTime};

use tollgate::{Client, Ledger, MemoryProvider, QuotaError};

use crate::*;

on_each_database! {
    invoice_of_an_unknown_tenant_is_an_error
    reports_create_no_account
    refused_client_has_no_account
    unknown_client_beside_charges_has_no_account
}

const BEGINNING: SystemTime = SystemTime::UNIX_EPOCH;

async fn tenants(ledger: &Ledger) -> Vec<String> {
    ledger.tenants(None, 100).await.unwrap()
}

async fn invoice_of_an_unknown_tenant_is_an_error(database: Database) {
    let ledger = database.open().await;
    let future = BEGINNING + Duration::from_secs(8_000_000_000);
    quotas(&ledger, tokens(10)).charge(&acme(), ("tokens", 1)).await.unwrap();
    for until in [BEGINNING + Duration::from_secs(1), future] {
        let unknown = ledger.invoice("amce", BEGINNING, until, |_, quantity| quantity).await;
        assert_eq!(unknown, Err(QuotaError::UnknownAccount));
        ledger.invoice("acme", BEGINNING, until, |_, quantity| quantity).await.unwrap();
    }
    assert_eq!(tenants(&ledger).await, ["acme"]);
}

async fn reports_create_no_account(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    let (typo, until) = (Client::named("amce"), BEGINNING + Duration::from_secs(1));
    assert_eq!(ledger.usage_at("amce", now()).await.unwrap(), []);
    assert_eq!(rows(&ledger, "amce").await, []);
    assert_eq!(ledger.job("amce", "order 17").await.unwrap(), None);
    assert_eq!(ledger.compare(&MemoryProvider::new(), "amce", BEGINNING, until).await.unwrap(), []);
    assert_eq!(quotas.usage(&typo).await.unwrap().limits[0].used, 0);
    quotas.check(&typo, ("tokens", 1)).await.unwrap();
    assert_eq!(quotas.grants(&typo).await.unwrap(), []);
    assert_eq!(tenants(&ledger).await, [""; 0]);
}

async fn refused_client_has_no_account(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    let mut all = tokio::task::JoinSet::new();
    for number in 0..64 {
        let (quotas, client) = (quotas.clone(), Client::named(format!("client {number:02}")));
        // One batch has charges and refusals of new clients.
        all.spawn(
            async move { quotas.charge(&client, ("tokens", if number % 2 == 0 { 1 } else { 11 })).await.is_ok() },
        );
    }
    assert_eq!(all.join_all().await.iter().filter(|passed| **passed).count(), 32);
    let charged: Vec<_> = (0..64).step_by(2).map(|number| format!("client {number:02}")).collect();
    assert_eq!(tenants(&ledger).await, charged);
}

async fn unknown_client_beside_charges_has_no_account(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    let (acme, typo) = (acme(), Client::named("amce"));
    for round in 0..4 {
        let (charged, reset) = tokio::join!(quotas.charge(&acme, ("tokens", 1)), quotas.reset_all(&typo));
        charged.unwrap();
        assert_eq!(reset, Err(QuotaError::UnknownAccount), "round {round}");
    }
    assert_eq!(tenants(&ledger).await, ["acme"]);
    // The first charge and the reset of one batch.
    let (charged, reset) = tokio::join!(quotas.charge(&typo, ("tokens", 3)), quotas.reset_all(&typo));
    charged.unwrap();
    reset.unwrap();
    assert_eq!(quotas.usage(&typo).await.unwrap().limits[0].used, 0);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}
