//! The ledger in a PostgreSQL database.

use std::{sync::Arc, time::Duration};

use sqlx::{
    ConnectOptions, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::writer::{Key, ReservationRow, Row, Stored};
use super::{Database, DbError, LedgerError, columns::text};

mod audit;
mod checks;
mod failure;
#[cfg(test)]
mod on_a_server;
mod rows;
mod session;
mod values;

use failure::failure;
pub(crate) use session::PostgresSession;

/// A ledger in a PostgreSQL database; its door outside is the one of the same name.
#[derive(Clone, Debug)]
pub(crate) struct PostgresLedger {
    pool: PgPool,
}

/// How long a server may take to be reached.
const PATIENCE: Duration = Duration::from_secs(5);

impl PostgresLedger {
    /// In the database at this URL, through a pool of its own.
    pub(crate) async fn connect(url: &str) -> Result<Self, LedgerError> {
        let options: PgConnectOptions =
            url.parse().map_err(|error| LedgerError::new(format!("the URL of the ledger is none: {error}")))?;
        let place = format!("{}:{}", options.get_host(), options.get_port());
        // By itself, for a pool would try again and not say why.
        let reached = tokio::time::timeout(PATIENCE, options.connect()).await;
        let ready = match reached {
            Ok(Ok(mut connection)) => ready(&mut connection).await,
            Ok(Err(error)) => Err(failure(error)),
            Err(_) => Err(DbError::Lost(format!("PostgreSQL: no answer within {PATIENCE:?}"))),
        };
        ready.map_err(|failure| LedgerError::new(format!("{} ({place})", LedgerError::from(failure).reason())))?;
        let pool = PgPoolOptions::new().max_connections(4).acquire_timeout(PATIENCE).connect_lazy_with(options);
        Ok(Self { pool })
    }

    /// In the database of a pool that the program has already.
    pub(crate) async fn from_pool(pool: PgPool) -> Result<Self, LedgerError> {
        let mut connection = pool.acquire().await.map_err(failure)?;
        ready(&mut connection).await?;
        drop(connection);
        Ok(Self { pool })
    }
}

async fn ready(connection: &mut PgConnection) -> Result<(), DbError> {
    checks::apply(connection).await?;
    checks::check(connection).await
}

impl Database for PostgresLedger {
    type Session = PostgresSession;

    async fn connect(&self) -> Result<PostgresSession, DbError> {
        let mut connection: PgConnection = self.pool.acquire().await.map_err(failure)?.detach();
        checks::check(&mut connection).await?;
        Ok(PostgresSession::new(connection))
    }

    async fn account(&self, tenant: &str) -> Result<(u64, Stored), DbError> {
        let tenant = Arc::<str>::from(tenant);
        let mut loaded = rows::load(&self.pool, std::slice::from_ref(&tenant), &[], None).await?;
        Ok((loaded.now, loaded.accounts.remove(&tenant).unwrap_or_default()))
    }

    async fn tenants(&self, after: Option<&str>, most: usize) -> Result<Vec<Arc<str>>, DbError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let query = match after {
            None => sqlx::query("SELECT tenant_id FROM quota_account ORDER BY tenant_id LIMIT $1").bind(most),
            Some(after) => {
                sqlx::query("SELECT tenant_id FROM quota_account WHERE tenant_id > $2 ORDER BY tenant_id LIMIT $1")
                    .bind(most)
                    .bind(text(after))
            }
        };
        query.fetch_all(&self.pool).await.map_err(failure)?.iter().map(rows::tenant).collect()
    }

    async fn job(&self, tenant: &str, job: &str) -> Result<Vec<Row>, DbError> {
        let key = Key { tenant: tenant.into(), job: job.into() };
        Ok(rows::load(&self.pool, &[], &[key], None).await?.rows)
    }

    async fn due(&self, most: usize, skip: usize) -> Result<Vec<ReservationRow>, DbError> {
        let query = sqlx::query(
            "SELECT tenant_id, job_id, attempt, until, since, charge FROM quota_hold WHERE until <= now()
             ORDER BY until, tenant_id, job_id, attempt LIMIT $1 OFFSET $2",
        );
        let [most, skip] = [most, skip].map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        let query = query.bind(most).bind(skip);
        query.fetch_all(&self.pool).await.map_err(failure)?.iter().map(rows::hold).collect()
    }
}
