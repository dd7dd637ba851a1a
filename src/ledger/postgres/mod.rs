//! PostgreSQL: a ledger in a database of a server.

mod begin;
mod error;
mod read;
#[cfg(test)]
mod tests;
mod transaction;
mod values;
mod writes;

use std::{iter, sync::Arc, time::Duration};

use sqlx::{
    Executor, PgConnection, PgPool, Postgres, Row as _, SqlSafeStr, SqlStr,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgRow},
    query::Query,
};

use super::{
    DbError, LedgerError, LedgerErrorKind,
    sql::{OpenOptions, SqlDatabase, SqlDialect, SqlValue, db_error, driver_calls, encoding, safe},
};
use values::Time;

/// A ledger in PostgreSQL.
pub(crate) type PostgresDatabase = SqlDatabase<Postgres>;

type PostgresQuery = Query<'static, Postgres, PgArguments>;

/// Longest time to reach a server for a report.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

const FORGETS: &str = "synchronous_commit must be on, local, remote_write or remote_apply, got off: rows that were acknowledged could be lost";

impl PostgresDatabase {
    /// Opens the database at `url`, with a pool of its own.
    pub(crate) async fn at_url(url: &str, options: OpenOptions) -> Result<Self, LedgerError> {
        let server: PgConnectOptions = url.parse().map_err(|error: sqlx::Error| {
            LedgerError::new(LedgerErrorKind::Address, format!("invalid ledger URL: {error}")).caused_by(error)
        })?;
        let place = format!("{}:{}", server.get_host(), server.get_port());
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(CONNECT_TIMEOUT).connect_lazy_with(server);
        Self::new(pool, options).owned(&place).open().await
    }

    /// Opens the database of an existing pool.
    pub(crate) async fn from_pool(pool: PgPool, options: OpenOptions) -> Result<Self, LedgerError> {
        Self::new(pool, options).open().await
    }
}

impl SqlDialect for Postgres {
    const NOW: &'static str = "now()";
    const EARLIEST: &'static str = "timestamptz '-infinity'";
    const LARGER: &'static str = "greatest";
    const BEGIN_WRITE: &'static str = "BEGIN";
    // The lock is the first eight letters of "tollgate", as a number.
    const PREPARE_SCHEMA: &'static str = "SELECT pg_advisory_xact_lock(8389754629021267045);
        CREATE TABLE IF NOT EXISTS quota_schema (
            version bigint NOT NULL PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())";
    const PROVES_WRITABLE: bool = false;
    const CACHES_STATEMENTS: bool = false;
    const HAS_SCHEMA: &'static str = "SELECT count(to_regclass('quota_schema'))";
    const VERSIONS: &'static [&'static str] = &[
        include_str!("../schema/postgres/0001_ledger.sql"),
        include_str!("../schema/postgres/0002_counters.sql"),
        include_str!("../schema/postgres/0003_begin.sql"),
        include_str!("../schema/postgres/0004_keys.sql"),
    ];
    const LOST_GUARDS: &'static str = "SELECT 'unique index quota_consumption_once' WHERE NOT EXISTS (
            SELECT 1 FROM pg_index WHERE indexrelid = to_regclass('quota_consumption_once')
                AND indrelid = to_regclass('quota_consumption') AND indisunique AND indisvalid)
        UNION ALL SELECT 'trigger quota_consumption_stays, or it is disabled' WHERE NOT EXISTS (
            SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass('quota_consumption')
                AND tgname = 'quota_consumption_stays' AND tgenabled IN ('O', 'A'))";
    const ALLOW_DELETES: &'static str = "SET LOCAL tollgate.archives = 'on'";
    const FORBID_DELETES: &'static str = "SET LOCAL tollgate.archives = 'off'";

    driver_calls!();

    fn time(micros: i64) -> String {
        format!("(timestamptz 'epoch' + interval '{micros} microseconds')")
    }

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

    fn limit_lock_wait(millis: u128) -> String {
        // Also a time-out of the role, of the database or of a pooler must not end a migration, which would be repeated.
        format!("SELECT set_config('lock_timeout', '{millis}ms', true), set_config('statement_timeout', '0', true)")
    }

    async fn check_promises(connection: &mut PgConnection, durable_storage: bool) -> Result<(), LedgerError> {
        let settings = "SELECT current_setting('synchronous_commit'), current_setting('fsync'),
                current_setting('transaction_read_only'), current_setting('server_encoding'), pg_is_in_recovery(),
                (SELECT min(relname::text) FROM pg_class WHERE relpersistence <> 'p' AND oid = ANY (ARRAY[
                    to_regclass('quota_account'), to_regclass('quota_counter'), to_regclass('quota_grant'),
                    to_regclass('quota_consumption'), to_regclass('quota_hold'), to_regclass('quota_archive'),
                    to_regclass('quota_schema'), to_regclass('quota_identity'), to_regclass('quota_unfinished_job')])),
                (SELECT min(p || ' ON ' || t || ' TO ' || quote_ident(current_user)) FROM (VALUES
                    ('quota_account', 'SELECT,INSERT,UPDATE,DELETE'), ('quota_counter', 'SELECT,INSERT,UPDATE'),
                    ('quota_grant', 'SELECT,INSERT,UPDATE'), ('quota_consumption', 'SELECT,INSERT'),
                    ('quota_hold', 'SELECT,INSERT,UPDATE,DELETE'), ('quota_archive', 'SELECT'),
                    ('quota_unfinished_job', 'SELECT,INSERT,UPDATE,DELETE'), ('quota_identity', 'SELECT')) AS needed (t, ps),
                    unnest(string_to_array(ps, ',')) AS p
                WHERE NOT has_table_privilege(to_regclass(t), p)),
                (SELECT 'EXECUTE ON FUNCTION quota_begin TO ' || quote_ident(current_user)
                WHERE NOT has_function_privilege(to_regproc('quota_begin'), 'EXECUTE'))";
        let rows = Self::fetch(connection, settings.into_sql_str(), &[]).await?;
        let [row] = &*rows else { return Err(DbError::Refused("the server has no settings".into()).into()) };
        let setting = |at| Ok::<_, DbError>(Self::text(row, at)?.unwrap_or_default());
        let lossy = |reason: String| Err(LedgerError::new(LedgerErrorKind::Unsafe, reason));
        let forbidden = |reason: String| Err(LedgerError::new(LedgerErrorKind::Forbidden, reason));
        if setting(0)? == "off" {
            return lossy(FORGETS.into());
        }
        if setting(1)? == "off" && !durable_storage {
            return lossy(
                "fsync must be on, got off: rows that were acknowledged could be lost; call \
                .storage_is_durable() if the server's storage keeps them without it"
                    .into(),
            );
        }
        if Self::flag(row, 4)? == Some(true) {
            return forbidden("the server must take writes, got a standby that only reads".into());
        }
        if setting(2)? == "on" {
            return forbidden("default_transaction_read_only must be off, got on: a ledger is written".into());
        }
        let encoding = setting(3)?;
        if !["UTF8", "SQL_ASCII"].contains(&encoding) {
            return lossy(format!("encoding of the database must be UTF8, got {encoding}: it cannot write every name"));
        }
        if let Some(table) = Self::text(row, 5)? {
            return lossy(format!("{table} must be logged, got a table that a crash empties"));
        }
        match Self::text(row, 6)?.or(Self::text(row, 7)?) {
            Some(right) => forbidden(format!("the role lacks a right on the tables of the ledger; GRANT {right}")),
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
