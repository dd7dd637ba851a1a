//! The shop: its payments and events, in memory or in the database that also has the records.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tollgate::{
    idempotency::IdempotentExecution,
    key_value::{MemoryStore, RecordStore, SqliteStore},
};

use crate::server::{Place, Settings, support::ExampleError};

/// Payments and events that were carried out.
pub(crate) enum Shop {
    Memory {
        payments: AtomicU64,
        webhooks: AtomicU64,
    },
    Sqlite(sqlx::SqlitePool),
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
}

const TABLES: &str = "CREATE TABLE IF NOT EXISTS payments (id text NOT NULL, amount text NOT NULL);
    CREATE TABLE IF NOT EXISTS webhooks (id text NOT NULL, event text NOT NULL)";

impl Shop {
    /// Opens the shop, and the store of its records.
    pub(crate) async fn open(settings: &Settings) -> Result<(Self, Arc<dyn RecordStore>), ExampleError> {
        Ok(match &settings.place {
            Place::Memory => {
                let (payments, webhooks) = Default::default();
                (Self::Memory { payments, webhooks }, Arc::new(MemoryStore::new()))
            }
            Place::Sqlite(path) => {
                use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
                let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
                let options = options.journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
                let pool = sqlx::SqlitePool::connect_with(options).await?;
                sqlx::raw_sql(TABLES).execute(&pool).await?;
                (Self::Sqlite(pool.clone()), Arc::new(SqliteStore::new(pool)))
            }
            #[cfg(feature = "postgres")]
            Place::Postgres(url) => {
                let pool = sqlx::PgPool::connect(url).await?;
                sqlx::raw_sql(TABLES).execute(&pool).await?;
                (Self::Postgres(pool.clone()), Arc::new(tollgate::key_value::PostgresStore::new(pool)))
            }
        })
    }

    pub(crate) const fn place(&self) -> &'static str {
        match self {
            Self::Memory { .. } => "memory",
            Self::Sqlite(_) => "SQLite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// Makes a payment that takes a while; returns its id. In a database it is written in the transaction of its operation.
    pub(crate) async fn pay(
        &self,
        execution: &IdempotentExecution,
        amount: &str,
        takes: Duration,
    ) -> Result<String, ExampleError> {
        let (id, sql) = (format!("{:016x}", fastrand::u64(..)), "INSERT INTO payments (id, amount) VALUES ($1, $2)");
        match self {
            Self::Memory { payments, .. } => {
                payments.fetch_add(1, SeqCst);
                tokio::time::sleep(takes).await;
            }
            Self::Sqlite(_) => {
                let mut transaction = execution.transaction::<sqlx::Sqlite>().await?;
                sqlx::query(sql).bind(&id).bind(amount).execute(&mut *transaction).await?;
                tokio::time::sleep(takes).await;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => {
                let mut transaction = execution.transaction::<sqlx::Postgres>().await?;
                sqlx::query(sql).bind(&id).bind(amount).execute(&mut *transaction).await?;
                tokio::time::sleep(takes).await;
            }
        }
        Ok(id)
    }

    /// Processes an event; returns its id.
    pub(crate) async fn process(&self, event: &str) -> Result<String, sqlx::Error> {
        let (id, sql) = (format!("{:016x}", fastrand::u64(..)), "INSERT INTO webhooks (id, event) VALUES ($1, $2)");
        match self {
            Self::Memory { webhooks, .. } => {
                webhooks.fetch_add(1, SeqCst);
            }
            Self::Sqlite(pool) => {
                sqlx::query(sql).bind(&id).bind(event).execute(pool).await?;
            }
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => {
                sqlx::query(sql).bind(&id).bind(event).execute(pool).await?;
            }
        }
        Ok(id)
    }

    /// Returns the numbers of payments and of webhooks.
    pub(crate) async fn stats(&self) -> Result<(i64, i64), sqlx::Error> {
        let sql = "SELECT (SELECT count(*) FROM payments), (SELECT count(*) FROM webhooks)";
        match self {
            Self::Memory { payments, webhooks } => {
                let number = |count: &AtomicU64| count.load(SeqCst).cast_signed();
                Ok((number(payments), number(webhooks)))
            }
            Self::Sqlite(pool) => sqlx::query_as(sql).fetch_one(pool).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => sqlx::query_as(sql).fetch_one(pool).await,
        }
    }
}
