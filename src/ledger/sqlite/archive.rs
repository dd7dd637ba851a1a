//! Archives finished periods.

use sqlx::{SqlSafeStr, Sqlite, SqliteConnection};

use crate::ledger::{
    DbError,
    sql::{Columns, SqlDialect, SqlValue, safe},
};

/// Periods that have ended, without an open reservation or a later row, and that are not archived yet. Selects the sum
/// of their rows, and the times of the last and the first. Open reservations are looked up once, not for each row.
/// `CROSS JOIN` keeps SQLite from reading all rows of the tenant again for each of its periods.
pub(super) const SEALABLE: &str = "
    SELECT q.limit_id, q.quota_type, q.period, q.window_start, q.epoch, sum(q.amount), max(q.consumed_at), min(q.consumed_at)
    FROM quota_consumption q CROSS JOIN quota_counter c USING (tenant_id, limit_id, quota_type, period, window_start, epoch)
    WHERE q.tenant_id = $1 AND c.window_end <= $2 AND c.reserved = 0 AND q.entry <> 'grant'
        AND (q.limit_id, q.quota_type, q.period, q.window_start, q.epoch) NOT IN (
            SELECT r.limit_id, r.quota_type, r.period, r.window_start, r.epoch
            FROM quota_hold h CROSS JOIN quota_consumption r INDEXED BY quota_consumption_once
                USING (tenant_id, job_id, attempt) WHERE h.tenant_id = $1)
    GROUP BY q.limit_id, q.quota_type, q.period, q.window_start, q.epoch
    HAVING max(q.consumed_at) < $2 AND (count(*) > 1 OR max(q.job_id) NOT LIKE 'archive %' OR max(q.entry) <> 'adjust')";

/// Archived rows of one period.
const INSERT: &str = "
    INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, attempt, part, amount,
        consumed_at, order_id)
    VALUES ($1, 'archive ' || lower(hex($10)), $3, $2, $4, $5, $6, 'adjust', 0, $7, $8, $9, $10)";

const DELETE: &str = "
    DELETE FROM quota_consumption WHERE tenant_id = $1 AND limit_id = $2 AND quota_type = $3 AND period = $4
        AND window_start = $5 AND epoch = $6 AND entry <> 'grant' AND order_id <> $7 AND consumed_at BETWEEN $8 AND $9";

/// Replaces the rows of each finished period by one; returns the number of rows that were replaced.
pub(super) async fn archive(
    connection: &mut SqliteConnection,
    tenant: &str,
    before: u64,
    command: u128,
) -> Result<u64, DbError> {
    // The trigger is dropped and created again within the transaction, which no other connection can see.
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'quota_consumption_kept'";
    let trigger = Sqlite::fetch(connection, trigger.into_sql_str(), &[]).await?;
    Sqlite::run(connection, "DROP TRIGGER quota_consumption_kept".into_sql_str()).await?;
    let (tenant, command, mut gone) = (SqlValue::Text(tenant), SqlValue::Digest(command), 0);
    let periods = Sqlite::fetch(connection, SEALABLE.into_sql_str(), &[tenant, SqlValue::time(before)]).await?;
    for (part, row) in (0_i64..).zip(&periods) {
        let mut period = Columns::<Sqlite>::new(row);
        let (limit, kind, name): (String, String, String) = (period.text()?, period.text()?, period.text()?);
        let mut number = || period.amount().map(SqlValue::Number);
        let (starts, epoch, amount, last, first) = (number()?, number()?, number()?, number()?, number()?);
        let (limit, kind, name) = (SqlValue::Text(&limit), SqlValue::Text(&kind), SqlValue::Text(&name));
        // Inserted first, because SQLite reuses the highest row id once its row is deleted.
        let archived = [tenant, limit, kind, name, starts, epoch, SqlValue::Number(part), amount, last, command];
        Sqlite::execute(connection, INSERT.into_sql_str(), &archived).await?;
        let old = [tenant, limit, kind, name, starts, epoch, command, first, last];
        gone += Sqlite::execute(connection, DELETE.into_sql_str(), &old).await?;
    }
    for row in &trigger {
        let sql: String = Columns::<Sqlite>::new(row).text()?;
        Sqlite::run(connection, safe(sql)).await?;
    }
    Ok(gone)
}
