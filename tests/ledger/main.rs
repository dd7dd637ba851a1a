//! Quotas in a ledger, through the public API: each charge is written once, and no acknowledged charge is lost.
//!
//! Each test runs on each database. Those of PostgreSQL are named `on_a_server` and start a server of their own.

mod archive;
mod audit;
mod away;
mod billing;
mod billing_bugs;
mod credits;
mod extreme_values;
mod extremes;
mod grants;
mod handler;
mod invoices;
mod jobs;
mod killed;
mod layer;
mod life;
#[cfg(feature = "postgres")]
mod opening;
mod outage;
mod rejected;
mod spool;
mod spool_aside;
mod spool_owner;
#[cfg(feature = "sqlite")]
mod stopped_clock;
mod unknown;

#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, SystemTime};

use support::MONTH;
use tollgate::{
    Client, EntryKind, Ledger, LedgerEntry, OnFailure, Period, Plan, Quota, QuotaLayer, Quotas, ReservationId,
};

/// After this time a test counts as hung. It asserts no speed: only a hang takes this long.
const HUNG: Duration = Duration::from_secs(300);

/// Deadline of callers that an event must answer. Longer than [`HUNG`], so that no answer comes from the deadline.
const PATIENT: Duration = Duration::from_secs(3_600);

/// A database that several ledgers open in turn.
enum Database {
    Sqlite(std::path::PathBuf),
    #[cfg(feature = "postgres")]
    Postgres(String),
}

impl Database {
    fn sqlite() -> Self {
        Self::Sqlite(Self::new_file())
    }

    fn new_file() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("tollgate-ledger-{}-{:x}.db", std::process::id(), fastrand::u64(..)))
    }

    #[cfg(feature = "postgres")]
    fn postgres() -> Self {
        Self::Postgres(support::postgres::Postgres::shared().database())
    }

    /// Returns another database of the same kind.
    fn another(&self) -> Self {
        match self {
            Self::Sqlite(_) => Self::sqlite(),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Self::postgres(),
        }
    }

    /// Opens the ledger; its callers are [`PATIENT`].
    async fn open(&self) -> Ledger {
        self.builder().open().await.unwrap().deadline(PATIENT)
    }

    fn builder(&self) -> tollgate::LedgerBuilder {
        let builder = match self {
            Self::Sqlite(file) => tollgate::Ledger::sqlite(file),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => tollgate::Ledger::postgres(url),
        };
        builder.open_timeout(HUNG)
    }

    /// Moves all rows a number of days into the past.
    async fn age(&self, days: u32) {
        let statements: &[&str] = match self {
            Self::Sqlite(_) => &[
                "DROP TRIGGER quota_consumption_unchanged",
                "UPDATE quota_consumption SET consumed_at = consumed_at - @, window_start = window_start - @ WHERE limit_id <> ''",
                "UPDATE quota_counter SET window_start = window_start - @, window_end = window_end - @",
                "UPDATE quota_hold SET since = since - @",
                "CREATE TRIGGER quota_consumption_unchanged BEFORE UPDATE ON quota_consumption
                 BEGIN SELECT raise(ABORT, 'rows of quota_consumption are never changed'); END",
            ],
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => &[
                "ALTER TABLE quota_consumption DISABLE TRIGGER ALL",
                "UPDATE quota_consumption SET consumed_at = consumed_at - interval '@ us',
                 window_start = window_start - interval '@ us' WHERE limit_id <> ''",
                "UPDATE quota_counter SET window_start = window_start - interval '@ us', window_end = window_end - interval '@ us'",
                "UPDATE quota_hold SET since = since - interval '@ us'",
                "ALTER TABLE quota_consumption ENABLE TRIGGER ALL",
            ],
        };
        let micros = (u64::from(days) * 86_400_000_000).to_string();
        for statement in statements {
            self.meddle(statement.replace('@', &micros)).await.unwrap();
        }
    }

    /// Returns the id of a reservation that was moved a number of days into the past.
    fn aged(&self, id: &ReservationId, days: u32) -> ReservationId {
        let text = id.to_string();
        let mut parts: Vec<_> = text.split('.').map(String::from).collect();
        let at: u64 = parts[2].parse().unwrap();
        parts[2] = (at - u64::from(days) * 86_400_000_000_000).to_string();
        parts.join(".").parse().unwrap()
    }

    /// Changes the tables behind the ledger's back.
    async fn meddle(&self, sql: impl Into<String>) -> sqlx::Result<u64> {
        let sql = sqlx::AssertSqlSafe(sql.into());
        match self {
            Self::Sqlite(file) => {
                let pool = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await?;
                Ok(sqlx::query(sql).execute(&pool).await?.rows_affected())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => {
                let pool = sqlx::PgPool::connect(url).await?;
                Ok(sqlx::query(sql).execute(&pool).await?.rows_affected())
            }
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        match self {
            Self::Sqlite(file) => {
                for end in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{end}", file.display()));
                }
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {}
        }
    }
}

/// Runs each test in a file and on a server.
macro_rules! on_each_database {
    ($($name:ident)*) => {
        mod in_a_file {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::Database::sqlite()).await;
            })*
        }

        #[cfg(feature = "postgres")]
        mod on_a_server {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() {
                super::$name(crate::Database::postgres()).await;
            })*
        }
    };
}
use on_each_database;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + tollgate::Clock::system().wall()
}

fn tokens(limit: u64) -> Plan {
    Plan::new("paid").limit(Quota::units("tokens", limit).per(MONTH).named("tokens_per_month"))
}

fn quotas(ledger: &Ledger, plan: Plan) -> Quotas {
    QuotaLayer::new(plan).store_in(ledger, OnFailure::FailClosed).handle()
}

fn acme() -> Client {
    Client::named("acme")
}

/// Returns the used and the reserved amount of the first limit.
async fn counts(quotas: &Quotas, client: &Client) -> (u64, u64) {
    let usage = quotas.usage(client).await.unwrap();
    (usage.limits[0].used, usage.limits[0].reserved)
}

async fn rows(ledger: &Ledger, tenant: &str) -> Vec<LedgerEntry> {
    let ahead = now() + std::time::Duration::from_secs(3_600);
    let (mut rows, mut entries) = (Vec::new(), ledger.entries(tenant, SystemTime::UNIX_EPOCH, ahead));
    while let Some(row) = entries.next().await.unwrap() {
        rows.push(row);
    }
    rows
}

/// Returns job, entry and amount of each row.
fn told(rows: &[LedgerEntry]) -> Vec<(&str, &str, i64)> {
    rows.iter().map(|row| (row.job.as_str(), row.entry.as_str(), row.amount)).collect()
}

/// Waits until all settlements without a waiting caller are written.
async fn settled(ledger: &Ledger) {
    until("everything is written", async || ledger.backlog() == 0).await;
}

/// Waits until a condition holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let held = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(HUNG, held).await.unwrap_or_else(|_| panic!("{what}: not within {HUNG:?}"));
}
