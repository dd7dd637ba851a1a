//! Differences between the databases and between their drivers.

use std::{error::Error as _, sync::Arc, time::Duration};

use sqlx::{AssertSqlSafe, Database, Error, SqlSafeStr, SqlStr, error::DatabaseError};

use crate::key_value::error::{KeyValueError, KeyValueErrorKind};

/// A database: its driver, and the texts in which its SQL differs.
pub(super) trait SqlDriver: Database {
    /// Expression of the present time, in microseconds since 1970.
    const NOW: &'static str;
    /// Clause that locks the rows of a query; empty if the database has one lock.
    const FOR_UPDATE: &'static str;
    /// As [`FOR_UPDATE`](Self::FOR_UPDATE), but leaves out rows that others have locked.
    const SKIP_LOCKED: &'static str;
    /// Longest time for which a transaction of a handler may be open.
    const MAX_TRANSACTION: Duration;
    /// Statement that begins a writing transaction.
    const BEGIN_WRITE: &'static str;
    /// Statements that let one process at a time migrate, and create the table of versions.
    const PREPARE_VERSIONS: &'static str;
    /// Query for the number of tables of versions: 0 or 1.
    const HAS_VERSIONS: &'static str;
    /// Statements that create each version of the tables from the one before.
    const VERSIONS: &'static [&'static str];

    /// Runs one query and returns its rows.
    fn fetch(
        connection: &mut Self::Connection,
        sql: SqlStr,
        values: &[Parameter<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, Error>> + Send;

    /// Runs statements without values.
    fn run(connection: &mut Self::Connection, sql: SqlStr) -> impl Future<Output = Result<(), Error>> + Send;

    /// Returns a column of bytes.
    fn bytes(row: &Self::Row, at: usize) -> Result<Option<Vec<u8>>, Error>;

    /// Returns a column of integers.
    fn number(row: &Self::Row, at: usize) -> Result<Option<i64>, Error>;

    /// Returns a column of text.
    fn text(row: &Self::Row, at: usize) -> Result<Option<String>, Error>;

    /// Classifies an error that the database itself reported.
    fn reported(error: &dyn DatabaseError) -> Reported;

    /// Returns whether an error says that the transaction with the savepoint has ended.
    fn no_savepoint(error: &dyn DatabaseError) -> bool;

    /// Rejects a connection to a database that could lose what it has acknowledged.
    fn check_durable(connection: &mut Self::Connection) -> impl Future<Output = Result<(), KeyValueError>> + Send;
}

/// Meaning of an error that a database reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reported {
    /// Another transaction was in the way; nothing has changed.
    Again,
    /// The connection is gone, and what it was doing may have been done.
    Lost,
    /// Nothing has changed, and the same would happen again.
    Refused,
}

/// A value of a statement.
#[derive(Clone, Copy, Debug)]
pub(super) enum Parameter<'a> {
    Bytes(&'a [u8]),
    NoBytes,
    Number(Option<i64>),
    Text(&'a str),
}

/// Marks the crate's own text as a statement.
pub(super) fn safe(sql: impl Into<Arc<str>>) -> SqlStr {
    AssertSqlSafe(sql.into()).into_sql_str()
}

/// Converts an error of a statement; `writes` if it may have changed something.
pub(super) fn error<D: SqlDriver>(error: Error, writes: bool) -> KeyValueError {
    let lost = if writes { KeyValueErrorKind::Indeterminate } else { KeyValueErrorKind::Unavailable };
    let kind = match &error {
        Error::Database(reported) => match D::reported(&**reported) {
            Reported::Again => KeyValueErrorKind::Unavailable,
            Reported::Lost => lost,
            Reported::Refused => KeyValueErrorKind::Refused,
        },
        Error::PoolTimedOut | Error::PoolClosed | Error::BeginFailed => KeyValueErrorKind::Unavailable,
        Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => lost,
        Error::ColumnDecode { .. } | Error::Decode(_) => KeyValueErrorKind::Damaged,
        _ => KeyValueErrorKind::Refused,
    };
    let mut reason = format!("{}: {error}", D::NAME);
    if let Some(source) = error.source().map(ToString::to_string).filter(|source| !reason.contains(source)) {
        reason = format!("{reason}: {source}");
    }
    KeyValueError::new(kind, reason).caused_by(error)
}

/// Calls of a driver. Their text is the same for every [`SqlDriver`]; generic code would repeat sqlx's bounds at each use.
macro_rules! driver_calls {
    () => {
        async fn fetch(
            connection: &mut Self::Connection,
            sql: SqlStr,
            values: &[Parameter<'_>],
        ) -> Result<Vec<Self::Row>, sqlx::Error> {
            let query = values.iter().fold(sqlx::query(sql), |query, value| match *value {
                Parameter::Bytes(bytes) => query.bind(bytes.to_vec()),
                Parameter::NoBytes => query.bind(None::<Vec<u8>>),
                Parameter::Number(number) => query.bind(number),
                Parameter::Text(text) => query.bind(text.to_owned()),
            });
            query.fetch_all(connection).await // to its end: a row may come before the commit
        }

        async fn run(connection: &mut Self::Connection, sql: SqlStr) -> Result<(), sqlx::Error> {
            connection.execute(sqlx::raw_sql(sql)).await.map(drop)
        }

        fn bytes(row: &Self::Row, at: usize) -> Result<Option<Vec<u8>>, sqlx::Error> {
            row.try_get(at)
        }

        fn number(row: &Self::Row, at: usize) -> Result<Option<i64>, sqlx::Error> {
            row.try_get(at)
        }

        fn text(row: &Self::Row, at: usize) -> Result<Option<String>, sqlx::Error> {
            row.try_get(at)
        }
    };
}
pub(super) use driver_calls;
