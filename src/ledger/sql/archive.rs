//! Archive of finished periods, a bounded number of rows in each transaction.

use sqlx::SqlSafeStr;

use super::{
    ChargePath, Columns, SqlDatabase, SqlDialect, SqlValue, db_error, encoding::number, reports::locked, safe,
};
use crate::ledger::{DbError, new_id};

/// Greatest number of rows that one transaction replaces. Other writers wait for it: in SQLite about 100 ms.
pub(crate) const ROWS: usize = 5_000;

/// A finished period of a limit.
#[derive(Debug)]
pub(crate) struct FinishedPeriod {
    limit: String,
    kind: String,
    period: String,
    starts: u64,
    epoch: u64,
    /// Amount of its counter. A row that is written later changes it.
    used: i64,
    /// Times of the first and the last row.
    first: u64,
    last: u64,
}

/// Condition on the rows of a period: those from the time `$7` up to the time `$8` and the id `$9`. Rows of credits stay,
/// because their ids must stay taken; their prefix is [`CREDIT`](crate::ledger::writer::CREDIT).
const ROWS_OF: &str = "tenant_id = $1 AND limit_id = $2 AND quota_type = $3 AND period = $4 AND window_start = $5
    AND epoch = $6 AND entry <> 'grant' AND job_id NOT LIKE 'credit\u{b7}%' AND consumed_at BETWEEN $7 AND $8 AND (consumed_at < $8 OR id <= $9)";

/// Condition on a row that an archive wrote.
const ARCHIVED: &str = "entry = 'adjust' AND job_id LIKE 'archive %'";

/// Query for the periods that have ended, without an open reservation or a later row, and that are not archived yet.
/// Open reservations are looked up once, not for each row. `CROSS JOIN` keeps SQLite from reading all rows of the
/// tenant again for each of its periods.
pub(crate) fn finished<S: SqlDialect>() -> String {
    format!(
        "SELECT q.limit_id, q.quota_type, q.period, q.window_start, q.epoch, max(c.used), min(q.consumed_at), max(q.consumed_at)
         FROM quota_consumption q CROSS JOIN quota_counter c
         WHERE c.tenant_id = q.tenant_id AND c.limit_id = q.limit_id AND c.quota_type = q.quota_type
            AND c.period = q.period AND c.window_start = q.window_start AND c.epoch = q.epoch
            AND q.tenant_id = $1 AND q.consumed_at >= {} AND c.window_end <= $2 AND c.reserved = 0
            AND q.entry <> 'grant' AND q.job_id NOT LIKE 'credit\u{b7}%'
            AND (q.limit_id, q.quota_type, q.period, q.window_start, q.epoch) NOT IN (
                SELECT r.limit_id, r.quota_type, r.period, r.window_start, r.epoch
                FROM quota_hold h CROSS JOIN quota_consumption r {}
                WHERE h.tenant_id = $1 AND r.tenant_id = h.tenant_id AND r.job_id = h.job_id AND r.attempt = h.attempt)
         GROUP BY q.limit_id, q.quota_type, q.period, q.window_start, q.epoch
         HAVING max(q.consumed_at) < $2 AND (count(*) > 1 OR min(CASE WHEN {ARCHIVED} THEN 1 ELSE 0 END) = 0)",
        S::EARLIEST,
        S::indexed_by("quota_consumption_once")
    )
}

