//! Exact and durable charges per second, against the usual hand-written transaction.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{
    Connection, Executor, PgPool, Row, SqlitePool,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{runtime::Runtime, task::JoinSet};
use tollgate::{Client, Ledger, OnFailure, Period, Plan, Quota, QuotaLayer, Quotas};

use crate::{
    race::Pace,
    report::{Goal, Line, Report},
};

#[path = "../../../tests/support/postgres.rs"]
mod servers;

/// A limit that no bench reaches.
const LIMIT: u64 = 1 << 40;

/// Number of accounts of a row with many accounts.
const SPREAD: u64 = 1_000;

pub fn rows(report: &mut Report, pace: Pace) {
    let runtime = Runtime::new().expect("a runtime");
    let lap = if pace.rounds > 50 { Duration::from_secs(3) } else { Duration::from_secs(1) };
    sqlite(report, &runtime, lap);
    if std::panic::catch_unwind(servers::Postgres::shared).is_ok() {
        postgres(report, &runtime, lap);
    } else {
        report.note("PostgreSQL", "left out", "it is not installed");
    }
}

fn sqlite(report: &mut Report, runtime: &Runtime, lap: Duration) {
    for (callers, goal) in [(1, None), (32, Some(5.0)), (256, Some(10.0))] {
        let file = File::new();
        let ledger = runtime.block_on(Ledger::sqlite(&file.0).open()).expect("a file");
        let own = ours(runtime, &ledger, callers, SPREAD, lap);
        let file = File::new();
        let naive = runtime.block_on(NaiveSqlite::new(&file)).expect("a file");
        let each = runtime.block_on(race(callers, SPREAD, lap, move |tenant| {
            let naive = naive.clone();
            async move { naive.charge(&tenant).await.expect("a charge") }
        }));
        told(
            report,
            &format!("SQLite, synchronous FULL, {callers} callers"),
            &own,
            &each,
            "one transaction each",
            goal,
        );
    }
}

fn postgres(report: &mut Report, runtime: &Runtime, lap: Duration) {
    for (name, accounts, rows) in [
        ("spread accounts", SPREAD, [(1, None), (32, Some(5.0)), (256, Some(5.0))]),
        ("one hot account", 1, [(1, None), (32, Some(8.0)), (256, Some(20.0))]),
    ] {
        for (callers, goal) in rows {
            let url = servers::Postgres::shared().database();
            let ledger = runtime.block_on(Ledger::postgres(&url).open()).expect("a server");
            let own = ours(runtime, &ledger, callers, accounts, lap);
            let url = servers::Postgres::shared().database();
            let naive = runtime.block_on(NaivePostgres::new(&url, callers)).expect("a server");
            let racing = naive.clone();
            let each = runtime.block_on(race(callers, accounts, lap, move |tenant| {
                let naive = racing.clone();
                async move { naive.charge(&tenant).await.expect("a charge") }
            }));
            runtime.block_on(naive.0.close());
            told(report, &format!("PostgreSQL, {name}, {callers} callers"), &own, &each, "the naive transaction", goal);
        }
    }
}

fn ours(runtime: &Runtime, ledger: &Ledger, callers: u64, accounts: u64, lap: Duration) -> Rate {
    let plan = Plan::new("paid").limit(Quota::units("tokens", LIMIT).per(Period::day()));
    let quotas: Quotas = QuotaLayer::new(plan).store_in(ledger, OnFailure::FailClosed).handle();
    let rate = runtime.block_on(race(callers, accounts, lap, move |tenant| {
        let quotas = quotas.clone();
        async move { quotas.charge(&Client::named(tenant), ("tokens", 1)).await.expect("a charge") }
    }));
    runtime.block_on(ledger.shut_down(Duration::from_secs(10)));
    rate
}

fn told(report: &mut Report, row: &str, own: &Rate, each: &Rate, peer: &str, goal: Option<f64>) {
    if let Some(goal) = goal {
        report.line(Line::new(row, own.per_second, each.per_second, Goal::AtLeast(goal)));
    }
    for (name, rate) in [("tollgate", own), (peer, each)] {
        report.note(row, name, &format!("{:.0}/s, p99 {:.1} ms", rate.per_second, rate.p99.as_secs_f64() * 1e3));
    }
}

/// Result of a number of callers.
struct Rate {
    per_second: f64,
    p99: Duration,
}

