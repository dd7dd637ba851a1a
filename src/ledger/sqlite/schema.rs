//! The tables, and what a file must promise.

use sqlx::{AssertSqlSafe, Connection, Executor, Row, SqlSafeStr, SqliteConnection, raw_sql};

use super::{
    failure::failure,
    statements::{self, CLOCK},
};
use crate::ledger::DbError;

/// Each version of the tables, from the one before.
const VERSIONS: [&str; 1] = [include_str!("../schema/sqlite/0001_ledger.sql")];

/// Brings the tables to the version that this code knows, under the file's one lock.
pub(super) async fn apply(connection: &mut SqliteConnection) -> Result<(), DbError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failure)?;
    let known =
        "CREATE TABLE IF NOT EXISTS quota_schema (version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT";
    raw_sql(known).execute(&mut *transaction).await.map_err(failure)?;
    let version = version(&mut transaction).await?;
    for (at, tables) in VERSIONS.iter().enumerate().skip(version) {
        raw_sql(*tables).execute(&mut *transaction).await.map_err(failure)?;
        let applied = format!("INSERT INTO quota_schema VALUES ({}, {CLOCK})", at + 1);
        raw_sql(AssertSqlSafe(applied)).execute(&mut *transaction).await.map_err(failure)?;
    }
    // Only what would write is told that the file is only read.
    raw_sql("DELETE FROM quota_schema WHERE version < 0").execute(&mut *transaction).await.map_err(failure)?;
    transaction.commit().await.map_err(failure)
}

/// Refuses, in words, a connection that would lose what it acknowledged, and tables that this code does not know.
pub(super) async fn check(connection: &mut SqliteConnection, volatile: bool) -> Result<(), DbError> {
    let refused = |reason: String| Err(DbError::Refused(reason));
    if !volatile {
        let file: Option<String> = one(connection, "SELECT file FROM pragma_database_list WHERE name = 'main'").await?;
        if file.is_none_or(|file| file.is_empty()) {
            return refused("a ledger must be kept in a file, got a database in memory".into());
        }
        let synchronous: i64 = one(connection, "PRAGMA synchronous").await?;
        if synchronous < 2 {
            let got = if synchronous == 0 { "off" } else { "normal" };
            return refused(format!(
                "synchronous must be full or extra, got {got}: rows that were acknowledged could be lost"
            ));
        }
        let journal: String = one(connection, "PRAGMA journal_mode").await?;
        if ["off", "memory"].contains(&&*journal) {
            return refused(format!(
                "journal_mode must be wal, delete, truncate or persist, got {journal}: a crash could destroy the file"
            ));
        }
    }
    if version(connection).await? < VERSIONS.len() {
        return refused("the tables of the ledger are gone".into());
    }
    let index = "SELECT count(*) FROM pragma_index_list('quota_consumption') WHERE name = 'quota_consumption_once' AND [unique]";
    if one::<i64>(connection, index).await? == 0 {
        return refused("quota_consumption has lost its unique index quota_consumption_once".into());
    }
    // A column that is missing is told now, not with the first charge.
    for statement in statements::all() {
        connection.prepare(AssertSqlSafe(statement.within(1).0).into_sql_str()).await.map_err(failure)?;
    }
    Ok(())
}

async fn version(connection: &mut SqliteConnection) -> Result<usize, DbError> {
    let version: i64 = one(connection, "SELECT coalesce(max(version), 0) FROM quota_schema").await?;
    match usize::try_from(version) {
        Ok(version) if version <= VERSIONS.len() => Ok(version),
        _ => Err(DbError::Refused(format!(
            "version of the ledger's tables must be at most {}, got {version}: a newer program has been here",
            VERSIONS.len()
        ))),
    }
}

async fn one<T>(connection: &mut SqliteConnection, sql: &'static str) -> Result<T, DbError>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    let row = sqlx::query(sql).persistent(false).fetch_one(connection).await.map_err(failure)?;
    row.try_get(0).map_err(failure)
}
