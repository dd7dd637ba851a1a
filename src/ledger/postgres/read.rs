//! Reads accounts and their jobs in one statement.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{PgExecutor, Postgres, postgres::PgRow};

use super::{FORGETS, values::Time};
use crate::ledger::{
    DbError,
    sql::{
        ReadRows, SqlDialect, db_error,
        encoding::{nanos, text, time, until},
    },
    writer::{Key, Loaded},
};

/// The clock, counters, grants and entries, distinguished by the last column: one statement sees one snapshot. Each
/// account and job is looked up by itself (`OFFSET 0` keeps it so), so that the number of rows in the tables never
/// changes the plan. The other columns are those of [`ENTRY_COLUMNS`](crate::ledger::sql::ENTRY_COLUMNS).
pub(super) const READ: &str = "
    WITH clock AS MATERIALIZED (SELECT coalesce($5::timestamptz, clock_timestamp()) AS now),
    accounts AS (SELECT t, since FROM unnest($1::text[], $2::timestamptz[]) AS asked (t, since)),
    jobs AS (SELECT t, j FROM unnest($3::text[], $4::text[]) AS asked (t, j))
    SELECT NULL::text AS tenant, current_setting('synchronous_commit') AS limit_id, NULL::text AS quota_type, NULL::text AS period,
        now AS starts,
        (SELECT sealed_until FROM quota_archive) AS ends, NULL::int8 AS epoch, NULL::int8 AS n1, NULL::int8 AS n2,
        NULL::bool AS b1, NULL::bool AS b2, NULL::int8 AS n3, NULL::int8 AS n4, NULL::text AS s1, NULL::text AS s2,
        NULL::text AS job, NULL::text AS entry, NULL::uuid AS order_id, NULL::uuid AS fingerprint, NULL::int8 AS id,
        0::int8 AS what
    FROM clock
    UNION ALL
    SELECT t, c.limit_id, c.quota_type, c.period, c.window_start, c.window_end, c.epoch, c.used, c.reserved, c.warned, c.untold, NULL,
        NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1
    FROM accounts, clock, LATERAL (
        SELECT * FROM quota_counter WHERE tenant_id = t AND window_end > least(now, since) OFFSET 0) c
    UNION ALL
    SELECT t, g.limit_id, g.quota_type, g.period, g.window_start, g.until, g.epoch, g.id, g.amount, g.ended, NULL, g.used_before,
        g.used_now, g.approver, g.reason, NULL, NULL, NULL, NULL, NULL, 2
    FROM accounts, LATERAL (
        SELECT * FROM quota_grant WHERE tenant_id = t AND (NOT ended OR used_now > 0) OFFSET 0) g
    UNION ALL
    SELECT t, q.limit_id, q.quota_type, q.period, q.window_start, q.until, q.epoch, q.attempt, q.part, NULL, NULL, q.amount, q.granted,
        q.approver, q.reason, j, q.entry, q.order_id, q.fingerprint, q.id, 3
    FROM jobs, LATERAL (
        SELECT * FROM quota_consumption WHERE tenant_id = t AND job_id = j OFFSET 0) q
    UNION ALL
    SELECT t, a.tier, NULL, NULL, a.closed_until, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, 4
    FROM accounts, clock, LATERAL (
        SELECT * FROM quota_account WHERE tenant_id = t AND (tier IS NOT NULL OR closed_until > now) OFFSET 0) a
    UNION ALL
    SELECT t, j, NULL, NULL, NULL, u.until, NULL, u.attempt, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
        NULL, NULL, 5
    FROM jobs, LATERAL (
        SELECT * FROM quota_unfinished_job WHERE tenant_id = t AND job_id = j OFFSET 0) u";

/// Column that distinguishes the rows.
pub(super) const WHAT: usize = 20;

/// Reads accounts and jobs, at the server's time or at that of a test.
pub(super) async fn load(
    connection: impl PgExecutor<'_>,
    tenants: &[Arc<str>],
    jobs: &[Key],
    since: &BTreeMap<Arc<str>, u64>,
    at: Option<i64>,
) -> Result<Loaded, DbError> {
    let asked = sqlx::query(READ)
        .bind(tenants.iter().map(|tenant| text(tenant)).collect::<Vec<_>>())
        .bind(
            tenants.iter().map(|tenant| Time(since.get(tenant).map_or(i64::MAX, |at| until(*at)))).collect::<Vec<_>>(),
        )
        .bind(jobs.iter().map(|key| text(&key.tenant)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|key| text(&key.job)).collect::<Vec<_>>())
        .bind(at.map(Time));
    let mut read = ReadRows::<Postgres>::new(tenants);
    for row in asked.fetch_all(connection).await.map_err(db_error::<Postgres>)? {
        decode(&mut read, &row)?;
    }
    Ok(read.finish())
}

/// Decodes a row of [`READ`].
pub(super) fn decode(read: &mut ReadRows<Postgres>, row: &PgRow) -> Result<(), DbError> {
    match Postgres::number(row, WHAT)? {
        Some(1) => read.counter(row),
        Some(2) => read.grant(row),
        Some(3) => read.entry(row),
        Some(4) => read.account(row),
        Some(5) => read.unfinished(row),
        _ if Postgres::text(row, 1)? == Some("off") => Err(DbError::Refused(FORGETS.into())),
        _ => {
            read.loaded.now = nanos(Postgres::micros(row, 4)?.unwrap_or(-1))?;
            read.loaded.sealed = Postgres::micros(row, 5)?.map_or(0, time);
            Ok(())
        }
    }
}
