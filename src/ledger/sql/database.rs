//! A ledger in a pool of connections.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use sqlx::{Pool, SqlStr, pool::PoolConnection};

use super::{ChargePath, Columns, SqlSession, SqlValue, apply, check, db_error, safe};
use crate::ledger::{
    Database, DbError,
    writer::{Key, ReservationRow, Row, Stored},
};

/// A ledger in a database that is reached through a pool.
pub(crate) struct SqlDatabase<S: ChargePath> {
    pub(crate) pool: Pool<S>,
    /// Whether the ledger closes the pool.
    owns_pool: bool,
    /// Connection that keeps a database in memory alive.
    memory: Option<Mutex<S::Connection>>,
}

impl<S: ChargePath> SqlDatabase<S> {
    pub(crate) fn new(pool: Pool<S>, owns_pool: bool, memory: Option<S::Connection>) -> Self {
        Self { pool, owns_pool, memory: memory.map(Mutex::new) }
    }

    /// Creates the tables if they are missing, and checks them and the connection.
    pub(crate) async fn open(pool: Pool<S>, owns_pool: bool, memory: Option<S::Connection>) -> Result<Self, DbError> {
        let database = Self::new(pool, owns_pool, memory);
        let mut connection = database.acquire().await?;
        apply::<S>(&mut connection).await?;
        check::<S>(&mut connection, database.memory.is_some()).await?;
        drop(connection);
        Ok(database)
    }

    pub(super) async fn acquire(&self) -> Result<PoolConnection<S>, DbError> {
        self.pool.acquire().await.map_err(db_error::<S>)
    }

    /// Runs one query on a connection of the pool, and decodes its rows.
    pub(super) async fn query<T>(
        &self,
        sql: SqlStr,
        values: &[SqlValue<'_>],
        decode: fn(&mut Columns<'_, S>) -> Result<T, DbError>,
    ) -> Result<Vec<T>, DbError> {
        let rows = S::fetch(&mut *self.acquire().await?, sql, values).await?;
        rows.iter().map(|row| decode(&mut Columns::new(row))).collect()
    }
}

impl<S: ChargePath> fmt::Debug for SqlDatabase<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDatabase").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl<S: ChargePath> Database for SqlDatabase<S> {
    type Session = SqlSession<S>;

    const IS_SERVER: bool = S::IS_SERVER;

    async fn connect(&self) -> Result<SqlSession<S>, DbError> {
        let mut connection = self.acquire().await?.detach();
        check::<S>(&mut connection, self.memory.is_some()).await?;
        S::tune(&mut connection).await?;
        Ok(SqlSession::new(connection))
    }

    async fn account(&self, tenant: &str) -> Result<(u64, Stored), DbError> {
        let tenant = Arc::<str>::from(tenant);
        let mut loaded = S::read(&mut *self.acquire().await?, std::slice::from_ref(&tenant), &[]).await?;
        Ok((loaded.now, loaded.accounts.remove(&tenant).unwrap_or_default()))
    }

    async fn tenants(&self, after: Option<&str>, most: usize) -> Result<Vec<Arc<str>>, DbError> {
        let sql = |from| safe(format!("SELECT tenant_id FROM quota_account {from} ORDER BY tenant_id LIMIT $1"));
        match after {
            Some(after) => {
                let values = [SqlValue::count(most), SqlValue::Text(after)];
                self.query(sql("WHERE tenant_id > $2"), &values, |columns| columns.text()).await
            }
            None => self.query(sql(""), &[SqlValue::count(most)], |columns| columns.text()).await,
        }
    }

    async fn job(&self, tenant: &str, job: &str) -> Result<Vec<Row>, DbError> {
        let key = Key { tenant: tenant.into(), job: job.into() };
        Ok(S::read(&mut *self.acquire().await?, &[], &[key]).await?.rows)
    }

    async fn due(&self, most: usize, skip: usize) -> Result<Vec<ReservationRow>, DbError> {
        let sql = format!(
            "SELECT tenant_id, job_id, attempt, until, since, charge FROM quota_hold WHERE until <= {}
             ORDER BY until, tenant_id, job_id, attempt LIMIT $1 OFFSET $2",
            S::NOW
        );
        self.query(safe(sql), &[most, skip].map(SqlValue::count), |columns| columns.reservation()).await
    }

    async fn close(&self) {
        if self.owns_pool {
            self.pool.close().await;
        }
    }
}
