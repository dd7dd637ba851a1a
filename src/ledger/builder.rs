//! Builder of a ledger: selects the database and the spool.

use std::{fmt, path::PathBuf, time::Duration};

#[cfg(feature = "postgres")]
use super::postgres::PostgresDatabase;
#[cfg(feature = "sqlite")]
use super::sqlite::SqliteDatabase;
use super::{Ledger, LedgerError, LedgerInner, Spool, handle::AnyInner, sql::OpenOptions};
use crate::{
    gate::{Observer, Observers},
    time::Clock,
};

/// Builder of a [`Ledger`]; [`open`](Self::open) opens it. Made by [`Ledger::sqlite`], [`Ledger::postgres`] and their
/// siblings.
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # async fn example() -> Result<(), tollgate::LedgerError> {
/// use tollgate::{Ledger, OnFailure, Plan, QuotaLayer};
///
/// let ledger = Ledger::sqlite("quota.db").spool_in("quota.spool").open().await?;
/// let layer = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailOpen);
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `open` is called"]
pub struct LedgerBuilder {
    database: DatabaseSource,
    spool: Option<SpoolSource>,
    options: OpenOptions,
    clock: Option<Clock>,
    observers: Observers,
}

enum DatabaseSource {
    #[cfg(feature = "sqlite")]
    File(PathBuf),
    #[cfg(feature = "sqlite")]
    FilePool(sqlx::SqlitePool),
    #[cfg(feature = "sqlite")]
    Memory,
    #[cfg(feature = "postgres")]
    Server(String),
    #[cfg(feature = "postgres")]
    ServerPool(sqlx::PgPool),
}

enum SpoolSource {
    Open(Spool),
    Path(PathBuf),
}

/// # Opening a ledger
///
/// | | database | feature |
/// |---|---|---|
/// | [`sqlite`](Self::sqlite), [`sqlite_pool`](Self::sqlite_pool) | a file: exact quotas for the processes of one machine | `sqlite` |
/// | [`postgres`](Self::postgres), [`postgres_pool`](Self::postgres_pool) | a server: exact quotas for a fleet | `postgres` |
///
/// The ledger creates its own tables, whose names begin with `quota_`. The view `quota_ledger` is for operators.
impl Ledger {
    /// Returns the builder of a ledger in the SQLite file at `path`, which is created if it is missing.
    ///
    /// Connections write ahead (`journal_mode = wal`), wait for the disk at each commit (`synchronous = full`), and
    /// wait at most 5 s for a lock. One connection writes at a time. On Unix, a commit into a file that was removed or
    /// replaced under the running program acknowledges nothing. SQLite's clock has a resolution of 1 ms. A network
    /// file system does not work: the locks and the shared memory of SQLite need one machine.
    ///
    /// # Errors
    /// [`open`](LedgerBuilder::open) fails if the file cannot be opened or written, or if its tables are altered or of
    /// a newer version.
    #[cfg(feature = "sqlite")]
    pub fn sqlite(path: impl Into<PathBuf>) -> LedgerBuilder {
        LedgerBuilder::new(DatabaseSource::File(path.into()))
    }

    /// Returns the builder of a ledger in the SQLite file of an existing pool.
    ///
    /// The writer takes one connection out of the pool for good when the ledger is opened; the pool opens another in its
    /// place.
    ///
    /// # Errors
    /// [`open`](LedgerBuilder::open) fails if a connection would lose acknowledged rows: `synchronous` below full, a
    /// journal in memory or switched off, or a database in memory. It also fails if the tables are altered or of a
    /// newer version.
    #[cfg(feature = "sqlite")]
    pub fn sqlite_pool(pool: sqlx::SqlitePool) -> LedgerBuilder {
        LedgerBuilder::new(DatabaseSource::FilePool(pool))
    }

    /// Returns the builder of a ledger in memory, for tests. It ends with the process, with all acknowledged rows.
    ///
    /// # Errors
    /// [`open`](LedgerBuilder::open) fails if there is no memory for it.
    #[cfg(feature = "sqlite")]
    pub fn sqlite_in_memory() -> LedgerBuilder {
        LedgerBuilder::new(DatabaseSource::Memory)
    }

    /// Returns the builder of a ledger in the PostgreSQL database at `url`, with a pool of its own.
    ///
    /// The tables are in the first schema of the connection's `search_path`. A writer locks only the accounts of its
    /// batch. An account that another session has locked delays no other: a second connection waits for it, opened when
    /// it is first needed.
    ///
    /// # Behind a pooler
    /// All settings end with the transaction. A pooler that gives each transaction another connection must support
    /// prepared statements (PgBouncer does since 1.21).
    ///
    /// # Errors
    /// [`open`](LedgerBuilder::open) fails if the URL is invalid, the server cannot be reached within the [`open_timeout`](LedgerBuilder::open_timeout), or the
    /// server would lose acknowledged rows. It also fails if the tables are altered or of a newer version. The error
    /// never shows the URL's password.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::Ledger::postgres("postgres://shop:secret@db.internal:5432/quota").open().await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "postgres")]
    pub fn postgres(url: impl Into<String>) -> LedgerBuilder {
        LedgerBuilder::new(DatabaseSource::Server(url.into()))
    }

