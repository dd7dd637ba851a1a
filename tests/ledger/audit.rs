//! Reports of a ledger: usage at past instants, and entries.

use std::time::{Duration, SystemTime};

use tollgate::Client;

use crate::*;

on_each_database! {
    usage_at_past_instants_is_the_sum_of_rows
    long_history_is_read_to_its_end
    rows_are_never_changed
}

async fn usage_at_past_instants_is_the_sum_of_rows(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000_000));
    let began = now();
    for n in 0..60 {
        quotas.charge(&acme(), ("tokens", fastrand::u64(1..100))).await.unwrap();
        let held = quotas.reserve(&acme(), ("tokens", 50)).await.unwrap();
        match n % 3 {
            0 => held.commit(("tokens", fastrand::u64(0..100))),
            1 => held.roll_back(),
            _ => drop(held.detach()),
        }
        if n == 30 {
            quotas.reset(&acme(), "tokens").await.unwrap();
        }
        quotas.charge(&Client::named("another"), ("tokens", 1)).await.unwrap();
    }
    settled(&ledger).await;
    let (rows, took) = (rows(&ledger, "acme").await, began.elapsed().unwrap());
    for _ in 0..100 {
        let at = began + took.mul_f64(fastrand::f64());
        // A reset begins another count, to which no row before it belongs.
        let reset = rows.iter().rposition(|row| row.entry == EntryKind::Reset && row.at <= at);
        let since = rows.iter().skip(reset.map_or(0, |reset| reset + 1));
        let sum: i64 = since.filter(|row| row.at <= at).map(|row| row.amount).sum();
        let past = ledger.usage_at("acme", at).await.unwrap();
        assert_eq!(past.iter().map(|past| past.used as i64).sum::<i64>(), sum, "{at:?}");
    }
    let (used, reserved) = counts(&quotas, &acme()).await;
    let now = ledger.usage_at("acme", now() + Duration::from_secs(1)).await.unwrap();
    assert_eq!((now.len(), &*now[0].limit), (1, "tokens_per_month"));
    let of_before_the_reset: i64 = rows.iter().filter(|row| row.entry == EntryKind::Reset).map(|row| row.amount).sum();
    assert!(of_before_the_reset < 0);
    assert_eq!(now[0].used, used + reserved, "what is still open of the count before is no part of it");
    assert!(ledger.usage_at("acme", began - Duration::from_secs(40 * 86_400)).await.unwrap().is_empty());
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn long_history_is_read_to_its_end(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000_000));
    let charge = |_| {
        let quotas = quotas.clone();
        tokio::spawn(async move { quotas.charge(&acme(), ("tokens", 1)).await.unwrap() })
    };
    for charge in (0..2_500).map(charge).collect::<Vec<_>>() {
        charge.await.unwrap();
    }
    let rows = rows(&ledger, "acme").await;
    assert_eq!(rows.len(), 2_500);
    assert!(rows.windows(2).all(|two| two[0].id < two[1].id && two[0].at <= two[1].at));
    let some = ledger.entries("acme", SystemTime::UNIX_EPOCH, rows[1_200].at).next().await.unwrap();
    assert_eq!(some.is_some(), rows[0].at < rows[1_200].at);
    let line: serde_json::Value = serde_json::from_str(&rows[7].to_string()).unwrap();
    assert_eq!((&line["tenant"], &line["entry"], &line["amount"]), (&"acme".into(), &"charge".into(), &1.into()));
}

async fn rows_are_never_changed(database: Database) {
    let ledger = database.open().await;
    quotas(&ledger, tokens(10)).charge(&acme(), ("tokens", 1)).await.unwrap();
    for sql in ["UPDATE quota_consumption SET amount = 0", "DELETE FROM quota_consumption"] {
        assert!(database.meddle(sql).await.is_err(), "{sql}");
    }
    assert_eq!(rows(&ledger, "acme").await.len(), 1);
}
