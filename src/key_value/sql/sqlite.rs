//! SQLite.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use sqlx::{
    Executor, Row as _, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, SqlitePool,
    error::DatabaseError,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    SqlStore,
    driver::{self, Parameter, Reported, SqlDriver, driver_calls},
    opening::PoolSource,
    sql_store,
};
use crate::key_value::{
    error::{KeyValueError, KeyValueErrorKind},
    port::{Incremented, ScanPage, StoreFuture, Ttl},
    record::{
        Answer, Begun, Claim, Committed, Completion, OpenTransaction, Owner, Ownership, RecordKey, RecordStore,
        RecordTransactions, UnknownPage,
    },
};

/// Longest wait for a lock on the file.
const BUSY: Duration = Duration::from_secs(5);

/// A key-value store and a record store in an SQLite file, for the processes of one machine.
///
/// It creates the tables `tollgate_key_value`, `tollgate_record` and `tollgate_key_value_version` with its first operation. Times are those of
/// the machine's clock.
///
/// ```no_run
/// # async fn example() -> Result<(), tollgate::key_value::KeyValueError> {
/// use std::time::Duration;
/// use tollgate::key_value::{SqliteStore, already_processed};
///
/// let store = SqliteStore::open("webhooks.db");
/// let is_new = !already_processed(&store, b"evt_1", Duration::from_secs(86_400)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteStore(SqlStore<Sqlite>);

impl SqliteStore {
    /// Creates a store in the file at `path`, with connections of its own; the file is created with the first operation if
    /// it is missing.
    ///
    /// It is opened with a write-ahead log and `synchronous = full`, so that what was acknowledged outlives a power cut.
    #[must_use]
    pub fn open(path: impl AsRef<Path>) -> Self {
        let file = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "1") // on macOS, fsync alone leaves the rows in the disk's cache
            .busy_timeout(BUSY);
        let make = move || SqlitePoolOptions::new().max_connections(4).connect_lazy_with(file.clone());
        Self(SqlStore::new(PoolSource::own(make)))
    }

    /// Creates a store in the file of a pool that the program has.
    ///
    /// The first operation is [`Refused`](KeyValueErrorKind::Refused) if the file would lose what was acknowledged:
    /// `synchronous` must be `full` or `extra`, and the database must not be in memory.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), sqlx::Error> {
    /// let pool = sqlx::SqlitePool::connect("sqlite:app.db").await?;
    /// let store = tollgate::key_value::SqliteStore::new(pool);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new(pool: SqlitePool) -> Self {
        Self(SqlStore::new(PoolSource::Given(pool)))
    }
}

sql_store!(SqliteStore);

impl SqlDriver for Sqlite {
    // SQLite's clock has milliseconds; as a number of days they are exact to a fortieth of one.
    const NOW: &'static str = "(CAST(round((julianday('now') - 2440587.5) * 86400000.0) AS INTEGER) * 1000)";
    const FOR_UPDATE: &'static str = "";
    const SKIP_LOCKED: &'static str = "";
    const MAX_TRANSACTION: Duration = Duration::from_secs(2);
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    const PREPARE_VERSIONS: &'static str =
        "CREATE TABLE IF NOT EXISTS tollgate_key_value_version (version INTEGER NOT NULL PRIMARY KEY) STRICT";
    const HAS_VERSIONS: &'static str = "SELECT count(*) FROM sqlite_schema WHERE name = 'tollgate_key_value_version'";
    const VERSIONS: &'static [&'static str] = &[
        "CREATE TABLE tollgate_key_value (
            key BLOB NOT NULL PRIMARY KEY,
            value BLOB,
            number INTEGER,
            expires_at INTEGER,
            CHECK ((value IS NULL) <> (number IS NULL))) STRICT, WITHOUT ROWID;
        CREATE INDEX tollgate_key_value_expires_at ON tollgate_key_value (expires_at) WHERE expires_at IS NOT NULL",
        "CREATE TABLE tollgate_record (
            key BLOB NOT NULL PRIMARY KEY CHECK (length(key) = 16),
            state INTEGER NOT NULL CHECK (state IN (0, 1, 2)), -- running, done, answer not retained
            owner BLOB CHECK (length(owner) = 16),
            attempt INTEGER NOT NULL,
            hold INTEGER NOT NULL CHECK (hold IN (0, 1)), -- whether the outcome is unknown when the lease is over
            lease_until INTEGER NOT NULL,
            expires_at INTEGER,
            fingerprint BLOB CHECK (length(fingerprint) = 16),
            status INTEGER,
            fields BLOB,
            body BLOB,
            first_at INTEGER NOT NULL,
            format INTEGER NOT NULL,
            policy TEXT NOT NULL,
            client TEXT NOT NULL,
            method TEXT NOT NULL,
            route TEXT NOT NULL,
            client_key TEXT NOT NULL,
            CHECK ((state = 1) = (status IS NOT NULL AND fields IS NOT NULL AND body IS NOT NULL))) STRICT, WITHOUT ROWID;
        CREATE INDEX tollgate_record_expires_at ON tollgate_record (expires_at) WHERE expires_at IS NOT NULL;
        CREATE INDEX tollgate_record_held ON tollgate_record (key) WHERE state = 0 AND hold = 1"];

    driver_calls!();

    /// Classifies by the primary code, the last eight bits: <https://www.sqlite.org/rescode.html>.
    fn reported(error: &dyn DatabaseError) -> Reported {
        let code: i32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(1);
        match code & 0xff {
            4 | 5 | 6 | 9 | 15 => Reported::Again, // ABORT, BUSY, LOCKED, INTERRUPT, PROTOCOL
            10 => Reported::Lost,                  // IOERR: after a failed fsync the contents of the disk are unknown
            _ => Reported::Refused,
        }
    }

    /// SQLite has no code of its own for it.
    fn no_savepoint(error: &dyn DatabaseError) -> bool {
        error.message().contains("no such savepoint")
    }

    async fn check_durable(connection: &mut SqliteConnection) -> Result<(), KeyValueError> {
        let sql = "SELECT coalesce(max(file), ''), (SELECT synchronous FROM pragma_synchronous),
            (SELECT journal_mode FROM pragma_journal_mode) FROM pragma_database_list WHERE name = 'main'";
        let rows = Self::fetch(connection, sql.into_sql_str(), &[]).await;
        let rows = rows.map_err(|error| driver::error::<Self>(error, false))?;
        let Some(row) = rows.first() else { return Ok(()) };
        let refuse = |reason: String| Err(KeyValueError::new(KeyValueErrorKind::Refused, reason));
        let file: String = row.try_get(0).map_err(|error| driver::error::<Self>(error, false))?;
        if file.is_empty() {
            return refuse("the store must be kept in a file, got a database in memory; use MemoryStore".into());
        }
        let journal: String = row.try_get(2).map_err(|error| driver::error::<Self>(error, false))?;
        if ["off", "memory"].contains(&&*journal) {
            let must = "journal_mode must be wal, delete, truncate or persist";
            return refuse(format!("{must}, got {journal}: a crash could destroy the file"));
        }
        match row.try_get(1).map_err(|error| driver::error::<Self>(error, false))? {
            level @ 0..=1_i64 => refuse(format!(
                "synchronous must be full or extra, got {}: entries that were acknowledged could be lost",
                if level == 0 { "off" } else { "normal" }
            )),
            _ => Ok(()),
        }
    }
}
