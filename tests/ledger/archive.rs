//! Archiving of old rows.

use std::time::{Duration, SystemTime};

use tollgate::{JobRun, QuotaError, Reason};

use crate::*;

on_each_database! {
    ids_carry_their_time_with_a_horizon
    archived_rows_become_one_with_the_same_sums
    archived_job_is_never_charged_again
    open_reservations_are_not_archived
    archiving_and_charging_do_not_interfere
    without_a_horizon_nothing_is_archived
    row_numbers_of_archived_rows_are_not_reused
    archived_rows_are_not_reconciled
    future_ids_are_refused_after_archiving
    long_history_is_archived_in_steps
}

const DAY: Duration = Duration::from_secs(86_400);

fn ago(days: u32) -> SystemTime {
    now() - DAY * days
}

fn id_of(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let time = uuid::Timestamp::from_unix(uuid::NoContext, since.as_secs(), since.subsec_nanos());
    uuid::Uuid::new_v7(time).to_string()
}

async fn run(quotas: &Quotas, id: &str) -> Result<JobRun<()>, Reason> {
    quotas.run_job(&acme(), id, ("tokens", 10), async {}).await.map_err(|refusal| refusal.reason())
}

/// Moves all rows `days` into the past, as if they had been written then.
async fn age(database: &Database, ledger: Ledger, days: u32) -> Ledger {
    ledger.shut_down(HUNG).await;
    database.age(days).await;
    database.open().await.with_horizon(DAY * 30)
}

async fn ids_carry_their_time_with_a_horizon(database: Database) {
    let quotas = quotas(&database.open().await.with_horizon(DAY * 30), tokens(1_000));
    assert_eq!(run(&quotas, &id_of(ago(0))).await, Ok(JobRun::Done(())));
    assert_eq!(run(&quotas, &id_of(ago(29))).await, Ok(JobRun::Done(())));
    assert_eq!(run(&quotas, &id_of(ago(31))).await, Err(Reason::StaleJobId));
    assert_eq!(run(&quotas, &id_of(now() + Duration::from_secs(600))).await, Err(Reason::StaleJobId));
    assert_eq!(run(&quotas, "order 17").await, Err(Reason::StaleJobId));
    assert_eq!(counts(&quotas, &acme()).await, (20, 0));
    quotas.charge(&acme(), ("tokens", 1)).await.unwrap(); // names no job
}

async fn archived_rows_become_one_with_the_same_sums(database: Database) {
    let ledger = database.open().await;
    let quotas = quotas(&ledger, tokens(1_000));
    for amount in 1..=10 {
        quotas.charge(&acme(), ("tokens", amount)).await.unwrap();
    }
    quotas.reserve(&acme(), ("tokens", 50)).await.unwrap().commit(("tokens", 45));
    settled(&ledger).await;
    let ledger = age(&database, ledger, 100).await;
    crate::quotas(&ledger, tokens(1_000)).charge(&acme(), ("tokens", 7)).await.unwrap();

    let archived = ledger.archive(ago(40)).await.unwrap();
    assert_eq!((archived.rows, archived.accounts), (12, 1));
    let kept = rows(&ledger, "acme").await;
    let said: Vec<_> = kept.iter().map(|row| (row.entry.as_str(), row.amount)).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said.contains(&("adjust", 100)) && said.contains(&("charge", 7)), "{said:?}");
    assert!(kept.iter().any(|row| row.job.starts_with("archive ") && row.at < ago(40)));
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
    assert_eq!(ledger.archive(ago(40)).await.unwrap().rows, 0, "the second time there is nothing to do");
    assert_eq!(ledger.usage_at("acme", now() + Duration::from_secs(1)).await.unwrap()[0].used, 7);
    let invoice = ledger.invoice("acme", ago(39), now() + DAY, |_, _| 1).await.unwrap();
    assert_eq!(invoice.lines[0].quantity, 7);
    for error in [
        ledger.usage_at("acme", ago(50)).await.unwrap_err(),
        ledger.invoice("acme", ago(50), ago(39), |_, _| 1).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("must not be before"), "{error}");
    }
}

