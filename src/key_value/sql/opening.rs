//! Connections of a store: acquires them, migrates the tables, and checks the database once.

use std::{
    error::Error as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, Pool, SqlSafeStr, pool::PoolConnection};
use tokio::time::{Instant, sleep};

use super::{
    SqlStore,
    driver::{self, Reported, SqlDriver, safe},
};
use crate::key_value::error::{KeyValueError, KeyValueErrorKind};

/// Longest wait for other processes that set the database up, and the wait between two attempts.
const LONGEST_SET_UP: Duration = Duration::from_secs(5);
const SET_UP_WAIT: Duration = Duration::from_millis(20);

/// Pool of a store: the program's, or one of its own, which is made anew after it was closed.
pub(super) enum PoolSource<D: SqlDriver> {
    Given(Pool<D>),
    Own { make: Box<dyn Fn() -> Pool<D> + Send + Sync>, pool: Mutex<Option<Pool<D>>> },
}

impl<D: SqlDriver> PoolSource<D> {
    pub(super) fn own(make: impl Fn() -> Pool<D> + Send + Sync + 'static) -> Self {
        Self::Own { make: Box::new(make), pool: Mutex::new(None) }
    }

    pub(super) fn pool(&self) -> Pool<D> {
        match self {
            Self::Given(pool) => pool.clone(),
            Self::Own { make, pool } => {
                pool.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(make).clone()
            }
        }
    }
}

impl<D: SqlDriver> SqlStore<D> {
    pub(super) fn pool(&self) -> Pool<D> {
        self.source.pool()
    }

    /// Acquires a connection to a database whose tables are there. Another process may be about to set it up, which keeps
    /// the database locked: it is tried again for some time.
    pub(super) async fn connection(&self) -> Result<PoolConnection<D>, KeyValueError> {
        let deadline = Instant::now() + LONGEST_SET_UP;
        loop {
            match self.try_connection().await {
                Err(error) if is_locked::<D>(&error) && Instant::now() < deadline => {
                    sleep(SET_UP_WAIT.mul_f64(0.5 + fastrand::f64())).await;
                }
                result => return result,
            }
        }
    }

    async fn try_connection(&self) -> Result<PoolConnection<D>, KeyValueError> {
        let unavailable = |error| driver::error::<D>(error, false);
        let mut connection = self.source.pool().acquire().await.map_err(unavailable)?;
        if !self.checked.initialized() {
            self.checked.get_or_try_init(|| check::<D>(&mut connection)).await?;
        }
        Ok(connection)
    }

    /// Closes a pool of its own.
    pub(super) async fn disconnect(&self) {
        if let PoolSource::Own { pool, .. } = &self.source {
            let pool = pool.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(pool) = pool {
                pool.close().await;
            }
        }
    }
}

/// Returns whether another transaction was in the way. In SQLite that is an error at once where two switch a file to its
/// write-ahead log.
fn is_locked<D: SqlDriver>(error: &KeyValueError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<sqlx::Error>());
    matches!(cause, Some(sqlx::Error::Database(reported)) if D::reported(&**reported) == Reported::Again)
}

/// Checks that a database keeps what it acknowledges, and migrates its tables.
async fn check<D: SqlDriver>(connection: &mut D::Connection) -> Result<(), KeyValueError> {
    D::check_durable(connection).await?;
    if version::<D>(connection).await? == D::VERSIONS.len() {
        return Ok(()); // a role without the right to create tables may use them
    }
    let error = |error| driver::error::<D>(error, false);
    let mut transaction = connection.begin_with(D::BEGIN_WRITE.into_sql_str()).await.map_err(error)?;
    D::run(&mut transaction, D::PREPARE_VERSIONS.into_sql_str()).await.map_err(error)?;
    let present = version::<D>(&mut transaction).await?;
    for (at, tables) in D::VERSIONS.iter().enumerate().skip(present) {
        D::run(&mut transaction, tables.into_sql_str()).await.map_err(error)?;
        let applied = format!("INSERT INTO tollgate_key_value_version (version) VALUES ({})", at + 1);
        D::run(&mut transaction, safe(applied)).await.map_err(error)?;
    }
    transaction.commit().await.map_err(error)
}

/// Returns the version of the tables; 0 if there are none.
async fn version<D: SqlDriver>(connection: &mut D::Connection) -> Result<usize, KeyValueError> {
    if number::<D>(connection, D::HAS_VERSIONS).await? == 0 {
        return Ok(0);
    }
    let sql = "SELECT CAST(coalesce(max(version), 0) AS bigint) FROM tollgate_key_value_version";
    let (found, known) = (number::<D>(connection, sql).await?, D::VERSIONS.len());
    usize::try_from(found).ok().filter(|found| *found <= known).ok_or_else(|| {
        let reason = format!(
            "version of the tables of the key-value store must be at most {known}, got {found}: a newer version of this \
             crate has migrated them; update this program"
        );
        KeyValueError::new(KeyValueErrorKind::Damaged, reason)
    })
}

async fn number<D: SqlDriver>(connection: &mut D::Connection, sql: &'static str) -> Result<i64, KeyValueError> {
    let error = |error| driver::error::<D>(error, false);
    let rows = D::fetch(connection, sql.into_sql_str(), &[]).await.map_err(error)?;
    rows.first().map_or(Ok(None), |row| D::number(row, 0)).map_err(error).map(|number| number.unwrap_or(0))
}
