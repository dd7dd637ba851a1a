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
    DbError, LedgerError,
    sql::{Columns, SqlDatabase, SqlDialect, SqlValue, db_error, driver_calls, encoding, safe},
};

/// A ledger in SQLite.
pub(crate) type SqliteDatabase = SqlDatabase<Sqlite>;

type SqliteQuery = Query<'static, Sqlite, SqliteArguments>;

/// Longest wait for a lock on the file.
const BUSY: Duration = Duration::from_secs(5);

impl SqliteDatabase {
    /// Opens the file at `path`, which is created if it is missing.
    pub(crate) async fn in_file(path: &Path) -> Result<Self, LedgerError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "1") // on macOS, fsync alone leaves the rows in the disk's cache
            .busy_timeout(BUSY)
            .row_buffer_size(1_024) // a batch's rows cross over from the connection's thread without a pause
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        // While another connection changes the journal of a new file, SQLite fails at once and does not wait.
        let mut tries = 0;
        loop {
            match Self::open(pool.clone(), true, None).await {
                Err(DbError::Again(_)) if tries < 100 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => {
                    return opened
                        .map_err(|error| LedgerError::new(format!("{} ({})", error.reason(), path.display())));
                }
            }
        }
    }

    /// Opens the file of an existing pool.
    pub(crate) async fn from_pool(pool: SqlitePool) -> Result<Self, LedgerError> {
        Ok(Self::open(pool, false, None).await?)
    }

    /// Opens a database in memory, for tests.
    pub(crate) async fn in_memory() -> Result<Self, LedgerError> {
        // A name that begins with a slash is shared by the connections of a process:
        // https://sqlite.org/src/file/src/memdb.c
        let name = format!("/tollgate-{:032x}", uuid::Uuid::now_v7().as_u128());
        let options = SqliteConnectOptions::new().filename(name).vfs("memdb").busy_timeout(BUSY);
        let connection = options.connect().await.map_err(db_error::<Sqlite>)?;
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        Ok(Self::open(pool, true, Some(connection)).await?)
    }
}

impl SqlDialect for Sqlite {
    const NOW: &'static str = statements::CLOCK;
    const LARGER: &'static str = "max";
    const BEGIN_WRITE: &'static str = "BEGIN IMMEDIATE";
    // SQLite reports a read-only file only to statements that would write.
    const PREPARE_SCHEMA: &'static str =
        "CREATE TABLE IF NOT EXISTS quota_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;
        DELETE FROM quota_schema WHERE version < 0";
    const PROVES_WRITABLE: bool = true;
    const CACHES_STATEMENTS: bool = true;
    const HAS_SCHEMA: &'static str = "SELECT count(*) FROM sqlite_schema WHERE name = 'quota_schema'";
    const VERSIONS: &'static [&'static str] = &[include_str!("../schema/sqlite/0001_ledger.sql")];
    const HAS_UNIQUE_INDEX: &'static str = "SELECT count(*) FROM pragma_index_list('quota_consumption')
        WHERE name = 'quota_consumption_once' AND [unique]";
    // No other connection sees the transaction in which the trigger is missing.
    const ALLOW_DELETES: &'static str = "DROP TRIGGER quota_consumption_kept";
    const FORBID_DELETES: &'static str = "CREATE TRIGGER quota_consumption_kept BEFORE DELETE ON quota_consumption
BEGIN SELECT raise(ABORT, 'rows of quota_consumption are never deleted: write a row that corrects'); END";

    driver_calls!();

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

    async fn check_promises(connection: &mut SqliteConnection, volatile: bool) -> Result<(), DbError> {
        if volatile {
            return Ok(());
        }
        let refused = |reason: String| Err(DbError::Refused(reason));
        let file =
            one(connection, "SELECT coalesce(max(file), '') FROM pragma_database_list WHERE name = 'main'").await?;
        if file.is_empty() {
            return refused("a ledger must be kept in a file, got a database in memory".into());
        }
        let synchronous = one(connection, "SELECT CAST(synchronous AS TEXT) FROM pragma_synchronous").await?;
        if let "0" | "1" = synchronous.as_str() {
            let got = if synchronous == "0" { "off" } else { "normal" };
            return refused(format!(
                "synchronous must be full or extra, got {got}: rows that were acknowledged could be lost"
            ));
        }
        let journal = one(connection, "PRAGMA journal_mode").await?;
        if ["off", "memory"].contains(&&*journal) {
            return refused(format!(
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
