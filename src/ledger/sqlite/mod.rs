//! The ledger in a file.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Row as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::writer::{Key, ReservationRow, Row, Stored};
use super::{Database, DbError, LedgerError, columns::text};

mod audit;
mod failure;
mod rows;
mod schema;
mod session;
mod statements;
#[cfg(test)]
mod tests;

use failure::failure;
pub(crate) use session::SqliteSession;

/// A ledger in an SQLite file; its door outside is the one of the same name.
#[derive(Clone, Debug)]
pub(crate) struct SqliteLedger {
    pool: SqlitePool,
    /// Nobody else has the pool.
    own: bool,
    /// Of a ledger in memory: with its last connection it would go.
    memory: Option<Arc<Mutex<SqliteConnection>>>,
}

/// How long others may hold the file.
const BUSY: Duration = Duration::from_secs(5);

impl SqliteLedger {
    /// In the file at this path, which is made if it is missing.
    pub(crate) async fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let path = path.as_ref();
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("fullfsync", "1") // on macOS, fsync alone leaves the rows in the disk's cache
            .busy_timeout(BUSY)
            .row_buffer_size(1_024) // a batch's rows cross over from the connection's thread without a pause
            .foreign_keys(true);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        // Whoever changes the journal of a new file is told at once that others do too: there is nothing to wait on.
        let mut tries = 0;
        loop {
            match Self::from(pool.clone(), true, None).await {
                Err(DbError::Again(_)) if tries < 100 => {
                    tries += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(failure) => {
                    return Err(LedgerError::new(format!(
                        "{} ({})",
                        LedgerError::from(failure).reason(),
                        path.display()
                    )));
                }
                Ok(ledger) => return Ok(ledger),
            }
        }
    }

    /// In the file of a pool that the program has already.
    pub(crate) async fn from_pool(pool: SqlitePool) -> Result<Self, LedgerError> {
        Ok(Self::from(pool, false, None).await?)
    }

    /// In memory, for tests.
    pub(crate) async fn in_memory() -> Result<Self, LedgerError> {
        // A name that begins with a slash is shared by the connections of a process: https://sqlite.org/src/file/src/memdb.c
        let name = format!("/tollgate-{:032x}", uuid::Uuid::now_v7().as_u128());
        let options = SqliteConnectOptions::new().filename(name).vfs("memdb").busy_timeout(BUSY);
        let connection = options.connect().await.map_err(failure)?;
        let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(options);
        Ok(Self::from(pool, true, Some(connection)).await?)
    }

    async fn from(pool: SqlitePool, own: bool, memory: Option<SqliteConnection>) -> Result<Self, DbError> {
        let ledger = Self { pool, own, memory: memory.map(|connection| Arc::new(Mutex::new(connection))) };
        let mut connection = ledger.pool.acquire().await.map_err(failure)?;
        schema::apply(&mut connection).await?;
        schema::check(&mut connection, ledger.memory.is_some()).await?;
        drop(connection);
        Ok(ledger)
    }

    /// A connection for a moment, with a transaction that only reads; it is rolled back when it is dropped.
    async fn reading(&self) -> Result<sqlx::Transaction<'static, sqlx::Sqlite>, DbError> {
        self.pool.begin().await.map_err(failure)
    }
}

impl Database for SqliteLedger {
    type Session = SqliteSession;

    async fn connect(&self) -> Result<SqliteSession, DbError> {
        let mut connection: SqliteConnection = self.pool.acquire().await.map_err(failure)?.detach();
        schema::check(&mut connection, self.memory.is_some()).await?;
        // A batch touches many pages, and each must reach the file once: more of them in memory, and fewer checkpoints.
        for pragma in ["PRAGMA cache_size = -65536", "PRAGMA wal_autocheckpoint = 8192"] {
            sqlx::raw_sql(pragma).execute(&mut connection).await.map_err(failure)?;
        }
        Ok(SqliteSession::new(connection))
    }

    async fn account(&self, tenant: &str) -> Result<(u64, Stored), DbError> {
        let (mut transaction, tenant) = (self.reading().await?, Arc::<str>::from(tenant));
        let micros = clock(&mut transaction).await?;
        let mut loaded = session::load(&mut transaction, std::slice::from_ref(&tenant), &[], None, micros).await?;
        Ok((loaded.now, loaded.accounts.remove(&tenant).unwrap_or_default()))
    }

    async fn tenants(&self, after: Option<&str>, most: usize) -> Result<Vec<Arc<str>>, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let query = match after {
            Some(after) => {
                sqlx::query("SELECT tenant_id FROM quota_account WHERE tenant_id > ?1 ORDER BY tenant_id LIMIT ?2")
                    .bind(text(after))
            }
            None => sqlx::query("SELECT tenant_id FROM quota_account ORDER BY tenant_id LIMIT ?"),
        };
        let found = query.bind(most).fetch_all(&self.pool).await.map_err(failure)?;
        found.iter().map(rows::tenant).collect()
    }

    async fn job(&self, tenant: &str, job: &str) -> Result<Vec<Row>, DbError> {
        let mut transaction = self.reading().await?;
        session::of_jobs(&mut transaction, &[Key { tenant: tenant.into(), job: job.into() }]).await
    }

    /// The last connection to a file writes what lies beside it into it.
    async fn close(&self) {
        if self.own {
            self.pool.close().await;
        }
    }

    async fn due(&self, most: usize, skip: usize) -> Result<Vec<ReservationRow>, DbError> {
        let mut transaction = self.reading().await?;
        let micros = clock(&mut transaction).await?;
        let query = sqlx::query(
            "SELECT tenant_id, job_id, attempt, until, since, charge FROM quota_hold WHERE until <= ?
             ORDER BY until, tenant_id, job_id, attempt LIMIT ? OFFSET ?",
        );
        let [most, skip] = [most, skip].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let query = query.bind(micros).bind(most).bind(skip);
        query.fetch_all(&mut *transaction).await.map_err(failure)?.iter().map(rows::hold).collect()
    }
}

async fn clock(connection: &mut SqliteConnection) -> Result<i64, DbError> {
    let row = sqlx::query(statements::NOW).fetch_one(connection).await.map_err(failure)?;
    row.try_get(0).map_err(failure)
}
