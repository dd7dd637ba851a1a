//! Settings without which an SQLite file would lose acknowledged rows.

use sqlx::{SqlSafeStr, Sqlite, SqliteConnection};

use crate::ledger::{
    DbError,
    sql::{Columns, SqlDialect},
};

/// Rejects a connection that would lose what it acknowledged.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<(), DbError> {
    let refused = |reason: String| Err(DbError::Refused(reason));
    let file = one(connection, "SELECT coalesce(max(file), '') FROM pragma_database_list WHERE name = 'main'").await?;
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

/// Returns the text of the first row; empty if there is none.
async fn one(connection: &mut SqliteConnection, sql: &'static str) -> Result<String, DbError> {
    let rows = Sqlite::fetch(connection, sql.into_sql_str(), &[]).await?;
    rows.first().map_or_else(|| Ok(String::new()), |row| Columns::<Sqlite>::new(row).text())
}
