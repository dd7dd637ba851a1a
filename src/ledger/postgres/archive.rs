//! Archives finished periods.

use sqlx::{PgConnection, Postgres, SqlSafeStr};

use crate::ledger::{
    DbError,
    sql::{Columns, SqlDialect, SqlValue},
};

/// Periods that have ended, without an open reservation or a later row, and that are not archived yet. Their rows are
/// deleted, and one row for each stays, with the sum of their amounts and the time of the last. All parts see one
/// snapshot; open reservations are looked up once, not for each row.
const ARCHIVE: &str = "
    WITH open AS MATERIALIZED (
        SELECT r.limit_id, r.quota_type, r.period, r.window_start, r.epoch FROM quota_hold h, LATERAL (
            SELECT * FROM quota_consumption c
            WHERE c.tenant_id = h.tenant_id AND c.job_id = h.job_id AND c.attempt = h.attempt OFFSET 0) r
        WHERE h.tenant_id = $1),
    sealed AS (
        SELECT q.limit_id, q.quota_type, q.period, q.window_start, q.epoch, sum(q.amount)::int8 AS amount,
            max(q.consumed_at) AS consumed_at, row_number() OVER () AS part
        FROM quota_consumption q JOIN quota_counter c USING (tenant_id, limit_id, quota_type, period, window_start, epoch)
        WHERE q.tenant_id = $1 AND c.window_end <= $2 AND c.reserved = 0 AND q.entry <> 'grant'
            AND (q.limit_id, q.quota_type, q.period, q.window_start, q.epoch) NOT IN (SELECT * FROM open)
        GROUP BY q.limit_id, q.quota_type, q.period, q.window_start, q.epoch
        HAVING max(q.consumed_at) < $2 AND (count(*) > 1 OR max(q.job_id) NOT LIKE 'archive %' OR max(q.entry) <> 'adjust')),
    gone AS (
        DELETE FROM quota_consumption q USING sealed s
        WHERE q.tenant_id = $1 AND q.limit_id = s.limit_id AND q.quota_type = s.quota_type AND q.period = s.period
            AND q.window_start = s.window_start AND q.epoch = s.epoch AND q.entry <> 'grant' RETURNING 1),
    kept AS (
        INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt, part,
            amount, consumed_at, order_id)
        SELECT $1, 'archive ' || replace($3::text, '-', ''), quota_type, limit_id, period, window_start, epoch, 'adjust', 0, part,
            amount, consumed_at, $3::uuid FROM sealed)
    SELECT count(*) FROM gone";

/// Replaces the rows of each finished period by one; returns the number of rows that were replaced.
pub(super) async fn archive(
    connection: &mut PgConnection,
    tenant: &str,
    before: u64,
    command: u128,
) -> Result<u64, DbError> {
    Postgres::run(connection, "SET LOCAL tollgate.archives = 'on'".into_sql_str()).await?;
    let values = [SqlValue::Text(tenant), SqlValue::time(before), SqlValue::Digest(command)];
    let gone = Postgres::fetch(connection, ARCHIVE.into_sql_str(), &values).await?;
    gone.first().map_or(Ok(0), |row| Columns::<Postgres>::new(row).number())
}
