//! Reports on the rows, and repairs of the counters, in SQL that all databases share.

use sqlx::{Connection as _, SqlSafeStr, pool::PoolConnection};

use super::{ChargePath, Columns, ENTRY_COLUMNS, SqlDatabase, SqlDialect, SqlValue, db_error, safe};
use crate::{
    ledger::{DbError, Drift, PastUsage, writer::Row},
    time::from_1970,
};

/// Sums the billed items of a tenant by kind, by the rule of [`billed`](crate::ledger::writer::billed), for rows
/// written at `$2` or later and before `$3`.
///
/// The inner query yields the rows of each item. Rows that a void takes back have the sign -1: those that the attempt
/// of the void wrote before it, found by its job. `CROSS JOIN` keeps SQLite from the opposite join order. Ids order the
/// rows of an account as they were written.
///
/// An amount is summed in two halves, so that the sums fit wherever the rows do. The rows are read once
/// (`MATERIALIZED`): to find the voids among them by a second scan would cost as much as the first.
pub(crate) const BILLED: &str = "
    WITH written AS MATERIALIZED (
        SELECT id, job_id, attempt, entry, part, quota_type, limit_id, amount FROM quota_consumption
        WHERE tenant_id = $1 AND consumed_at >= $2 AND consumed_at < $3)
    SELECT quota_type, CAST(sum(amount >> 32) AS bigint), CAST(sum(amount & 4294967295) AS bigint) FROM
        (SELECT quota_type, sign * CASE WHEN -min(amount) > max(amount) THEN min(amount) ELSE max(amount) END AS amount
         FROM (
            SELECT 1 AS sign, job_id, attempt, entry, part, quota_type, limit_id, amount FROM written
            UNION ALL
            SELECT -1, r.job_id, r.attempt, r.entry, r.part, r.quota_type, r.limit_id, r.amount
            FROM (SELECT job_id, attempt, min(id) AS id FROM written WHERE entry = 'void' GROUP BY job_id, attempt) v
            CROSS JOIN quota_consumption r
            WHERE r.tenant_id = $1 AND r.job_id = v.job_id AND r.attempt = v.attempt AND r.id < v.id) rows_of_items
         WHERE limit_id <> '' AND entry NOT IN ('void', 'reset', 'grant')
         GROUP BY sign, job_id, attempt, entry, part, quota_type) items
    GROUP BY quota_type ORDER BY quota_type";

/// Billed amount of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BilledSum {
    pub(crate) kind: String,
    pub(crate) amount: i128,
}

/// Computes each counter from its rows: `written` is their sum, `held` the part of it that is reserved and not settled.
fn should_be<S: SqlDialect>() -> String {
    format!(
        "SELECT tenant_id, limit_id, quota_type, period, window_start, epoch, CAST(sum(amount) AS bigint) AS written,
            CAST(coalesce(sum(amount) FILTER (WHERE entry = 'reserve' AND NOT EXISTS (
                SELECT 1 FROM quota_consumption s {}
                WHERE s.tenant_id = q.tenant_id AND s.job_id = q.job_id AND s.attempt = q.attempt
                    AND s.entry IN ('commit', 'void', 'expire'))), 0) AS bigint) AS held
         FROM quota_consumption q WHERE limit_id <> ''",
        S::indexed_by("quota_consumption_once")
    )
}

