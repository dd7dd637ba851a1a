//! Settings without which a PostgreSQL server would lose acknowledged rows.

use sqlx::{PgConnection, Postgres, Row as _};

use crate::ledger::{DbError, sql::db_error};

pub(super) const FORGETS: &str = "synchronous_commit must be on, local, remote_write or remote_apply, got off: rows that were acknowledged could be lost";

/// Rejects a connection that would lose what it acknowledged.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), DbError> {
    let refused = |reason: &str| Err(DbError::Refused(reason.into()));
    let asked = "SELECT current_setting('synchronous_commit'), current_setting('fsync'),
        current_setting('transaction_read_only'), pg_is_in_recovery(), current_setting('server_encoding')";
    let row = sqlx::query(asked).persistent(false).fetch_one(&mut *connection).await.map_err(db_error::<Postgres>)?;
    let setting = |at| row.try_get::<&str, usize>(at).map_err(db_error::<Postgres>);
    if setting(0)? == "off" {
        return refused(FORGETS);
    }
    if setting(1)? == "off" {
        return refused("fsync must be on, got off: rows that were acknowledged could be lost");
    }
    if row.try_get(3).map_err(db_error::<Postgres>)? {
        return refused("the server must take writes, got a standby that only reads");
    }
    if setting(2)? == "on" {
        return refused("default_transaction_read_only must be off, got on: a ledger is written");
    }
    let encoding = setting(4)?;
    if !["UTF8", "SQL_ASCII"].contains(&encoding) {
        return refused(&format!("encoding of the database must be UTF8, got {encoding}: it cannot write every name"));
    }
    let asked = "SELECT relname::text FROM pg_class WHERE relpersistence <> 'p' AND oid = ANY (ARRAY[
        to_regclass('quota_account'), to_regclass('quota_counter'), to_regclass('quota_grant'),
        to_regclass('quota_consumption'), to_regclass('quota_hold')]) LIMIT 1";
    if let Some(row) =
        sqlx::query(asked).persistent(false).fetch_optional(&mut *connection).await.map_err(db_error::<Postgres>)?
    {
        let table: &str = row.try_get(0).map_err(db_error::<Postgres>)?;
        return Err(DbError::Refused(format!("{table} must be logged, got a table that a crash empties")));
    }
    Ok(())
}