async fn archived_job_is_never_charged_again(database: Database) {
    let ledger = database.open().await.with_horizon(DAY * 365);
    let old = id_of(ago(90));
    assert_eq!(run(&quotas(&ledger, tokens(1_000)), &old).await, Ok(JobRun::Done(())));
    let ledger = age(&database, ledger, 80).await;
    assert_eq!(ledger.archive(ago(40)).await.unwrap().rows, 1);
    assert_eq!(run(&quotas(&ledger, tokens(1_000)), &old).await, Err(Reason::StaleJobId));
    // Nor by a process without a horizon, or with a longer one.
    for other in [database.open().await, database.open().await.with_horizon(DAY * 365)] {
        let quotas = quotas(&other, tokens(1_000));
        assert_eq!(run(&quotas, &old).await, Err(Reason::StaleJobId));
        assert_eq!(run(&quotas, "order 17").await, Err(Reason::StaleJobId));
        run(&quotas, &id_of(ago(39))).await.unwrap();
    }
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn open_reservations_are_not_archived(database: Database) {
    let ledger = database.open().await;
    let layer = QuotaLayer::new(tokens(1_000)).store_in(&ledger, OnFailure::FailClosed).reservations_last(DAY * 1_000);
    let id = layer.handle().reserve(&acme(), ("tokens", 50)).await.unwrap().detach();
    quotas(&ledger, tokens(1_000)).charge(&acme(), ("tokens", 5)).await.unwrap();
    drop(layer);
    let ledger = age(&database, ledger, 100).await;
    assert_eq!(ledger.archive(ago(40)).await.unwrap().rows, 0);
    let quotas = quotas(&ledger, tokens(1_000));
    quotas.commit(&database.aged(&id, 100), ("tokens", 40)).await.unwrap();
    assert_eq!(ledger.archive(ago(40)).await.unwrap().rows, 0, "something was written since");
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

async fn archiving_and_charging_do_not_interfere(database: Database) {
    let ledger = database.open().await;
    for tenant in 0..20 {
        let client = Client::named(format!("tenant {tenant}"));
        for _ in 0..3 {
            quotas(&ledger, tokens(1_000)).charge(&client, ("tokens", 5)).await.unwrap();
        }
    }
    let ledger = age(&database, ledger, 100).await;
    let other = database.open().await.with_horizon(DAY * 30);
    let charging = (0..200).map(|n| {
        let quotas = quotas(&ledger, tokens(1_000));
        let client = Client::named(format!("tenant {}", n % 20));
        tokio::spawn(async move { quotas.charge(&client, ("tokens", 1)).await.unwrap() })
    });
    let charging: Vec<_> = charging.collect();
    let (one, two) = tokio::join!(ledger.archive(ago(40)), other.archive(ago(40)));
    assert_eq!(one.unwrap().rows + two.unwrap().rows, 60);
    for charge in charging {
        charge.await.unwrap();
    }
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
    for tenant in 0..20 {
        assert_eq!(rows(&ledger, &format!("tenant {tenant}")).await.iter().map(|row| row.amount).sum::<i64>(), 25);
    }
}

async fn without_a_horizon_nothing_is_archived(database: Database) {
    let ledger = database.open().await;
    let error = ledger.archive(ago(400)).await.unwrap_err();
    assert_eq!(error.to_string(), "a ledger to archive must have a horizon (call .with_horizon()), got none");
    let ledger = ledger.with_horizon(DAY * 30);
    assert!(matches!(ledger.archive(ago(29)).await, Err(QuotaError::Invalid(_))));
    let short = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ledger.with_horizon(DAY / 2)));
    let text = short.unwrap_err().downcast_ref::<String>().unwrap().clone();
    assert_eq!(text, "horizon of a ledger must be at least a day, got 43200s");
}

