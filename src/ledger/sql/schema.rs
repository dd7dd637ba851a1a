//! Versions of the tables, and the checks of a connection.

use sqlx::{Connection as _, SqlSafeStr};

use super::{Columns, SqlDialect, db_error, safe};
use crate::ledger::DbError;

/// Migrates the tables to the version of this code, one process at a time.
pub(crate) async fn apply<S: SqlDialect>(connection: &mut S::Connection) -> Result<(), DbError> {
    if !S::PROVES_WRITABLE && version::<S>(connection).await? == S::VERSIONS.len() {
        return Ok(()); // a role without the right to create tables may use them
    }
    let mut transaction = connection.begin_with(S::BEGIN_WRITE).await.map_err(db_error::<S>)?;
    S::run(&mut transaction, S::PREPARE_SCHEMA.into_sql_str()).await?;
    let version = version::<S>(&mut transaction).await?;
    for (at, tables) in S::VERSIONS.iter().enumerate().skip(version) {
        S::run(&mut transaction, tables.into_sql_str()).await?;
        let applied = format!("INSERT INTO quota_schema (version, applied_at) VALUES ({}, {})", at + 1, S::NOW);
        S::run(&mut transaction, safe(applied)).await?;
    }
    transaction.commit().await.map_err(db_error::<S>)
}

/// Rejects a connection that would lose acknowledged rows, and tables that this code does not know.
pub(crate) async fn check<S: SqlDialect>(connection: &mut S::Connection, volatile: bool) -> Result<(), DbError> {
    S::check_promises(connection, volatile).await?;
    if version::<S>(connection).await? < S::VERSIONS.len() {
        return Err(DbError::Refused("the tables of the ledger are missing".into()));
    }
    if number::<S>(connection, S::HAS_UNIQUE_INDEX).await? == 0 {
        return Err(DbError::Refused("quota_consumption has lost its unique index quota_consumption_once".into()));
    }
    // A missing column is reported now, not with the first charge.
    for statement in S::statements() {
        S::prepare(connection, statement).await?;
    }
    Ok(())
}

/// Returns the version of the tables; 0 if there are none.
async fn version<S: SqlDialect>(connection: &mut S::Connection) -> Result<usize, DbError> {
    if number::<S>(connection, S::HAS_SCHEMA).await? == 0 {
        return Ok(0);
    }
    let version = number::<S>(connection, "SELECT coalesce(max(version), 0) FROM quota_schema").await?;
    match usize::try_from(version) {
        Ok(version) if version <= S::VERSIONS.len() => Ok(version),
        _ => Err(DbError::Refused(format!(
            "version of the ledger's tables must be at most {}, got {version}: a newer version has migrated them; update this program",
            S::VERSIONS.len()
        ))),
    }
}

async fn number<S: SqlDialect>(connection: &mut S::Connection, sql: &'static str) -> Result<i64, DbError> {
    let rows = S::fetch(connection, sql.into_sql_str(), &[]).await?;
    rows.first().map_or(Ok(0), |row| Columns::<S>::new(row).amount())
}
