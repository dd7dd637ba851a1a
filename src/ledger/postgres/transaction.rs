//! Charge path: transactions of the writer on one connection.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    sync::{Arc, LazyLock},
};

use sqlx::{PgConnection, Postgres, SqlSafeStr};
use uuid::Uuid;

use super::{PostgresQuery, read, values::Time};
use crate::ledger::{
    DbError,
    sql::{
        COUNT, ChargePath, SqlDialect, SqlValue, WRITES, db_error,
        encoding::{self, text},
        in_order, safe,
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

/// Locks the accounts that no other transaction holds, creates missing ones, and returns both, each with whether it was
/// created. PostgreSQL can skip a locked row, but not one that another transaction is inserting, which no other can see:
/// so it waits for that at most 1 ms, its shortest lock time-out. The last row is null and ends that time-out.
const LOCK_FREE: &str = "WITH free AS (
        SELECT tenant_id FROM quota_account WHERE tenant_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED),
    added AS (
        INSERT INTO quota_account (tenant_id) SELECT t FROM unnest($1::text[]) WITH ORDINALITY AS asked (t, n)
        WHERE NOT EXISTS (SELECT FROM quota_account WHERE tenant_id = t)
            AND (SELECT set_config('lock_timeout', '1ms', true)) IS NOT NULL
        ORDER BY n ON CONFLICT (tenant_id) DO NOTHING RETURNING tenant_id)
    SELECT tenant_id, false FROM free UNION ALL SELECT tenant_id, true FROM added
    UNION ALL SELECT nullif(set_config('lock_timeout', '500ms', true), '500ms'), false";

/// As [`LOCK_FREE`], but creates no account.
const LOCK_EXISTING: &str = "WITH free AS (
        SELECT tenant_id FROM quota_account WHERE tenant_id = ANY ($1::text[]) FOR UPDATE SKIP LOCKED)
    SELECT tenant_id, false FROM free UNION ALL SELECT nullif(set_config('lock_timeout', '500ms', true), '500ms'), false";

/// Waits for no lock after [`BEGIN`].
const HURRY: &str = "SET LOCAL lock_timeout = '1ms'";

/// Texts of [`WRITES`].
static TEXTS: LazyLock<[Arc<str>; COUNT]> = LazyLock::new(|| {
    WRITES.each_ref().map(|write| {
        let (numbers, names) = (1..=write.columns.len(), 1..=write.columns.len());
        let arrays: Vec<_> = numbers.zip(&write.columns).map(|(at, (_, kind))| format!("${at}::{kind}[]")).collect();
        let names: Vec<_> = names.map(|at| format!("column{at}")).collect();
        write.sql(&format!("SELECT * FROM unnest({}) AS rows ({})", arrays.join(", "), names.join(", "))).into()
    })
});

/// Returns every statement that locks or writes.
pub(super) fn statements() -> impl Iterator<Item = Arc<str>> {
    [LOCK, LOCK_FREE, LOCK_EXISTING].map(Arc::from).into_iter().chain(TEXTS.iter().cloned())
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
        Self::run(connection, BEGIN.into_sql_str()).await?;
        let tenants = in_order(&reads.tenants);
        let names: Vec<_> = tenants.iter().map(|tenant| text(tenant)).collect();
        if !reads.skips_held {
            let created = lock(connection, &names).await?;
            return Ok(Loaded { created, ..read::load(connection, &tenants, &reads.jobs, &reads.since, at).await? });
        }
        let free = match lock_free(connection, LOCK_FREE, &names).await {
            // Another transaction is creating one of them: all missing ones count as held.
            Err(DbError::Again(_)) => {
                Self::run(connection, safe(format!("ROLLBACK; {BEGIN}; {HURRY}"))).await?;
                lock_free(connection, LOCK_EXISTING, &names).await?
            }
            free => free?,
        };
        let is_free = |tenant: &Arc<str>| free.contains_key(&*text(tenant));
        let created = free.iter().filter(|(_, created)| **created).map(|(tenant, _)| decoded(tenant)).collect();
        let (free, held): (Vec<_>, Vec<_>) = tenants.into_iter().partition(is_free);
        Ok(Loaded { held, created, ..read::load(connection, &free, &reads.jobs, &reads.since, at).await? })
    }

    async fn put(connection: &mut PgConnection, at: usize, values: &[SqlValue<'_>]) -> Result<(), DbError> {
        let mut query = sqlx::query(safe(TEXTS[at].clone()));
        let columns = &WRITES[at].columns;
        for (at, (_, kind)) in columns.iter().enumerate() {
            query = bind_column(query, kind, values.iter().skip(at).step_by(columns.len()));
        }
        query.execute(connection).await.map_err(db_error::<Self>).map(|_| ())
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

/// Locks accounts that no other transaction holds, and returns them, each with whether it was created.
async fn lock_free(
    connection: &mut PgConnection,
    sql: &'static str,
    names: &[Cow<'_, str>],
) -> Result<HashMap<String, bool>, DbError> {
    let free = sqlx::query_as::<_, (Option<String>, bool)>(sql).bind(names).fetch_all(connection);
    let free = free.await.map_err(db_error::<Postgres>)?.into_iter();
    Ok(free.filter_map(|(tenant, created)| Some((tenant?, created))).collect())
}

/// Binds a column of all rows as an array.
fn bind_column<'a>(query: PostgresQuery, kind: &str, values: impl Iterator<Item = &'a SqlValue<'a>>) -> PostgresQuery {
    macro_rules! array {
        ($variant:ident, $value:ident => $of:expr) => {
            values
                .map(|value| if let SqlValue::$variant($value) = *value { Some($of) } else { None })
                .collect::<Vec<_>>()
        };
    }
    match kind {
        "text" => query.bind(array!(Text, value => text(value))),
        "int8" => query.bind(array!(Number, value => value)),
        "bool" => query.bind(array!(Flag, value => value)),
        "timestamptz" => query.bind(array!(Time, value => Time(value))),
        _ => query.bind(array!(Digest, value => Uuid::from_u128(value))),
    }
}
