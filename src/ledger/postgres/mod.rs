//! PostgreSQL: a ledger in a database of a server.

mod error;
mod read;
#[cfg(test)]
mod tests;
mod transaction;
mod values;

use std::{iter, sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, Executor, PgConnection, PgPool, Postgres, Row as _, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::Query,
};

use super::{
    DbError, LedgerError,
    sql::{SqlDatabase, SqlDialect, SqlValue, apply, check, db_error, driver_calls, encoding, safe},
};
use values::Time;

/// A ledger in PostgreSQL.
pub(crate) type PostgresDatabase = SqlDatabase<Postgres>;

type PostgresQuery = Query<'static, Postgres, PgArguments>;

/// Longest time to reach a server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const FORGETS: &str = "synchronous_commit must be on, local, remote_write or remote_apply, got off: rows that were acknowledged could be lost";

impl PostgresDatabase {
    /// Opens the database at `url`, with a pool of its own.
    pub(crate) async fn at_url(url: &str) -> Result<Self, LedgerError> {
        let options: PgConnectOptions =
            url.parse().map_err(|error| LedgerError::new(format!("invalid ledger URL: {error}")))?;
        let place = format!("{}:{}", options.get_host(), options.get_port());
        // On a connection of its own, because a pool would retry and hide the reason.
        let checked = match tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await {
            Ok(Ok(mut connection)) => {
                async {
                    apply::<Postgres>(&mut connection).await?;
                    check::<Postgres>(&mut connection, false).await
                }
                .await
            }
            Ok(Err(error)) => Err(db_error::<Postgres>(error)),
            Err(_) => Err(DbError::Lost(format!("PostgreSQL: no answer within {CONNECT_TIMEOUT:?}"))),
        };
        checked.map_err(|error| LedgerError::new(format!("{} ({place})", error.reason())))?;
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(options);
        Ok(Self::new(pool, false, None))
    }

    /// Opens the database of an existing pool.
    pub(crate) async fn from_pool(pool: PgPool) -> Result<Self, LedgerError> {
        Ok(Self::open(pool, false, None).await?)
    }
}

impl SqlDialect for Postgres {
    const NOW: &'static str = "now()";
    const LARGER: &'static str = "greatest";
    const BEGIN_WRITE: &'static str = "BEGIN";
    // The lock is the first eight letters of "tollgate", as a number.
    const PREPARE_SCHEMA: &'static str = "SELECT pg_advisory_xact_lock(8389754629021267045);
        CREATE TABLE IF NOT EXISTS quota_schema (
            version bigint NOT NULL PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())";
    const PROVES_WRITABLE: bool = false;
    const CACHES_STATEMENTS: bool = false;
    const HAS_SCHEMA: &'static str = "SELECT count(to_regclass('quota_schema'))";
    const VERSIONS: &'static [&'static str] = &[include_str!("../schema/postgres/0001_ledger.sql")];
    const HAS_UNIQUE_INDEX: &'static str = "SELECT count(*) FROM pg_index
        WHERE indexrelid = to_regclass('quota_consumption_once') AND indrelid = to_regclass('quota_consumption')
            AND indisunique AND indisvalid";
    const ALLOW_DELETES: &'static str = "SET LOCAL tollgate.archives = 'on'";
    const FORBID_DELETES: &'static str = "SET LOCAL tollgate.archives = 'off'";

    driver_calls!();

    fn indexed_by(_: &str) -> String {
        String::new()
    }

    fn statements() -> Vec<Arc<str>> {
        iter::once(read::READ.into()).chain(transaction::statements()).collect()
    }

    fn micros(row: &PgRow, at: usize) -> Result<Option<i64>, DbError> {
        let time: Option<Time> = row.try_get_unchecked(at).map_err(db_error::<Self>)?;
        Ok(time.map(|time| time.0))
    }

    fn reported(reported: &dyn sqlx::error::DatabaseError) -> DbError {
        error::reported(reported)
    }

    async fn check_promises(connection: &mut PgConnection, _: bool) -> Result<(), DbError> {
        let settings = "SELECT current_setting('synchronous_commit'), current_setting('fsync'),
                current_setting('transaction_read_only'), current_setting('server_encoding'), pg_is_in_recovery(),
                (SELECT min(relname::text) FROM pg_class WHERE relpersistence <> 'p' AND oid = ANY (ARRAY[
                    to_regclass('quota_account'), to_regclass('quota_counter'), to_regclass('quota_grant'),
                    to_regclass('quota_consumption'), to_regclass('quota_hold')]))";
        let rows = Self::fetch(connection, settings.into_sql_str(), &[]).await?;
        let [row] = &*rows else { return Err(DbError::Refused("the server has no settings".into())) };
        let setting = |at| Ok::<_, DbError>(Self::text(row, at)?.unwrap_or_default());
        let refused = |reason: String| Err(DbError::Refused(reason));
        if setting(0)? == "off" {
            return refused(FORGETS.into());
        }
        if setting(1)? == "off" {
            return refused("fsync must be on, got off: rows that were acknowledged could be lost".into());
        }
        if Self::flag(row, 4)? == Some(true) {
            return refused("the server must take writes, got a standby that only reads".into());
        }
        if setting(2)? == "on" {
            return refused("default_transaction_read_only must be off, got on: a ledger is written".into());
        }
        let encoding = setting(3)?;
        if !["UTF8", "SQL_ASCII"].contains(&encoding) {
            return refused(format!(
                "encoding of the database must be UTF8, got {encoding}: it cannot write every name"
            ));
        }
        match Self::text(row, 5)? {
            Some(table) => refused(format!("{table} must be logged, got a table that a crash empties")),
            None => Ok(()),
        }
    }
}

fn bind(query: PostgresQuery, value: &SqlValue<'_>) -> PostgresQuery {
    match *value {
        SqlValue::Null => query.bind(None::<i64>),
        SqlValue::Text(text) => query.bind(encoding::text(text)),
        SqlValue::Number(number) => query.bind(number),
        SqlValue::Flag(flag) => query.bind(flag),
        SqlValue::Time(micros) => query.bind(Time(micros)),
        SqlValue::Digest(digest) => query.bind(uuid::Uuid::from_u128(digest)),
    }
}
