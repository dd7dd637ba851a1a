//! Extreme input: each call is answered or rejected with a reason, and each account stays usable.

use std::time::Duration;

use tollgate::{FakeClock, Grant, Kind, Reason, ReservationError};

use super::extreme_values::{
    AMOUNTS, LAST_MICRO, MOST, all_work, answered, at, done, durations, instants, mixed, reset, texts,
};
use crate::*;

on_each_database! {
    grant_ends
    grant_texts
    stored_grants_past_the_range
    corrupt_grants
    amounts
    tenant_names
    job_ids
    limits_and_periods
    reservation_times
    report_times
    reservation_ids
    process_clocks
}

async fn grant_ends(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    for (at, until) in instants().into_iter().enumerate() {
        let client = Client::named(format!("tenant {at}"));
        let what = format!("{until:?}");
        let grant = Grant::new("tokens_per_month", 5, until).approved_by("M. Okafor");
        let granted = done(&what, quotas.grant(&client, grant.clone()).await);
        assert_eq!(granted.is_some(), until > now(), "{what}");
        let listed = quotas.grants(&client).await.unwrap();
        if let Some(id) = granted {
            let apart = grant.until().duration_since(listed[0].grant.until()).unwrap_or_else(|error| error.duration());
            assert!(listed[0].id == id && apart < Duration::from_micros(1), "{what}: {apart:?}");
            quotas.charge(&client, ("tokens", 15)).await.unwrap();
        }
        all_work(&what, &ledger, &quotas, &client).await;
        for row in rows(&ledger, &format!("tenant {at}")).await {
            let _ = row.to_string();
        }
        if let Some(id) = granted {
            quotas.revoke(&client, id).await.unwrap();
        }
    }
}

async fn grant_texts(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    for amount in AMOUNTS {
        assert_eq!(Grant::try_new("tokens_per_month", amount, now()).is_ok(), (1..=MOST).contains(&amount));
    }
    for (at, text) in texts().into_iter().enumerate() {
        let (client, what) = (Client::named(format!("tenant {at}")), format!("{:.80?}", text));
        let until = now() + Duration::from_secs(3_600);
        let grant = Grant::new("tokens_per_month", MOST, until).approved_by(&*text).because(&*text);
        quotas.grant(&client, grant.clone()).await.unwrap();
        quotas.grant(&client, grant).await.unwrap();
        let listed = quotas.grants(&client).await.unwrap();
        assert_eq!((listed[0].grant.approver(), listed[1].grant.reason()), (&*text, &*text));
        assert!(done(&what, quotas.grant(&client, Grant::new(&text, 1, until)).await).is_none());
        assert!(done(&what, quotas.reset(&client, &text).await).is_none());
        all_work(&what, &ledger, &quotas, &client).await;
    }
}

/// Expiries that an earlier version wrote: 2554-07-21, in a microsecond that it could not read.
async fn stored_grants_past_the_range(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    quotas.grant(&acme(), Grant::new("tokens_per_month", 5, now() + Duration::from_secs(3_600))).await.unwrap();
    let until = match &database {
        Database::Sqlite(_) => {
            database.meddle("DROP TRIGGER quota_consumption_unchanged").await.unwrap();
            (LAST_MICRO + 1).to_string()
        }
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => {
            database.meddle("ALTER TABLE quota_consumption DISABLE TRIGGER ALL").await.unwrap();
            format!("timestamptz 'epoch' + interval '{} us'", LAST_MICRO + 1)
        }
    };
    for table in ["quota_grant", "quota_consumption"] {
        assert_eq!(database.meddle(format!("UPDATE {table} SET until = {until}")).await.unwrap(), 1);
    }
    quotas.charge(&acme(), ("tokens", 15)).await.unwrap();
    assert!(quotas.grants(&acme()).await.unwrap()[0].grant.until() > at(Duration::from_micros(LAST_MICRO)));
    assert!(rows(&ledger, "acme").await[0].grant.is_some());
    all_work("a stored grant", &ledger, &quotas, &acme()).await;
}

