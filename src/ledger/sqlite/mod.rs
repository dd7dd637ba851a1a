//! SQLite: a ledger in a file.

mod error;
mod statements;
#[cfg(test)]
mod tests;
mod transaction;

use std::{path::Path, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Executor, Row as _, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, SqlitePool,
    query::Query,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
    },
};

use super::{
    DbError, LedgerError, LedgerErrorKind,
    sql::{Columns, OpenOptions, SqlDatabase, SqlDialect, SqlValue, db_error, driver_calls, encoding, safe},
};

/// A ledger in SQLite.
pub(crate) type SqliteDatabase = SqlDatabase<Sqlite>;

type SqliteQuery = Query<'static, Sqlite, SqliteArguments>;

/// Query for the path of the file; empty for a database in memory.
const FILE: &str = "SELECT coalesce(max(file), '') FROM pragma_database_list WHERE name = 'main'";

/// Longest wait for a lock on the file.
const BUSY: Duration = Duration::from_secs(5);

impl SqliteDatabase {
    /// Opens the file at `path`, which is created if it is missing.
    pub(crate) async fn in_file(path: &Path, options: OpenOptions) -> Result<Self, LedgerError> {
        check_path(path)?;
        let file = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "1") // on macOS, fsync alone leaves the rows in the disk's cache
            .busy_timeout(BUSY)
            .row_buffer_size(1_024) // a batch's rows cross over from the connection's thread without a pause
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(file);
        Self::new(pool, options).owned(&path.display().to_string()).open().await
    }

    /// Opens the file of an existing pool.
    pub(crate) async fn from_pool(pool: SqlitePool, options: OpenOptions) -> Result<Self, LedgerError> {
        Self::new(pool, options).open().await
    }

    /// Opens a database in memory, for tests.
    pub(crate) async fn in_memory() -> Result<Self, LedgerError> {
        // A name that begins with a slash is shared by the connections of a process:
        // https://sqlite.org/src/file/src/memdb.c
        let name = format!("/tollgate-{:032x}", uuid::Uuid::now_v7().as_u128());
        let memory = SqliteConnectOptions::new().filename(name).vfs("memdb").busy_timeout(BUSY);
        let connection = memory.connect().await.map_err(db_error::<Sqlite>)?;
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(memory);
        Self::new(pool, OpenOptions::default()).owned("").kept_by(connection).open().await
    }
}

/// Rejects a path that is a URL, or whose folder is missing.
fn check_path(path: &Path) -> Result<(), LedgerError> {
    let address = |reason| Err(LedgerError::new(LedgerErrorKind::Address, reason));
    let text = path.to_string_lossy();
    for (scheme, way_out) in [
        ("postgres:", "call Ledger::postgres(url)"),
        ("postgresql:", "call Ledger::postgres(url)"),
        ("sqlite:", "pass what follows `sqlite:` and its slashes"),
        ("file:", "pass the path alone"),
    ] {
        if text.starts_with(scheme) {
            return address(format!(
                "a ledger in SQLite must have the path of a file, got a URL `{scheme}..`; {way_out}"
            ));
        }
    }
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        Some(folder) => address(format!("the folder of a ledger must exist, got {}; create it", folder.display())),
        None => Ok(()),
    }
}

impl SqlDialect for Sqlite {
    const NOW: &'static str = statements::CLOCK;
    const EARLIEST: &'static str = "(-1 << 63)";
    const LARGER: &'static str = "max";
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    // SQLite reports a read-only file only to statements that would write.
    const PREPARE_SCHEMA: &'static str =
        "CREATE TABLE IF NOT EXISTS quota_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;
        DELETE FROM quota_schema WHERE version < 0";
    const PROVES_WRITABLE: bool = true;
    const CACHES_STATEMENTS: bool = true;
    const HAS_SCHEMA: &'static str = "SELECT count(*) FROM sqlite_schema WHERE name = 'quota_schema'";
    const VERSIONS: &'static [&'static str] = &[
        include_str!("../schema/sqlite/0001_ledger.sql"),
        include_str!("../schema/sqlite/0002_counters.sql"),
        include_str!("../schema/sqlite/0003_keys.sql"),
    ];
    const LOST_GUARDS: &'static str = "SELECT 'unique index quota_consumption_once' WHERE NOT EXISTS (
            SELECT 1 FROM pragma_index_list('quota_consumption') WHERE name = 'quota_consumption_once' AND [unique])
        UNION ALL SELECT 'trigger ' || column1 FROM (VALUES ('quota_consumption_unchanged'), ('quota_consumption_kept'))
        WHERE column1 NOT IN (SELECT name FROM sqlite_schema WHERE type = 'trigger')";
    // No other connection sees the transaction in which the trigger is missing.
    const ALLOW_DELETES: &'static str = "DROP TRIGGER quota_consumption_kept";
    const FORBID_DELETES: &'static str = "CREATE TRIGGER quota_consumption_kept BEFORE DELETE ON quota_consumption
BEGIN SELECT raise(ABORT, 'rows of quota_consumption are never deleted: write a row that corrects'); END";

    driver_calls!();

    fn time(micros: i64) -> String {
        micros.to_string()
    }

    fn indexed_by(index: &str) -> String {
        format!("INDEXED BY {index}")
    }

    fn statements() -> Vec<Arc<str>> {
        statements::all().collect()
    }

    fn micros(row: &SqliteRow, at: usize) -> Result<Option<i64>, DbError> {
        Self::number(row, at)
    }

    fn reported(reported: &dyn sqlx::error::DatabaseError) -> DbError {
        error::reported(reported)
    }

    /// SQLite has one lock, which the transaction holds.
    fn limit_lock_wait(_: u128) -> String {
        String::new()
    }

    async fn check_promises(connection: &mut SqliteConnection, _: bool) -> Result<(), LedgerError> {
        let lossy = |reason: String| Err(LedgerError::new(LedgerErrorKind::Unsafe, reason));
        if one(connection, FILE).await?.is_empty() {
            return lossy("a ledger must be kept in a file, got a database in memory".into());
        }
        let synchronous = one(connection, "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await?;
        if let "0" | "1" = synchronous.as_str() {
            let got = if synchronous == "0" { "off" } else { "normal" };
            return lossy(format!(
                "synchronous must be full or extra, got {got}: rows that were acknowledged could be lost"
            ));
        }
        let journal = one(connection, "PRAGMA journal_mode").await?;
        if ["off", "memory"].contains(&&*journal) {
            return lossy(format!(
                "journal_mode must be wal, delete, truncate or persist, got {journal}: a crash could destroy the file"
            ));
        }
        Ok(())
    }
}

fn bind(query: SqliteQuery, value: &SqlValue<'_>) -> SqliteQuery {
    match *value {
        SqlValue::Null => query.bind(None::<i64>),
        SqlValue::Text(text) => query.bind(encoding::text(text)),
        SqlValue::Number(number) | SqlValue::Time(number) => query.bind(number),
        SqlValue::Flag(flag) => query.bind(flag),
        SqlValue::Digest(digest) => query.bind(uuid::Uuid::from_u128(digest)),
    }
}

/// Returns the text of the first row; empty if there is none.
async fn one(connection: &mut SqliteConnection, sql: &'static str) -> Result<String, DbError> {
    let rows = Sqlite::fetch(connection, sql.into_sql_str(), &[]).await?;
    rows.first().map_or_else(|| Ok(String::new()), |row| Columns::<Sqlite>::new(row).text())
}