    /// Returns the builder of a ledger in the PostgreSQL database of an existing pool; otherwise as
    /// [`postgres`](Self::postgres).
    ///
    /// The writer takes one connection out of the pool for good, and a second one when another session first holds an
    /// account; the pool opens others in their place.
    ///
    /// # Errors
    /// [`open`](LedgerBuilder::open) fails if the server is read-only or would lose acknowledged rows
    /// (`synchronous_commit` or `fsync` is off). It also fails if the tables are altered or of a newer version.
    #[cfg(feature = "postgres")]
    pub fn postgres_pool(pool: sqlx::PgPool) -> LedgerBuilder {
        LedgerBuilder::new(DatabaseSource::ServerPool(pool))
    }
}

impl LedgerBuilder {
    fn new(database: DatabaseSource) -> Self {
        Self { database, spool: None, options: OpenOptions::default(), clock: None, observers: Observers::default() }
    }

    /// Sets the spool that stores the charges of requests admitted without the ledger; default: none.
    ///
    /// A layer under [`OnFailure::FailOpen`](crate::OnFailure::FailOpen) or
    /// [`OnFailure::LocalShare`](crate::OnFailure::LocalShare) needs one. All layers of a ledger share it.
    /// Records that a former process left are merged once a layer keeps its accounts in the ledger, whatever it does on
    /// failure.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate::{Ledger, Spool};
    /// let spool = Spool::at("quota.spool")?.at_most(16 << 20);
    /// let ledger = Ledger::sqlite("quota.db").spool(spool).open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn spool(self, spool: Spool) -> Self {
        Self { spool: Some(SpoolSource::Open(spool)), ..self }
    }

    /// Opens a spool of at most 64 MiB in the file at `path` together with the ledger; otherwise as
    /// [`spool`](Self::spool). [`Ledger::spool`] returns it.
    pub fn spool_in(self, path: impl Into<PathBuf>) -> Self {
        Self { spool: Some(SpoolSource::Path(path.into())), ..self }
    }

    /// Sets the longest wait for a connection, and for locks of other programs, while the ledger is opened; default
    /// 10 s. A migration of the tables that has begun is not bounded.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// use std::time::Duration;
    /// let ledger = tollgate::Ledger::sqlite("quota.db").open_timeout(Duration::from_secs(2)).open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_timeout(mut self, most: Duration) -> Self {
        self.options.timeout = most;
        self
    }

    /// Opens the database with its first use instead of now, so that the program starts while it is away. Until it
    /// answers, each layer decides as its [`OnFailure`](crate::OnFailure) says.
    ///
    /// A database that answers but fails a check of [`open`](Self::open) is not away: all requests are refused, also
    /// under fail open and local share. [`Event::StoreLost`](crate::Event::StoreLost) and
    /// [`Ledger::failed_check`] have the reason.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn example(url: &str) -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::Ledger::postgres(url).spool_in("quota.spool").lazy().open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lazy(mut self) -> Self {
        self.options.lazy = true;
        self
    }

    /// Accepts a PostgreSQL server with `fsync = off`, because its storage is durable without it, as that of Neon is.
    /// On any other server a crash then loses rows that were acknowledged. A ledger in SQLite ignores it.
    ///
    /// ```no_run
    /// # #[cfg(feature = "postgres")]
    /// # async fn example(url: &str) -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::Ledger::postgres(url).storage_is_durable().open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn storage_is_durable(mut self) -> Self {
        self.options.durable_storage = true;
        self
    }

    /// Sets the clock of the ledger, for tests: a month ends when the test says so. Without it the database's clock
    /// counts, which all its processes share.
    ///
    /// Give the same clock to the layers. Reservations of requests that were lost are released within a second of real
    /// time after the clock has passed their end.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tollgate::{Client, FakeClock, Ledger, OnFailure, Period, Plan, Quota, QuotaLayer};
    ///
    /// let clock = FakeClock::new(); // 2026-01-01 00:00 UTC
    /// let ledger = Ledger::sqlite_in_memory().clock(clock.clone()).open().await.unwrap();
    /// let plan = Plan::new("paid").limit(Quota::units("tokens", 100).per(Period::month()));
    /// let layer = QuotaLayer::new(plan).store_in(&ledger, OnFailure::FailClosed).clock(clock.clone());
    /// let quotas = layer.handle();
    ///
    /// quotas.charge(&Client::named("acme"), ("tokens", 100)).await.unwrap();
    /// assert!(quotas.charge(&Client::named("acme"), ("tokens", 1)).await.is_err());
    /// clock.advance(Duration::from_secs(31 * 86_400));
    /// quotas.charge(&Client::named("acme"), ("tokens", 1)).await.unwrap();
    /// # });
    /// ```
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = Some(clock.into());
        self
    }

    /// Adds an observer of the ledger itself: of the [steps](crate::Event::StoreStep) of its transactions, with their times,
    /// and of each [comparison](crate::Event::Reconciled) of its counters with their rows. Observers of a layer receive the
    /// events of that layer, and none of these.
    ///
    /// It runs in the task that writes: it must not block. Without an observer no time is read.
    ///
    /// ```no_run
    /// # #[cfg(all(feature = "sqlite", feature = "metrics"))]
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// use tollgate::{Ledger, telemetry::Metrics};
    ///
    /// let metrics = Metrics::new(); // and .observe(metrics.clone()) at each layer
    /// let ledger = Ledger::sqlite("quota.db").observe(metrics.clone()).open().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(mut self, observer: impl Observer) -> Self {
        self.observers = self.observers.and(observer);
        self
    }

    /// Opens the database and the spool, and creates missing tables. Of a [lazy](Self::lazy) ledger, it opens only the
    /// spool.
    ///
    /// # Errors
    /// As the constructor says; [`LedgerError::kind`] tells them apart. Also if the spool cannot be opened (see
    /// [`Spool::at`]), belongs to another open ledger, or has records of another database.
    pub async fn open(self) -> Result<Ledger, LedgerError> {
        let (options, clock, observers) = (self.options, self.clock, self.observers);
        let spool = match self.spool {
            Some(SpoolSource::Open(spool)) => Some(spool),
            Some(SpoolSource::Path(path)) => Some(Spool::at(path)?),
            None => None,
        };
        match self.database {
            #[cfg(feature = "sqlite")]
            DatabaseSource::File(path) => {
                in_sqlite(SqliteDatabase::in_file(&path, options).await?.timed_by(clock), spool, observers)
            }
            #[cfg(feature = "sqlite")]
            DatabaseSource::FilePool(pool) => {
                in_sqlite(SqliteDatabase::from_pool(pool, options).await?.timed_by(clock), spool, observers)
            }
            #[cfg(feature = "sqlite")]
            DatabaseSource::Memory => in_sqlite(SqliteDatabase::in_memory().await?.timed_by(clock), spool, observers),
            #[cfg(feature = "postgres")]
            DatabaseSource::Server(url) => {
                in_postgres(PostgresDatabase::at_url(&url, options).await?.timed_by(clock), spool, observers)
            }
            #[cfg(feature = "postgres")]
            DatabaseSource::ServerPool(pool) => {
                in_postgres(PostgresDatabase::from_pool(pool, options).await?.timed_by(clock), spool, observers)
            }
        }
    }
}

