//! Statements of a store: one that reads, and one that writes and removes what has expired.

use sqlx::Error;

use super::{
    SqlStore,
    driver::{self, Parameter, Reported, SqlDriver, safe},
};
use crate::key_value::error::{KeyValueError, KeyValueErrorKind};

/// Attempts of a write that another transaction was in the way of, such as one that a deadlock has ended.
const ATTEMPTS: u32 = 5;

/// Tables whose rows expire.
#[derive(Clone, Copy, Debug)]
pub(super) enum StoreTable {
    Entries,
    Records,
}

impl StoreTable {
    const fn name(self) -> &'static str {
        match self {
            Self::Entries => "tollgate_key_value",
            Self::Records => "tollgate_record",
        }
    }
}

impl<D: SqlDriver> SqlStore<D> {
    pub(super) async fn read(&self, sql: String, values: &[Parameter<'_>]) -> Result<Vec<D::Row>, KeyValueError> {
        let mut connection = self.connection().await?;
        D::fetch(&mut connection, safe(sql), values).await.map_err(|error| driver::error::<D>(error, false))
    }

    /// Runs a statement that writes to a table, and removes two other rows of it that have expired.
    pub(super) async fn write(
        &self,
        table: StoreTable,
        sql: String,
        values: &[Parameter<'_>],
    ) -> Result<Vec<D::Row>, KeyValueError> {
        let mut connection = self.connection().await?;
        let sql = safe(sql);
        let mut attempt = 1;
        let rows = loop {
            match D::fetch(&mut connection, sql.clone(), values).await {
                Err(Error::Database(error)) if attempt < ATTEMPTS && D::reported(&*error) == Reported::Again => {
                    attempt += 1;
                }
                result => break result.map_err(|error| driver::error::<D>(error, true))?,
            }
        };
        let (name, now) = (table.name(), self.now());
        let (locked, over) = (D::SKIP_LOCKED, format!("expires_at <= {now}"));
        let purge = format!(
            "DELETE FROM {name} WHERE {over} AND key IN
                (SELECT key FROM {name} WHERE {over} ORDER BY expires_at LIMIT 2{locked})"
        );
        // The write is done. Rows that have expired are as good as none, wherever they are.
        let _ = D::fetch(&mut connection, safe(purge), &[]).await;
        Ok(rows)
    }

    pub(super) fn number(row: &D::Row, at: usize) -> Result<Option<i64>, KeyValueError> {
        D::number(row, at).map_err(|error| driver::error::<D>(error, false))
    }

    pub(super) fn bytes(row: &D::Row, at: usize) -> Result<Option<Vec<u8>>, KeyValueError> {
        D::bytes(row, at).map_err(|error| driver::error::<D>(error, false))
    }

    /// Creates the error of a row that this crate has not written so.
    pub(super) fn damaged(table: StoreTable, must: &str, got: impl std::fmt::Display) -> KeyValueError {
        let reason = format!("{}: a row of {} must {must}, got {got}; delete it", D::NAME, table.name());
        KeyValueError::new(KeyValueErrorKind::Damaged, reason)
    }
}