/// Callers that charge as fast as they are answered, each its next account in turn.
async fn race<F: Future<Output = ()> + Send + 'static>(
    callers: u64,
    accounts: u64,
    lap: Duration,
    charge: impl Fn(Arc<str>) -> F + Send + Sync + 'static,
) -> Rate {
    let names: Arc<[Arc<str>]> = (0..accounts).map(|account| format!("tenant {account}").into()).collect();
    let charge = Arc::new(charge);
    let began = Instant::now();
    let mut all = JoinSet::new();
    for number in 0..callers {
        let (names, charge) = (Arc::clone(&names), Arc::clone(&charge));
        all.spawn(async move {
            let (mut times, mut next) = (Vec::new(), number);
            while began.elapsed() < lap {
                let asked = Instant::now();
                charge(Arc::clone(&names[next as usize % names.len()])).await;
                times.push(asked.elapsed());
                next += 7;
            }
            times
        });
    }
    let mut times: Vec<Duration> = all.join_all().await.into_iter().flatten().collect();
    let took = began.elapsed();
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).copied().unwrap_or_default();
    Rate { per_second: times.len() as f64 / took.as_secs_f64(), p99 }
}

const TABLES: &str = "CREATE TABLE naive_account (tenant TEXT PRIMARY KEY, used BIGINT NOT NULL);
    CREATE TABLE naive_ledger (job TEXT PRIMARY KEY, tenant TEXT NOT NULL, amount BIGINT NOT NULL, at TEXT NOT NULL)";

fn job() -> String {
    static JOBS: AtomicU64 = AtomicU64::new(0);
    format!("job {}", JOBS.fetch_add(1, Ordering::Relaxed))
}

/// Locks the account, checks, writes a row, counts, commits: one connection and one transaction for each charge.
#[derive(Clone)]
struct NaivePostgres(PgPool);

impl NaivePostgres {
    async fn new(url: &str, callers: u64) -> sqlx::Result<Self> {
        let most = u32::try_from(callers.min(128)).expect("few");
        let pool =
            PgPoolOptions::new().max_connections(most).acquire_timeout(Duration::from_secs(60)).connect(url).await?;
        pool.execute(sqlx::raw_sql(TABLES)).await?;
        let mut account = pool.begin().await?;
        for tenant in 0..SPREAD {
            sqlx::query("INSERT INTO naive_account VALUES ($1, 0)")
                .bind(format!("tenant {tenant}"))
                .execute(&mut *account)
                .await?;
        }
        account.commit().await?;
        Ok(Self(pool))
    }

    async fn charge(&self, tenant: &str) -> sqlx::Result<()> {
        let mut transaction = self.0.begin().await?;
        let lock = sqlx::query("SELECT used FROM naive_account WHERE tenant = $1 FOR UPDATE").bind(tenant);
        let used: i64 = lock.fetch_one(&mut *transaction).await?.get(0);
        assert!(used < LIMIT as i64, "over the limit");
        let row = sqlx::query("INSERT INTO naive_ledger VALUES ($1, $2, 1, now()::text)").bind(job()).bind(tenant);
        row.execute(&mut *transaction).await?;
        let count = sqlx::query("UPDATE naive_account SET used = used + 1 WHERE tenant = $1").bind(tenant);
        count.execute(&mut *transaction).await?;
        transaction.commit().await
    }
}

/// The same on a file: SQLite has one writer, which has one connection.
#[derive(Clone)]
struct NaiveSqlite(SqlitePool);

impl NaiveSqlite {
    async fn new(file: &File) -> sqlx::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(&file.0)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = SqlitePoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(60));
        let pool = pool.connect_with(options).await?;
        pool.execute(sqlx::raw_sql(TABLES)).await?;
        let mut account = pool.begin().await?;
        for tenant in 0..SPREAD {
            sqlx::query("INSERT INTO naive_account VALUES ($1, 0)")
                .bind(format!("tenant {tenant}"))
                .execute(&mut *account)
                .await?;
        }
        account.commit().await?;
        Ok(Self(pool))
    }

    async fn charge(&self, tenant: &str) -> sqlx::Result<()> {
        let mut connection = self.0.acquire().await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        let read = sqlx::query("SELECT used FROM naive_account WHERE tenant = ?1").bind(tenant);
        let used: i64 = read.fetch_one(&mut *transaction).await?.get(0);
        assert!(used < LIMIT as i64, "over the limit");
        let row = sqlx::query("INSERT INTO naive_ledger VALUES (?1, ?2, 1, datetime())").bind(job()).bind(tenant);
        row.execute(&mut *transaction).await?;
        let count = sqlx::query("UPDATE naive_account SET used = used + 1 WHERE tenant = ?1").bind(tenant);
        count.execute(&mut *transaction).await?;
        transaction.commit().await
    }
}

/// A file that is removed on drop.
struct File(PathBuf);

impl File {
    fn new() -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let name = format!("tollgate-bench-{}-{}.db", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", self.0.display()));
        }
    }
}
