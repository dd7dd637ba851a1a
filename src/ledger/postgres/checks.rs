//! The tables, and what a server must promise.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row as _, SqlStr, raw_sql};

use super::{failure::failure, rows, session};
use crate::ledger::DbError;

/// Each version of the tables, from the one before.
const VERSIONS: [&str; 1] = [include_str!("../schema/postgres/0001_ledger.sql")];

pub(super) const FORGETS: &str = "synchronous_commit must be on, local, remote_write or remote_apply, got off: rows that were acknowledged could be lost";

/// Brings the tables to the version that this code knows: one program at a time.
pub(super) async fn apply(connection: &mut PgConnection) -> Result<(), DbError> {
    if version(connection).await? == VERSIONS.len() {
        return Ok(()); // a role without the right to make tables may use them
    }
    let mut transaction = connection.begin().await.map_err(failure)?;
    // The first eight letters of "tollgate", as a number.
    raw_sql("SELECT pg_advisory_xact_lock(8389754629021267045)").execute(&mut *transaction).await.map_err(failure)?;
    let known = "CREATE TABLE IF NOT EXISTS quota_schema (
        version bigint NOT NULL PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())";
    raw_sql(known).execute(&mut *transaction).await.map_err(failure)?;
    let version = version(&mut transaction).await?;
    for (at, tables) in VERSIONS.iter().enumerate().skip(version) {
        raw_sql(*tables).execute(&mut *transaction).await.map_err(failure)?;
        let applied = format!("INSERT INTO quota_schema (version) VALUES ({})", at + 1);
        raw_sql(AssertSqlSafe(applied)).execute(&mut *transaction).await.map_err(failure)?;
    }
    transaction.commit().await.map_err(failure)
}

/// Refuses, in words, a connection that would lose what it acknowledged, and tables that this code does not know.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), DbError> {
    let refused = |reason: &str| Err(DbError::Refused(reason.into()));
    let asked = "SELECT current_setting('synchronous_commit'), current_setting('fsync'),
        current_setting('transaction_read_only'), pg_is_in_recovery(), current_setting('server_encoding')";
    let row = sqlx::query(asked).persistent(false).fetch_one(&mut *connection).await.map_err(failure)?;
    let setting = |at| row.try_get::<&str, usize>(at).map_err(failure);
    if setting(0)? == "off" {
        return refused(FORGETS);
    }
    if setting(1)? == "off" {
        return refused("fsync must be on, got off: rows that were acknowledged could be lost");
    }
    if row.try_get(3).map_err(failure)? {
        return refused("the server must take writes, got a standby that only reads");
    }
    if setting(2)? == "on" {
        return refused("default_transaction_read_only must be off, got on: a ledger is written");
    }
    let encoding = setting(4)?;
    if !["UTF8", "SQL_ASCII"].contains(&encoding) {
        return refused(&format!("encoding of the database must be UTF8, got {encoding}: it cannot write every name"));
    }
    if version(connection).await? < VERSIONS.len() {
        return refused("the tables of the ledger are gone");
    }
    let asked = "SELECT relname::text FROM pg_class WHERE relpersistence <> 'p' AND oid = ANY (ARRAY[
        to_regclass('quota_account'), to_regclass('quota_counter'), to_regclass('quota_grant'),
        to_regclass('quota_consumption'), to_regclass('quota_hold')]) LIMIT 1";
    if let Some(row) = sqlx::query(asked).persistent(false).fetch_optional(&mut *connection).await.map_err(failure)? {
        let table: &str = row.try_get(0).map_err(failure)?;
        return Err(DbError::Refused(format!("{table} must be logged, got a table that a crash empties")));
    }
    let asked = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass('quota_consumption_once')
        AND indrelid = to_regclass('quota_consumption') AND indisunique AND indisvalid)";
    let row = sqlx::query(asked).persistent(false).fetch_one(&mut *connection).await.map_err(failure)?;
    if !row.try_get::<bool, _>(0).map_err(failure)? {
        return refused("quota_consumption has lost its unique index quota_consumption_once");
    }
    // A column that is missing is told now, not with the first charge.
    for statement in rows::STATEMENTS.into_iter().chain(session::STATEMENTS) {
        connection.prepare(SqlStr::from_static(statement)).await.map_err(failure)?;
    }
    Ok(())
}

/// The version of the tables; 0 where there are none.
async fn version(connection: &mut PgConnection) -> Result<usize, DbError> {
    let known = "SELECT to_regclass('quota_schema') IS NOT NULL";
    let row = sqlx::query(known).persistent(false).fetch_one(&mut *connection).await.map_err(failure)?;
    if !row.try_get::<bool, _>(0).map_err(failure)? {
        return Ok(0);
    }
    let asked = "SELECT coalesce(max(version), 0)::int8 FROM quota_schema";
    let row = sqlx::query(asked).persistent(false).fetch_one(&mut *connection).await.map_err(failure)?;
    let version: i64 = row.try_get(0).map_err(failure)?;
    match usize::try_from(version) {
        Ok(version) if version <= VERSIONS.len() => Ok(version),
        _ => Err(DbError::Refused(format!(
            "version of the ledger's tables must be at most {}, got {version}: a newer program has been here",
            VERSIONS.len()
        ))),
    }
}
