//! Exact and durable charges per second, against the usual hand-written transaction.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
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

/// Number of rounds in which the contestants of a row take turns.
const ROUNDS: usize = 5;

/// Variable by which a process of a fleet finds its ledger.
const FLEET: &str = "TOLLGATE_BENCH_FLEET";
/// Number of processes of a fleet, and of callers of each.
const PROCESSES: u64 = 4;
const CALLERS: u64 = 8;

pub fn rows(report: &mut Report, pace: Pace) {
    let runtime = Runtime::new().expect("a runtime");
    let lap = if pace.rounds > 50 { Duration::from_secs(1) } else { Duration::from_millis(400) };
    if let Ok(url) = std::env::var(FLEET) {
        let rate = Ours::new(&runtime, runtime.block_on(Ledger::postgres(&url).open()).expect("a server"));
        println!("\n{FLEET} {}", rate.lap(&runtime, CALLERS, SPREAD, lap * 2).per_second);
        std::process::exit(0);
    }
    sqlite(report, &runtime, lap);
    if std::panic::catch_unwind(servers::Postgres::shared).is_ok() {
        postgres(report, &runtime, lap);
        fleet(report, &runtime, lap);
    } else {
        report.note("PostgreSQL", "left out", "it is not installed");
    }
}

fn sqlite(report: &mut Report, runtime: &Runtime, lap: Duration) {
    for (callers, goal) in [(1, 0.95), (32, 8.0), (256, 20.0)] {
        let (file, other) = (File::new(), File::new());
        let own = Ours::new(runtime, runtime.block_on(Ledger::sqlite(&file.0).open()).expect("a file"));
        let naive = runtime.block_on(NaiveSqlite::new(&other)).expect("a file");
        let each = || {
            let naive = naive.clone();
            runtime.block_on(race(callers, SPREAD, lap, move |tenant| {
                let naive = naive.clone();
                async move { naive.charge(&tenant).await.expect("a charge") }
            }))
        };
        let rates = in_turns(|| own.lap(runtime, callers, SPREAD, lap), each);
        own.shut_down(runtime);
        told(report, &format!("SQLite, synchronous FULL, {callers} callers"), &rates, "one transaction each", goal);
    }
}

fn postgres(report: &mut Report, runtime: &Runtime, lap: Duration) {
    for (name, accounts, rows) in [
        ("spread accounts", SPREAD, [(1, 0.95), (32, 5.0), (256, 10.0)]),
        ("one hot account", 1, [(1, 0.95), (32, 8.0), (256, 20.0)]),
    ] {
        for (callers, goal) in rows {
            let database = || servers::Postgres::shared().database();
            let own = runtime.block_on(Ledger::postgres(database()).open()).expect("a server");
            let own = Ours::new(runtime, own);
            let naive = runtime.block_on(NaivePostgres::new(&database(), callers)).expect("a server");
            let each = || {
                let naive = naive.clone();
                runtime.block_on(race(callers, accounts, lap, move |tenant| {
                    let naive = naive.clone();
                    async move { naive.charge(&tenant).await.expect("a charge") }
                }))
            };
            let rates = in_turns(|| own.lap(runtime, callers, accounts, lap), each);
            runtime.block_on(naive.0.close());
            own.shut_down(runtime);
            told(report, &format!("PostgreSQL, {name}, {callers} callers"), &rates, "the naive transaction", goal);
        }
    }
}

/// Several processes that share a ledger, against one with as many callers.
fn fleet(report: &mut Report, runtime: &Runtime, lap: Duration) {
    let database = || servers::Postgres::shared().database();
    let (url, own) = (database(), runtime.block_on(Ledger::postgres(database()).open()).expect("a server"));
    let own = Ours::new(runtime, own);
    let quick = if lap < Duration::from_secs(1) { &["--quick"][..] } else { &[] };
    let processes = || {
        let process = |_| {
            let program = std::env::current_exe().expect("a path");
            let mut process = Command::new(program);
            process.args(["--only", "ledgers"]).args(quick).env(FLEET, &url).stdout(Stdio::piped());
            process.stderr(Stdio::null()).spawn().expect("a process")
        };
        let processes: Vec<_> = (0..PROCESSES).map(process).collect();
        let rate = |process: Child| {
            let output = process.wait_with_output().expect("an output");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().find_map(|line| line.strip_prefix(FLEET)?.trim().parse::<f64>().ok()).expect("a rate")
        };
        Rate { per_second: processes.into_iter().map(rate).sum(), p99: Duration::ZERO }
    };
    let rates = in_turns(processes, || own.lap(runtime, PROCESSES * CALLERS, SPREAD, lap));
    own.shut_down(runtime);
    let row = format!("PostgreSQL, {PROCESSES} processes of {CALLERS} callers");
    told(report, &row, &rates, "one process of all callers", 1.0);
}

/// Laps of two contestants in turn; returns the median of each after a lap that warms up.
fn in_turns(ours: impl Fn() -> Rate, peer: impl Fn() -> Rate) -> [Rate; 2] {
    let _ = (ours(), peer());
    let laps: Vec<_> = (0..ROUNDS).map(|_| (ours(), peer())).collect();
    let (ours, peer): (Vec<_>, Vec<_>) = laps.into_iter().unzip();
    [ours, peer].map(|mut rates| {
        rates.sort_unstable_by(|a, b| a.per_second.total_cmp(&b.per_second));
        rates[ROUNDS / 2]
    })
}

/// A ledger, and the handle of a layer over it.
struct Ours {
    ledger: Ledger,
    quotas: Quotas,
}

impl Ours {
    fn new(runtime: &Runtime, ledger: Ledger) -> Self {
        let plan = Plan::new("paid").limit(Quota::units("tokens", LIMIT).per(Period::day()));
        let _entered = runtime.enter();
        let quotas = QuotaLayer::new(plan).store_in(&ledger, OnFailure::FailClosed).handle();
        Self { ledger, quotas }
    }

    fn lap(&self, runtime: &Runtime, callers: u64, accounts: u64, lap: Duration) -> Rate {
        let quotas = self.quotas.clone();
        runtime.block_on(race(callers, accounts, lap, move |tenant| {
            let quotas = quotas.clone();
            async move { quotas.charge(&Client::named(tenant), ("tokens", 1)).await.expect("a charge") }
        }))
    }

    fn shut_down(self, runtime: &Runtime) {
        runtime.block_on(self.ledger.shut_down(Duration::from_secs(10)));
    }
}

fn told(report: &mut Report, row: &str, [own, each]: &[Rate; 2], peer: &str, goal: f64) {
    report.line(Line::new(row, own.per_second, each.per_second, Goal::AtLeast(goal)));
    for (name, rate) in [("tollgate", own), (peer, each)] {
        report.note(row, name, &format!("{:.0}/s, p99 {:.1} ms", rate.per_second, rate.p99.as_secs_f64() * 1e3));
    }
}

/// Result of a number of callers.
#[derive(Clone, Copy)]
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