#[cfg(feature = "sqlite")]
fn in_sqlite(database: SqliteDatabase, spool: Option<Spool>, observers: Observers) -> Result<Ledger, LedgerError> {
    let id = database.ledger_id();
    Ok(Ledger(AnyInner::Sqlite(LedgerInner::new(database, spool, id, observers)?)))
}

#[cfg(feature = "postgres")]
fn in_postgres(database: PostgresDatabase, spool: Option<Spool>, observers: Observers) -> Result<Ledger, LedgerError> {
    let id = database.ledger_id();
    Ok(Ledger(AnyInner::Postgres(LedgerInner::new(database, spool, id, observers)?)))
}

/// Shows the file or the kind of the database. A URL is not shown, because it may contain a password.
impl fmt::Debug for LedgerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("LedgerBuilder");
        match &self.database {
            #[cfg(feature = "sqlite")]
            DatabaseSource::File(path) => shown.field("sqlite", path),
            #[cfg(feature = "sqlite")]
            DatabaseSource::FilePool(_) => shown.field("sqlite", &"pool"),
            #[cfg(feature = "sqlite")]
            DatabaseSource::Memory => shown.field("sqlite", &"memory"),
            #[cfg(feature = "postgres")]
            DatabaseSource::Server(_) => shown.field("postgres", &"url"),
            #[cfg(feature = "postgres")]
            DatabaseSource::ServerPool(_) => shown.field("postgres", &"pool"),
        };
        match &self.spool {
            Some(SpoolSource::Open(spool)) => shown.field("spool", spool),
            Some(SpoolSource::Path(path)) => shown.field("spool", path),
            None => &mut shown,
        };
        shown.finish()
    }
}

#[cfg(all(test, feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let builder = Ledger::postgres("postgres://ann:canary@127.0.0.1/quota").spool_in("quota.spool");
        assert_eq!(format!("{builder:?}"), r#"LedgerBuilder { postgres: "url", spool: "quota.spool" }"#);
    }
}