impl<S: ChargePath> SqlDatabase<S> {
    /// Returns at most `most` rows of a tenant in `from..until`, each with its id and time, ordered by both. Rows
    /// written exactly at `from` are returned only if their id is above `after`. The cost of a page does not depend on
    /// the length of the history.
    pub(crate) async fn entries(
        &self,
        tenant: &str,
        from: u64,
        until: u64,
        after: i64,
        most: usize,
    ) -> Result<Vec<(i64, u64, Row)>, DbError> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS}, consumed_at FROM quota_consumption {}
             WHERE tenant_id = $1 AND consumed_at >= $2 AND consumed_at < $3 AND (consumed_at > $2 OR id > $4)
             ORDER BY consumed_at, id LIMIT $5",
            S::indexed_by("quota_consumption_by_time")
        );
        let times = [SqlValue::time(from), SqlValue::time(until)];
        let values = [SqlValue::Text(tenant), times[0], times[1], SqlValue::Number(after), SqlValue::count(most)];
        let decode = |columns: &mut Columns<'_, S>| {
            let (id, entry) = columns.entry()?;
            Ok((id, columns.clock()?, entry))
        };
        self.query(safe(sql), &values, decode).await
    }

    /// Waits for the lock of an account, under which every writer of an earlier row has committed.
    pub(crate) async fn wait_for_writers(&self, tenant: &str) -> Result<(), DbError> {
        let mut connection = self.acquire().await?;
        let (transaction, _) = locked::<S>(&mut connection, tenant).await?;
        transaction.rollback().await.map_err(db_error::<S>)
    }

    /// Returns the billed sums by kind of the rows of a tenant in `from..until`.
    pub(crate) async fn sums(&self, tenant: &str, from: u64, until: u64) -> Result<Vec<BilledSum>, DbError> {
        let values = [SqlValue::Text(tenant), SqlValue::time(from), SqlValue::time(until)];
        let decode = |columns: &mut Columns<'_, S>| {
            let kind = columns.text()?;
            Ok(BilledSum { kind, amount: (i128::from(columns.amount()?) << 32) + i128::from(columns.amount()?) })
        };
        self.query(BILLED.into_sql_str(), &values, decode).await
    }

    /// Returns the usage at a past time of each period that was open then: the sum of the rows that were written by then
    /// in the epoch that was the latest.
    pub(crate) async fn past(&self, tenant: &str, at: u64) -> Result<Vec<PastUsage>, DbError> {
        let sql = "SELECT limit_id, quota_type, period, window_start, amount FROM (
                SELECT c.limit_id, c.quota_type, c.period, c.window_start, coalesce(q.epoch, 0) AS epoch,
                    CAST(coalesce(sum(q.amount), 0) AS bigint) AS amount,
                    max(coalesce(q.epoch, 0)) OVER (PARTITION BY c.limit_id, c.quota_type, c.period, c.window_start) AS latest
                FROM (SELECT DISTINCT tenant_id, limit_id, quota_type, period, window_start FROM quota_counter
                    WHERE tenant_id = $1 AND window_start <= $2 AND window_end > $2) c
                LEFT JOIN quota_consumption q ON q.tenant_id = c.tenant_id AND q.limit_id = c.limit_id
                    AND q.quota_type = c.quota_type AND q.period = c.period AND q.window_start = c.window_start
                    AND q.consumed_at <= $2
                GROUP BY c.limit_id, c.quota_type, c.period, c.window_start, coalesce(q.epoch, 0)) sums
             WHERE epoch = latest ORDER BY limit_id, quota_type, period, window_start";
        let decode = |columns: &mut Columns<'_, S>| {
            let (limit, kind, period) = (columns.text()?, columns.text()?, columns.text()?);
            let window_start = from_1970(columns.clock()?);
            Ok(PastUsage { limit, kind, period, window_start, used: u64::try_from(columns.amount()?).unwrap_or(0) })
        };
        self.query(sql.into_sql_str(), &[SqlValue::Text(tenant), SqlValue::time(at)], decode).await
    }

    /// Query for counters that differ from their rows. A `FULL OUTER JOIN` would say it in fewer words, but SQLite compares
    /// each counter with each sum then.
    pub(crate) fn differing() -> String {
        format!(
            "WITH sums AS ({} GROUP BY tenant_id, limit_id, quota_type, period, window_start, epoch)
             SELECT tenant_id, limit_id, quota_type, period, window_start, counted, written FROM (
                SELECT c.tenant_id, c.limit_id, c.quota_type, c.period, c.window_start, c.epoch, c.used + c.reserved AS counted,
                    coalesce(s.written, 0) AS written
                FROM quota_counter c LEFT JOIN sums s ON s.tenant_id = c.tenant_id AND s.limit_id = c.limit_id
                    AND s.quota_type = c.quota_type AND s.period = c.period AND s.window_start = c.window_start AND s.epoch = c.epoch
                WHERE c.used + c.reserved <> coalesce(s.written, 0) OR c.reserved <> coalesce(s.held, 0)
                UNION ALL
                SELECT s.tenant_id, s.limit_id, s.quota_type, s.period, s.window_start, s.epoch, CAST(NULL AS bigint), s.written
                FROM sums s WHERE s.written <> 0 AND NOT EXISTS (
                    SELECT 1 FROM quota_counter c WHERE c.tenant_id = s.tenant_id AND c.limit_id = s.limit_id
                        AND c.quota_type = s.quota_type AND c.period = s.period AND c.window_start = s.window_start AND c.epoch = s.epoch)) d
             ORDER BY tenant_id, limit_id, quota_type, period, window_start, epoch LIMIT $1",
            should_be::<S>()
        )
    }

    /// Returns the number of counters, and at most `most` that differ from their rows.
    pub(crate) async fn drifts(&self, most: usize) -> Result<(u64, Vec<Drift>), DbError> {
        let mut connection = self.acquire().await?;
        let mut transaction = connection.begin().await.map_err(db_error::<S>)?;
        let compared = S::fetch(&mut transaction, "SELECT count(*) FROM quota_counter".into_sql_str(), &[]).await?;
        let found = S::fetch(&mut transaction, safe(Self::differing()), &[SqlValue::count(most)]).await?;
        let drift = |row| {
            let mut columns = Columns::<S>::new(row);
            Ok(Drift {
                tenant: columns.text()?,
                limit: columns.text()?,
                kind: columns.text()?,
                period: columns.text()?,
                window_start: from_1970(columns.clock()?),
                counted: columns.optional_amount()?,
                written: columns.amount()?,
            })
        };
        let drifts = found.iter().map(drift).collect::<Result<_, DbError>>()?;
        Ok((compared.first().map_or(Ok(0), |row| Columns::<S>::new(row).number())?, drifts))
    }

    /// Statement that sets the counters of a tenant to the sums of their rows.
    pub(crate) fn repairing() -> String {
        let larger = S::LARGER;
        format!(
            "UPDATE quota_counter SET used = {larger}(s.written - s.held, 0), reserved = {larger}(s.held, 0)
             FROM (SELECT c.limit_id, c.quota_type, c.period, c.window_start, c.epoch, coalesce(s.written, 0) AS written,
                    coalesce(s.held, 0) AS held
                FROM quota_counter c LEFT JOIN
                    ({} AND tenant_id = $1 AND consumed_at >= {} GROUP BY tenant_id, limit_id, quota_type, period, window_start, epoch) s
                    USING (tenant_id, limit_id, quota_type, period, window_start, epoch)
                WHERE c.tenant_id = $1) s
             WHERE quota_counter.tenant_id = $1 AND quota_counter.limit_id = s.limit_id
                AND quota_counter.quota_type = s.quota_type AND quota_counter.period = s.period AND quota_counter.window_start = s.window_start
                AND quota_counter.epoch = s.epoch
                AND (used <> {larger}(s.written - s.held, 0) OR reserved <> {larger}(s.held, 0))",
            should_be::<S>(),
            S::EARLIEST
        )
    }

    /// Sets the counters of a tenant to the sums of their rows, under its lock; returns the number of wrong ones.
    pub(crate) async fn repair(&self, tenant: &str) -> Result<u64, DbError> {
        let mut connection = self.acquire().await?;
        let (mut transaction, _) = locked::<S>(&mut connection, tenant).await?;
        let wrong = S::execute(&mut transaction, safe(Self::repairing()), &[SqlValue::Text(tenant)]).await?;
        transaction.commit().await.map_err(db_error::<S>)?;
        Ok(wrong)
    }

    /// Closes an account up to `until`, if the clock has reached it: entries that are written from now on are no older.
    /// Returns whether it did; `None` if there is no account.
    pub(crate) async fn close(&self, tenant: &str, until: u64) -> Result<Option<bool>, DbError> {
        let sql = format!(
            "UPDATE quota_account SET closed_until = {}(closed_until, $2) WHERE tenant_id = $1 AND {} >= $2",
            S::LARGER,
            self.clock.sql::<S>()
        );
        let mut connection = self.acquire().await?;
        // Under the lock, which waits for a transaction that is creating the account.
        let (mut transaction, created) = locked::<S>(&mut connection, tenant).await?;
        let values = [SqlValue::Text(tenant), SqlValue::time(until)];
        if !created && S::execute(&mut transaction, safe(sql), &values).await? > 0 {
            transaction.commit().await.map_err(db_error::<S>)?;
            return Ok(Some(true));
        }
        transaction.rollback().await.map_err(db_error::<S>)?;
        let known = "SELECT count(*) FROM quota_account WHERE tenant_id = $1";
        let known = S::fetch(&mut *connection, known.into_sql_str(), &values[..1]).await?;
        let known = known.first().map_or(Ok(0), |row| Columns::<S>::new(row).number::<u64>())?;
        Ok((known > 0).then_some(false))
    }

    /// Marks rows from before `before` as archivable, for all writers from now on; returns the latest such time.
    pub(crate) async fn seal(&self, before: u64) -> Result<u64, DbError> {
        let sql = format!(
            "INSERT INTO quota_archive AS a (only_row, sealed_until) VALUES (true, $1)
             ON CONFLICT (only_row) DO UPDATE SET sealed_until = {}(a.sealed_until, excluded.sealed_until)
             RETURNING sealed_until",
            S::LARGER
        );
        let sealed = self.query(safe(sql), &[SqlValue::time(before)], |columns| columns.clock()).await?;
        Ok(sealed.first().copied().unwrap_or(before))
    }

    /// Returns the latest time before which rows may be archived; 0 if there is none.
    pub(crate) async fn sealed(&self) -> Result<u64, DbError> {
        let sealed =
            self.query("SELECT sealed_until FROM quota_archive".into_sql_str(), &[], |columns| columns.clock()).await?;
        Ok(sealed.first().copied().unwrap_or(0))
    }
}

/// Begins a transaction that holds the lock of a tenant's account. Returns it, and whether it has created the account,
/// which it must not commit then.
pub(super) async fn locked<'a, S: ChargePath>(
    connection: &'a mut PoolConnection<S>,
    tenant: &str,
) -> Result<(sqlx::Transaction<'a, S>, bool), DbError> {
    let mut transaction = connection.begin_with(S::BEGIN_WRITE.into_sql_str()).await.map_err(db_error::<S>)?;
    let created = S::lock(&mut transaction, tenant).await?;
    Ok((transaction, created))
}