impl<S: ChargePath> SqlDatabase<S> {
    /// Returns the periods of a tenant that ended before `before` and can be archived.
    pub(crate) async fn finished(&self, tenant: &str, before: u64) -> Result<Vec<FinishedPeriod>, DbError> {
        let values = [SqlValue::Text(tenant), SqlValue::time(before)];
        let decode = |columns: &mut Columns<'_, S>| {
            Ok(FinishedPeriod {
                limit: columns.text()?,
                kind: columns.text()?,
                period: columns.text()?,
                starts: columns.time()?,
                epoch: columns.number()?,
                used: columns.amount()?,
                first: columns.time()?,
                last: columns.time()?,
            })
        };
        self.query(safe(finished::<S>()), &values, decode).await
    }

    /// Replaces rows of the last of these periods by their sum, at most about [`ROWS`], in one transaction. Takes out the
    /// periods of which one row is left, and those that have changed. Returns the number of rows that were replaced.
    pub(crate) async fn archive(&self, tenant: &str, periods: &mut Vec<FinishedPeriod>) -> Result<u64, DbError> {
        let mut connection = self.acquire().await?;
        let (mut transaction, _) = locked::<S>(&mut connection, tenant).await?;
        S::run(&mut transaction, S::ALLOW_DELETES.into_sql_str()).await?;
        let (mut replaced, mut read) = (0, 0);
        while read + 1 < ROWS
            && let Some(period) = periods.last_mut()
        {
            let (rows, new) = period.replace::<S>(&mut transaction, tenant, ROWS - read).await?;
            (replaced, read) = (replaced + new, read + rows.max(1));
            if rows <= 1 {
                periods.pop();
            }
        }
        S::run(&mut transaction, S::FORBID_DELETES.into_sql_str()).await?;
        // Their ids are refused from now on, so that nothing asks for the outcome.
        let forgotten = format!(
            "DELETE FROM quota_unfinished_job WHERE tenant_id = $1 AND NOT EXISTS (
                SELECT 1 FROM quota_consumption q {}
                WHERE q.tenant_id = quota_unfinished_job.tenant_id AND q.job_id = quota_unfinished_job.job_id)",
            S::indexed_by("quota_consumption_once")
        );
        S::fetch(&mut transaction, safe(forgotten), &[SqlValue::Text(tenant)]).await?;
        transaction.commit().await.map_err(db_error::<S>)?;
        Ok(replaced)
    }
}

impl FinishedPeriod {
    /// Replaces the next `most` rows by one. Returns their number, and how many of them no archive had written. A row
    /// that is alone stays if an archive has written it; none is replaced if the counter has changed.
    async fn replace<S: SqlDialect>(
        &mut self,
        connection: &mut S::Connection,
        tenant: &str,
        most: usize,
    ) -> Result<(usize, u64), DbError> {
        let Self { limit, kind, period, starts, epoch, used, first, last } = self;
        let (starts, epoch) = (SqlValue::time(*starts), SqlValue::Number(number(*epoch)?));
        let [tenant, limit, kind, period] = [tenant, limit, kind, period].map(SqlValue::Text);
        let period = [tenant, limit, kind, period, starts, epoch];
        let range = [SqlValue::time(*first), SqlValue::time(*last), SqlValue::Number(i64::MAX)];
        let end = format!(
            "SELECT consumed_at, id FROM quota_consumption WHERE {ROWS_OF} ORDER BY consumed_at, id LIMIT 1 OFFSET {}",
            most - 1
        );
        let (mut until, mut id) = (*last, i64::MAX);
        for row in S::fetch(connection, safe(end), &[&period[..], &range].concat()).await? {
            let mut columns = Columns::<S>::new(&row);
            (until, id) = (columns.time()?, columns.amount()?);
        }
        let range = [SqlValue::time(*first), SqlValue::time(until), SqlValue::Number(id)];
        let count = format!(
            "SELECT count(*), count(*) FILTER (WHERE NOT ({ARCHIVED})) FROM quota_consumption
             WHERE {ROWS_OF} AND EXISTS (
                SELECT 1 FROM quota_counter c WHERE c.tenant_id = $1 AND c.limit_id = $2 AND c.quota_type = $3
                    AND c.period = $4 AND c.window_start = $5 AND c.epoch = $6 AND c.used = $10 AND c.reserved = 0)"
        );
        let values = [&period[..], &range, &[SqlValue::Number(*used)]].concat();
        let counted = S::fetch(connection, safe(count), &values).await?;
        let [row] = &*counted else { return Ok((0, 0)) };
        let mut columns = Columns::<S>::new(row);
        let (rows, new) = (columns.number()?, columns.number()?);
        if rows > 1 || new > 0 {
            // Inserted first, because SQLite reuses the highest row id once its row is deleted.
            let insert = format!(
                "INSERT INTO quota_consumption (tenant_id, limit_id, quota_type, period, window_start, epoch, order_id,
                    job_id, entry, attempt, part, amount, consumed_at)
                 SELECT $1, $2, $3, $4, $5, $6, $10, $11, 'adjust', 0, 0, CAST(sum(amount) AS bigint), max(consumed_at)
                 FROM quota_consumption WHERE {ROWS_OF}"
            );
            let delete = format!("DELETE FROM quota_consumption WHERE {ROWS_OF} AND order_id <> $10");
            let command = new_id();
            let job = format!("archive {command:032x}");
            let values = [&period[..], &range, &[SqlValue::Digest(command), SqlValue::Text(&job)]].concat();
            S::fetch(connection, safe(insert), &values).await?;
            S::fetch(connection, safe(delete), &values[..10]).await?;
        }
        *first = until;
        Ok((rows, new))
    }
}