async fn row_numbers_of_archived_rows_are_not_reused(database: Database) {
    let ledger = database.open().await;
    for _ in 0..5 {
        quotas(&ledger, tokens(1_000)).charge(&acme(), ("tokens", 5)).await.unwrap();
    }
    let ledger = age(&database, ledger, 100).await;
    let mut last = rows(&ledger, "acme").await.last().unwrap().id;
    for _ in 0..2 {
        assert!(ledger.archive(ago(40)).await.unwrap().rows > 0);
        assert_eq!(ledger.archive(ago(40)).await.unwrap().rows, 0);
        let kept = rows(&ledger, "acme").await;
        assert!(kept.len() == 1 && kept[0].id > last, "{kept:?} after {last}");
        last = kept[0].id;
        // A late one, as from a clock that is behind.
        let late = "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt,
                part, amount, consumed_at, order_id)
            SELECT tenant_id, 'late', quota_type, limit_id, period, window_start, epoch, 'record', 0, id, 0, consumed_at, order_id
            FROM quota_consumption";
        database.meddle(late).await.unwrap();
        let late = rows(&ledger, "acme").await.last().unwrap().id;
        assert!(late > last, "{late} after {last}");
        last = late;
    }
}

async fn archived_rows_are_not_reconciled(database: Database) {
    let ledger = database.open().await;
    let provider = tollgate::MemoryProvider::new();
    let ledger = age(&database, ledger, 100).await;
    assert_eq!(ledger.compare(&provider, "acme", ago(110), ago(90)).await.unwrap(), []);
    ledger.archive(ago(40)).await.unwrap();
    let error = ledger.compare(&provider, "acme", ago(110), ago(90)).await.unwrap_err();
    assert!(error.to_string().contains("must not be before"), "{error}");
}

async fn future_ids_are_refused_after_archiving(database: Database) {
    let ledger = database.open().await.with_horizon(DAY * 30);
    ledger.archive(ago(40)).await.unwrap();
    let ahead = id_of(now() + DAY * 35);
    // By a process without a horizon: once the time of this id has come, its rows may be archived.
    let quotas = quotas(&database.open().await, tokens(1_000));
    assert_eq!(run(&quotas, &ahead).await, Err(Reason::StaleJobId));
    assert_eq!(run(&quotas, &id_of(now() + Duration::from_secs(60))).await, Ok(JobRun::Done(())));
}

/// Archiving must not compare all pairs of rows, because a file has no other writer meanwhile.
async fn long_history_is_archived_in_steps(database: Database) {
    let ledger = database.open().await;
    quotas(&ledger, tokens(1_000)).charge(&acme(), ("tokens", 5)).await.unwrap();
    let ledger = age(&database, ledger, 100).await;
    let many = "WITH RECURSIVE g (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 100000)
        INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt, part,
            amount, consumed_at, order_id)
        SELECT tenant_id, 'job', quota_type, limit_id, period, window_start, epoch, 'record', 0, n, 0, consumed_at, order_id
        FROM quota_consumption, g";
    database.meddle(many).await.unwrap();
    // All pairs would be 10^10 comparisons.
    let archived = tokio::time::timeout(HUNG, ledger.archive(ago(40))).await;
    assert_eq!(archived.expect("an archive").unwrap().rows, 100_001);
    assert_eq!(ledger.reconcile().await.unwrap().drifts, []);
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn read_during_archiving_is_refused_on_a_server() {
    let database = Database::postgres();
    let Database::Postgres(url) = &database else { unreachable!() };
    let ledger = database.open().await;
    quotas(&ledger, tokens(1_000)).charge(&acme(), ("tokens", 5)).await.unwrap();
    let pool = sqlx::PgPool::connect(url).await.unwrap();
    let mut archive = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM quota_account FOR UPDATE").execute(&mut *archive).await.unwrap();
    let reading = tokio::spawn(async move { ledger.invoice("acme", ago(40), now(), |_, _| 1).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while sqlx::query_scalar::<_, i64>(waits).fetch_one(&pool).await.unwrap() == 0 && !reading.is_finished() {
        tokio::task::yield_now().await;
    }
    sqlx::query("INSERT INTO quota_archive VALUES (true, now())").execute(&mut *archive).await.unwrap();
    archive.commit().await.unwrap();
    let error = reading.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("must not be before"), "{error}");
}
