//! Charge path: transactions of the writer on one connection.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use sqlx::{PgConnection, Postgres, SqlSafeStr};

use super::{begin, read, writes};
use crate::ledger::{
    DbError,
    sql::{
        COUNT, ChargePath, SqlDialect, SqlValue, db_error,
        encoding::{self, text},
        in_order,
    },
    writer::{Key, Loaded, Reads},
};

/// The wait for an account that another transaction holds is shorter than that of callers, so that others that wait in
/// the second lane are served in time. All settings end with the transaction, because a pooler may give the connection to another client. A
/// process that stops in mid-transaction holds an account for at most 10 s. Sequential scans are off: a plan made for
/// small tables outlives their size.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '500ms'; \
    SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '10s'; \
    SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
    SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off";

/// A time-out that strikes while a commit waits for its replica would end the wait, but not the commit.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// Creates missing accounts, locks the others in their order, and returns those that it created, in one statement; `WHERE
/// false` locks without a new row version.
const LOCK: &str = "INSERT INTO quota_account (tenant_id) SELECT t FROM unnest($1::text[]) WITH ORDINALITY AS asked (t, n) \
    ORDER BY n ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = EXCLUDED.tenant_id WHERE false \
    RETURNING tenant_id";

/// Waits for no lock after [`BEGIN`].
const HURRY: &str = "SET LOCAL lock_timeout = '1ms'";

/// Returns every statement that locks or writes.
pub(super) fn statements() -> impl Iterator<Item = Arc<str>> {
    [LOCK, begin::CALL].map(Arc::from).into_iter().chain(writes::statements())
}

impl ChargePath for Postgres {
    const STORE: &'static str = "postgres";
    const IS_SERVER: bool = true;

    async fn tune(_: &mut PgConnection) -> Result<(), DbError> {
        Ok(())
    }

    async fn read(
        connection: &mut PgConnection,
        tenants: &[Arc<str>],
        jobs: &[Key],
        at: Option<i64>,
    ) -> Result<Loaded, DbError> {
        read::load(connection, tenants, jobs, &BTreeMap::new(), at).await
    }

    async fn lock(connection: &mut PgConnection, tenant: &str) -> Result<bool, DbError> {
        Ok(!lock(connection, &[text(tenant)]).await?.is_empty())
    }

    async fn begin(connection: &mut PgConnection, reads: &Reads, at: Option<i64>) -> Result<Loaded, DbError> {
        let tenants = in_order(&reads.tenants);
        let call = |locks| begin::call(&tenants, reads, at, locks);
        if !reads.skips_held {
            return begin::run(connection, format!("{BEGIN}; {}", call("wait")), &tenants, false).await;
        }
        match begin::run(connection, format!("{BEGIN}; {}", call("skip")), &tenants, true).await {
            // Another transaction is creating one of them: all missing ones count as held.
            Err(DbError::Again(_)) => {
                let again = format!("ROLLBACK; {BEGIN}; {HURRY}; {}", call("existing"));
                begin::run(connection, again, &tenants, true).await
            }
            loaded => loaded,
        }
    }

    async fn put(connection: &mut PgConnection, values: &[Vec<SqlValue<'_>>; COUNT]) -> Result<(), DbError> {
        writes::put(connection, values).await
    }

    /// Commits. An error that the server reports means that the transaction is rolled back; a missing reply means
    /// nothing.
    async fn commit(connection: &mut PgConnection) -> Result<(), DbError> {
        Self::run(connection, COMMIT.into_sql_str()).await
    }

    async fn roll_back(connection: &mut PgConnection) -> Result<(), DbError> {
        Self::run(connection, "ROLLBACK".into_sql_str()).await
    }
}

/// Locks accounts whose names are in order, and creates missing ones, which it returns.
async fn lock(connection: &mut PgConnection, names: &[Cow<'_, str>]) -> Result<Vec<Arc<str>>, DbError> {
    let created = sqlx::query_scalar(LOCK).bind(names).fetch_all(connection);
    let created: Vec<String> = created.await.map_err(db_error::<Postgres>)?;
    Ok(created.iter().map(|tenant| decoded(tenant)).collect())
}

fn decoded(tenant: &str) -> Arc<str> {
    encoding::read(tenant).into()
}
