//! Differences between the SQL databases and between their drivers.

use std::{future::Future, sync::Arc};

use sqlx::{AssertSqlSafe, Database, Error, SqlSafeStr, SqlStr};

use super::encoding::until;
use crate::ledger::{DbError, LedgerError};

/// An SQL database: its driver, and the texts in which its SQL differs.
pub(crate) trait SqlDialect: Database {
    /// Expression of the present time, in the stored form.
    const NOW: &'static str;
    /// Expression of a time before all others. PostgreSQL finds the entries of an account only by a condition on their time.
    const EARLIEST: &'static str;
    /// Function that returns the larger of two values.
    const LARGER: &'static str;
    /// Statement that begins a writing transaction.
    const BEGIN_WRITE: &'static str;
    /// Statements that lock the tables' versions, and create the table of versions if it is missing.
    const PREPARE_SCHEMA: &'static str;
    /// Whether [`PREPARE_SCHEMA`](Self::PREPARE_SCHEMA) runs at each start, since it proves that the database is
    /// writable.
    const PROVES_WRITABLE: bool;
    /// Whether a connection keeps the prepared statements of reports. A server plans them for their values each time.
    const CACHES_STATEMENTS: bool;
    /// Query for the number of tables of versions: 0 or 1.
    const HAS_SCHEMA: &'static str;
    /// Statements that create each version of the tables from the previous one.
    const VERSIONS: &'static [&'static str];
    /// Query for the names of the guards of `quota_consumption` that are missing or switched off.
    const LOST_GUARDS: &'static str;
    /// Statements that allow a transaction to delete entries, and that forbid it again.
    const ALLOW_DELETES: &'static str;
    const FORBID_DELETES: &'static str;

    /// Returns the expression of a time in microseconds since 1970, in the stored form.
    fn time(micros: i64) -> String;

    /// Returns the clause by which a query uses this index; empty if the planner finds it.
    fn indexed_by(index: &str) -> String;

    /// Returns the statements of the charge path, which each connection prepares when it is checked.
    fn statements() -> Vec<Arc<str>>;

    /// Runs one query and returns its rows.
    fn fetch(
        connection: &mut Self::Connection,
        sql: SqlStr,
        values: &[SqlValue<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, DbError>> + Send;

    /// Runs one statement and returns the number of rows that it changed.
    fn execute(
        connection: &mut Self::Connection,
        sql: SqlStr,
        values: &[SqlValue<'_>],
    ) -> impl Future<Output = Result<u64, DbError>> + Send;

    /// Runs statements without values.
    fn run(connection: &mut Self::Connection, sql: SqlStr) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Prepares a statement, which fails if a table or a column is missing.
    fn prepare(connection: &mut Self::Connection, sql: Arc<str>) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Returns a column of integers.
    fn number(row: &Self::Row, at: usize) -> Result<Option<i64>, DbError>;

    /// Returns a column of booleans.
    fn flag(row: &Self::Row, at: usize) -> Result<Option<bool>, DbError>;

    /// Returns a column of texts, as they are stored.
    fn text(row: &Self::Row, at: usize) -> Result<Option<&str>, DbError>;

    /// Returns a column of times, in microseconds since 1970.
    fn micros(row: &Self::Row, at: usize) -> Result<Option<i64>, DbError>;

    /// Returns a column of 16 bytes.
    fn digest(row: &Self::Row, at: usize) -> Result<Option<u128>, DbError>;

    /// Classifies an error that the database itself reported.
    fn reported(error: &dyn sqlx::error::DatabaseError) -> DbError;

    /// Returns the statement that limits each wait for a lock within a transaction, in milliseconds.
    fn limit_lock_wait(millis: u128) -> String;

    /// Rejects a connection that would lose acknowledged rows or that lacks a right; `durable_storage` if the storage
    /// of a server needs no `fsync`.
    fn check_promises(
        connection: &mut Self::Connection,
        durable_storage: bool,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SqlValue<'a> {
    Null,
    Text(&'a str),
    Number(i64),
    Flag(bool),
    /// Microseconds since 1970.
    Time(i64),
    Digest(u128),
}

impl SqlValue<'_> {
    /// Returns a time in nanoseconds since 1970 as a value.
    pub(crate) fn time(nanos: u64) -> Self {
        Self::Time(until(nanos))
    }

    /// Returns a number of rows as a value.
    pub(super) fn count(most: usize) -> Self {
        Self::Number(i64::try_from(most).unwrap_or(i64::MAX))
    }
}

/// Marks the crate's own text as a statement.
pub(crate) fn safe(sql: impl Into<Arc<str>>) -> SqlStr {
    AssertSqlSafe(sql.into()).into_sql_str()
}

/// Classifies an error by what it means to the transaction in which it occurred.
pub(crate) fn db_error<S: SqlDialect>(error: Error) -> DbError {
    let text = format!("{}: {error}", S::NAME);
    match error {
        Error::Database(reported) => S::reported(&*reported),
        Error::Io(_)
        | Error::Tls(_)
        | Error::Protocol(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::BeginFailed => DbError::Lost(text),
        Error::Encode(_) | Error::Decode(_) | Error::ColumnDecode { .. } => DbError::Rejected(text),
        _ => DbError::Refused(text),
    }
}

/// Calls of a driver. Their text is the same for every [`SqlDialect`]; generic code would repeat sqlx's bounds at each
/// use.
macro_rules! driver_calls {
    () => {
        async fn fetch(
            connection: &mut Self::Connection,
            sql: SqlStr,
            values: &[SqlValue<'_>],
        ) -> Result<Vec<Self::Row>, DbError> {
            let query = values.iter().fold(sqlx::query(sql).persistent(Self::CACHES_STATEMENTS), bind);
            query.fetch_all(connection).await.map_err(db_error::<Self>)
        }

        async fn execute(
            connection: &mut Self::Connection,
            sql: SqlStr,
            values: &[SqlValue<'_>],
        ) -> Result<u64, DbError> {
            let query = values.iter().fold(sqlx::query(sql).persistent(Self::CACHES_STATEMENTS), bind);
            Ok(query.execute(connection).await.map_err(db_error::<Self>)?.rows_affected())
        }

        async fn run(connection: &mut Self::Connection, sql: SqlStr) -> Result<(), DbError> {
            connection.execute(sqlx::raw_sql(sql)).await.map_err(db_error::<Self>).map(|_| ())
        }

        async fn prepare(connection: &mut Self::Connection, sql: Arc<str>) -> Result<(), DbError> {
            connection.prepare(safe(sql)).await.map_err(db_error::<Self>).map(|_| ())
        }

        // The types of columns are those of the crate's own statements.
        fn number(row: &Self::Row, at: usize) -> Result<Option<i64>, DbError> {
            row.try_get_unchecked(at).map_err(db_error::<Self>)
        }

        fn flag(row: &Self::Row, at: usize) -> Result<Option<bool>, DbError> {
            row.try_get_unchecked(at).map_err(db_error::<Self>)
        }

        fn text(row: &Self::Row, at: usize) -> Result<Option<&str>, DbError> {
            row.try_get_unchecked(at).map_err(db_error::<Self>)
        }

        fn digest(row: &Self::Row, at: usize) -> Result<Option<u128>, DbError> {
            let digest: Option<uuid::Uuid> = row.try_get_unchecked(at).map_err(db_error::<Self>)?;
            Ok(digest.map(|digest| digest.as_u128()))
        }
    };
}
pub(crate) use driver_calls;
