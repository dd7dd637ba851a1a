//! Checks of a connection and of its tables.

use sqlx::SqlSafeStr;

use super::{Columns, SqlDialect};
use crate::ledger::{DbError, LedgerError, LedgerErrorKind};

/// Rejects a connection that would lose acknowledged rows, and tables that this code does not know. `volatile`: the
/// database is one in memory; `durable_storage`: its storage needs no `fsync`.
pub(super) async fn check<S: SqlDialect>(
    connection: &mut S::Connection,
    volatile: bool,
    durable_storage: bool,
) -> Result<(), LedgerError> {
    if !volatile {
        S::check_promises(connection, durable_storage).await?;
    }
    if version::<S>(connection).await? < S::VERSIONS.len() {
        return Err(LedgerError::new(
            LedgerErrorKind::Tables,
            "the tables of the ledger are missing; if its file or database was removed or replaced while the program ran, restore it, or start the program again",
        ));
    }
    let lost = S::fetch(connection, S::LOST_GUARDS.into_sql_str(), &[]).await?;
    if let Some(row) = lost.first() {
        let guard: String = Columns::<S>::new(row).text()?;
        return Err(LedgerError::new(LedgerErrorKind::Tables, format!("quota_consumption has lost its {guard}")));
    }
    // A missing column is reported now, not with the first charge.
    for statement in S::statements() {
        S::prepare(connection, statement).await?;
    }
    Ok(())
}

/// Returns the version of the tables; 0 if there are none.
pub(super) async fn version<S: SqlDialect>(connection: &mut S::Connection) -> Result<usize, LedgerError> {
    if number::<S>(connection, S::HAS_SCHEMA).await? == 0 {
        return Ok(0);
    }
    let version = number::<S>(connection, "SELECT coalesce(max(version), 0) FROM quota_schema").await?;
    match usize::try_from(version) {
        Ok(version) if version <= S::VERSIONS.len() => Ok(version),
        _ => Err(LedgerError::new(
            LedgerErrorKind::Tables,
            format!(
                "version of the ledger's tables must be at most {}, got {version}: a newer version has migrated them; update this program",
                S::VERSIONS.len()
            ),
        )),
    }
}

/// Returns the id of the ledger.
pub(super) async fn ledger_id<S: SqlDialect>(connection: &mut S::Connection) -> Result<u128, DbError> {
    let rows = S::fetch(connection, "SELECT ledger_id FROM quota_identity".into_sql_str(), &[]).await?;
    let row = rows.first().ok_or_else(|| DbError::Refused("quota_identity has lost its row".into()))?;
    Columns::<S>::new(row).digest()
}

async fn number<S: SqlDialect>(connection: &mut S::Connection, sql: &'static str) -> Result<i64, DbError> {
    let rows = S::fetch(connection, sql.into_sql_str(), &[]).await?;
    rows.first().map_or(Ok(0), |row| Columns::<S>::new(row).amount())
}