/// Rows that no version wrote: an invalid amount raises nothing, and the account stays usable.
async fn corrupt_grants(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(10));
    let time = |micros: i64| match &database {
        Database::Sqlite(_) => micros.to_string(),
        #[cfg(feature = "postgres")]
        Database::Postgres(_) if micros == i64::MAX => "timestamptz 'infinity'".to_owned(),
        #[cfg(feature = "postgres")]
        Database::Postgres(_) => format!("timestamptz 'epoch' + {micros} * interval '1 us'"),
    };
    let most = i64::MAX;
    for (at, (amount, before, current, until, window)) in [
        (0, 0, most, i64::MAX, 0),
        (most, 0, 0, i64::MAX, 0),
        (most, most, most, i64::MAX, -1_000_000),
        (5, most, 0, i64::MAX, 0),
        (5, 0, most, i64::MAX, -1_000_000),
        (5, most, most, i64::MAX, i64::MAX),
        (5, most, most, -1_000_000, 0),
        (5, 0, 0, 0, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let (client, what) = (Client::named(format!("tenant {at}")), format!("row {at}"));
        quotas.grant(&client, Grant::new("tokens_per_month", 5, now() + Duration::from_secs(3_600))).await.unwrap();
        let (until, window) = (time(until), time(window));
        let row = format!("amount = {amount}, used_before = {before}, used_now = {current}, until = {until}");
        let sql = format!("UPDATE quota_grant SET {row}, window_start = {window} WHERE tenant_id = 'tenant {at}'");
        assert_eq!(database.meddle(sql).await.unwrap(), 1);
        let limit = quotas.usage(&client).await.unwrap().limits[0].limit;
        assert!(limit == 10 || (amount == 5 && limit <= 15), "{what}: {limit}");
        all_work(&what, &ledger, &quotas, &client).await;
    }
}

async fn amounts(database: Database) {
    let ledger = database.open().await;
    for (at, limit) in [1, 1_000, MOST].into_iter().enumerate() {
        let plan = Plan::new("paid")
            .limit(Quota::units("tokens", limit.max(3)).per(Period::month()))
            .limit(Quota::units("rows", limit).per(Period::hour()));
        let quotas = quotas(&ledger, plan);
        for amount in AMOUNTS {
            let (client, what) = (Client::named(format!("tenant {at} {amount}")), format!("{amount} of {limit}"));
            for kind in ["tokens", "rows", "unheard of"] {
                answered(&what, quotas.check(&client, (kind, amount)).await);
                answered(&what, quotas.charge(&client, (kind, amount)).await);
                reset(&what, &quotas, &client).await;
                if let Some(held) = answered(&what, quotas.reserve(&client, (kind, amount)).await) {
                    quotas.commit(&held.detach(), [("tokens", amount), ("rows", amount)]).await.unwrap();
                }
                if let Some(held) = answered(&what, quotas.reserve(&client, (kind, amount)).await) {
                    quotas.roll_back(&held.detach()).await.unwrap();
                }
                for _ in 0..2 {
                    done(&what, quotas.record(&client, [("tokens", amount), (kind, amount)]).await);
                }
                answered(&what, quotas.run(&client, (kind, amount), async {}).await);
            }
            all_work(&what, &ledger, &quotas, &client).await;
        }
    }
}

async fn tenant_names(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let longest_job = mixed(255, b"abcdefghijklmnopqrstuvwxyz0123456789");
    for name in texts() {
        let (client, what) = (Client::named(name.clone()), format!("{} bytes, {:.80?}", name.len(), name));
        let charged = quotas.charge(&client, ("tokens", 1)).await;
        if answered(&what, charged.clone()).is_none() {
            assert_eq!(charged.unwrap_err().reason(), Reason::Unidentified, "{what}");
            assert!(name.len() > 1_024, "{what}");
            assert!(done(&what, quotas.reset_all(&client).await).is_none());
            assert!(done(&what, quotas.usage(&client).await).is_none());
            continue;
        }
        quotas.run_job(&client, &longest_job, ("tokens", 1), async {}).await.unwrap();
        let held = quotas.reserve(&client, ("tokens", 1)).await.unwrap().detach();
        let held: ReservationId = held.to_string().parse().unwrap();
        quotas.commit(&held, ("tokens", 1)).await.unwrap();
        ledger.job(&name, &longest_job).await.unwrap().unwrap();
        all_work(&what, &ledger, &quotas, &client).await;
    }
}

async fn job_ids(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    for (at, id) in texts().into_iter().enumerate() {
        let (client, what) = (Client::named(format!("tenant {at}")), format!("{:.80?}", id));
        let ran = quotas.run_job(&client, &id, ("tokens", 1), async {}).await;
        if answered(&what, ran.clone()).is_none() {
            assert_eq!(ran.unwrap_err().reason(), Reason::InvalidJobId, "{what}");
        }
        ledger.job(&format!("tenant {at}"), &id).await.unwrap();
        ledger.job(&id, &id).await.unwrap();
        all_work(&what, &ledger, &quotas, &client).await;
    }
}

async fn limits_and_periods(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    let mut periods: Vec<_> = durations().into_iter().map(Period::try_rolling).collect();
    periods.extend([86_400, 3_652 * 86_400, 3_653 * 86_400].map(|s| Period::try_rolling(Duration::from_secs(s))));
    periods.extend([1, 999, 1_000].map(|nanos| Period::try_rolling(Duration::new(3_600, nanos))));
    periods.extend(instants().into_iter().map(Period::billing_month));
    periods.extend([Period::hour(), Period::day(), Period::week(), Period::month()].map(Ok));
    let name = |length: usize| mixed(length, b"abcdefghijklmnopqrstuvwxyz");
    for (at, period) in periods.into_iter().enumerate() {
        let Ok(period) = period else { continue };
        let client = Client::named(format!("tenant {at}"));
        for (most, length) in [(1, 1), (MOST, 64)] {
            let Ok(kind) = Kind::try_units(&name(length)) else { panic!("{length}") };
            let limit = Quota::try_of(kind.clone(), most).unwrap().per(period.clone()).named(&name(length));
            let what = format!("{most} per {period}");
            let plan = tokens(100).limit(limit);
            if let Err(invalid) = quotas.set_plan(plan) {
                assert!(invalid.reason().contains("microseconds"), "{what}: {invalid}");
                continue;
            }
            answered(&what, quotas.charge(&client, [(kind.clone(), most), (Kind::units("tokens"), 1)]).await);
            done(&what, quotas.record(&client, (kind, u64::MAX)).await);
            all_work(&what, &ledger, &quotas, &client).await;
        }
    }
}

async fn reservation_times(database: Database) {
    for deadline in [Duration::from_secs(60), Duration::MAX] {
        let ledger = database.open().await.deadline(deadline);
        for (at, ttl) in durations().into_iter().enumerate() {
            let layer = QuotaLayer::new(tokens(1_000)).reservations_last(ttl);
            let quotas = layer.store_in(&ledger, OnFailure::FailClosed).handle();
            let (client, what) = (Client::named(format!("tenant {at}")), format!("{ttl:?}"));
            let [first, second, left] = [10, 20, 30].map(|amount| (quotas.clone(), client.clone(), amount)).map(
                |(quotas, client, amount)| async move {
                    quotas.reserve(&client, ("tokens", amount)).await.unwrap().detach()
                },
            );
            let (first, second, _left) = (first.await, second.await, left.await);
            let beyond = quotas.commit(&first, ("tokens", u64::MAX)).await;
            assert_eq!(beyond, Err(ReservationError::TooLarge(u64::MAX)));
            quotas.commit(&first, ("tokens", MOST - 50)).await.unwrap(); // the others hold 50
            quotas.roll_back(&second).await.unwrap();
            all_work(&what, &ledger, &quotas, &client).await;
        }
        ledger.shut_down(Duration::from_secs(10)).await;
    }
}

async fn report_times(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(100));
    quotas.charge(&acme(), ("tokens", 7)).await.unwrap();
    for from in instants() {
        let what = format!("{from:?}");
        done(&what, ledger.usage_at("acme", from).await);
        for until in instants() {
            let mut entries = ledger.entries("acme", from, until);
            let mut found = 0;
            while entries.next().await.unwrap().is_some() {
                found += 1;
            }
            assert!(found == 0 || from < until, "{what} {until:?}");
            if let Some(invoice) = done(&what, ledger.invoice("acme", from, until, |_, quantity| quantity).await) {
                assert!(invoice.total == 0 || invoice.total == 7, "{invoice}");
            }
        }
    }
    all_work("reports", &ledger, &quotas, &acme()).await;
    for horizon in [Duration::from_secs(86_400), Duration::from_nanos(u64::MAX), Duration::MAX] {
        let ledger = database.open().await.with_horizon(horizon);
        for before in instants() {
            if before < now() - Duration::from_secs(86_400) {
                done(&format!("{before:?}"), ledger.archive(before).await);
            } else {
                assert!(done(&format!("{before:?}"), ledger.archive(before).await).is_none());
            }
        }
    }
    all_work("archives", &ledger, &quotas, &acme()).await;
}

/// Reservation ids come back from callers, which may have changed them.
async fn reservation_ids(database: Database) {
    let ledger = database.open().await;
    let quotas =
        quotas(&ledger, tokens(100).limit(Quota::units("rows", 100).per(Period::rolling(Duration::from_secs(60)))));
    let long = "YWFh".repeat(5_000);
    for time in [0, 1, 999, 1_000, 1 << 63, u64::MAX - 1, u64::MAX] {
        for (part, with) in [(2, time.to_string()), (3, u32::MAX.to_string()), (4, long.clone()), (5, long.clone())] {
            let id = quotas.reserve(&acme(), ("tokens", 1)).await.unwrap().detach();
            let mut parts: Vec<_> = id.to_string().split('.').map(String::from).collect();
            parts[part] = with;
            parts[2] = time.to_string();
            let Ok(forged) = parts.join(".").parse::<ReservationId>() else { continue };
            let what = format!("{:.120}", forged.to_string());
            for answer in [
                quotas.commit(&forged, [("tokens", 1), ("rows", 1)]).await,
                quotas.roll_back(&forged).await,
                quotas.roll_back(&id).await,
            ] {
                let fault = matches!(answer, Err(ReservationError::Unavailable | ReservationError::Indeterminate));
                assert!(!fault, "{what}: {answer:?}");
            }
            all_work(&what, &ledger, &quotas, &acme()).await;
        }
    }
}

/// The ledger uses the clock of its database; the process may have any other.
async fn process_clocks(database: Database) {
    let ledger = database.open().await;
    for wall in [0, 1, 1 << 62, i64::MAX as u64, u64::MAX - 1_000, u64::MAX - 1, u64::MAX] {
        let clock = FakeClock::at(Duration::from_nanos(wall));
        let layer = QuotaLayer::new(tokens(1_000)).clock(clock.clone()).reservations_last(Duration::MAX);
        let quotas = layer.store_in(&ledger, OnFailure::FailClosed).handle();
        let (client, what) = (Client::named(format!("tenant {wall}")), format!("{wall} ns"));
        let id = quotas.reserve(&client, ("tokens", 5)).await.unwrap().detach();
        clock.advance(Duration::MAX);
        quotas.commit(&id, ("tokens", 5)).await.unwrap();
        answered(&what, quotas.charge(&client, ("tokens", u64::MAX)).await);
        quotas.run_job(&client, "job", ("tokens", 1), async {}).await.unwrap();
        all_work(&what, &ledger, &quotas, &client).await;
    }
}

/// A spool record carries the time of the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn passed_while_away_at_any_clock() {
    for wall in [0, 1, 1 << 62, i64::MAX as u64, u64::MAX - 1_000, u64::MAX] {
        let (scene, what) = (outage::Scene::new().await, format!("{wall} ns"));
        let spool = scene.spool();
        let plan = tokens(1_000).limit(Quota::units("rows", 100).per(Period::rolling(Duration::from_secs(60))));
        let layer = QuotaLayer::new(plan).clock(FakeClock::at(Duration::from_nanos(wall)));
        let quotas = layer.store_in(&scene.ledger, OnFailure::FailOpen).handle();
        let lock = scene.away().await;
        for amount in [1, u64::MAX] {
            quotas.charge(&acme(), [("tokens", amount), ("rows", amount)]).await.unwrap();
        }
        quotas.reserve(&acme(), [("tokens", 5), ("rows", 5)]).await.unwrap().commit(("rows", u64::MAX));
        drop(lock);
        outage::Scene::merged(&spool).await;
        assert!(rows(&scene.ledger, "acme").await.iter().any(|row| row.passed_at.is_some()), "{what}");
        all_work(&what, &scene.ledger, &quotas, &acme()).await;
    }
}
