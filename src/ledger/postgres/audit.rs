//! What people read of the database.

use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgRow};

use super::{
    PostgresLedger,
    failure::failure,
    rows::{self, value},
    session,
    values::{Digest, Time},
};
use crate::ledger::{
    DbError,
    billed::BILLED,
    columns::{nanos, natural, read, text, until as micros},
    database::{Audited, CounterMismatch, Past, Sum},
    writer::Row,
};

/// What each count should be, from its rows: `written` is what they come to, `held` what of it is set aside and not settled.
const SHOULD_BE: &str = "
    SELECT tenant_id, limit_id, quota_type, window_start, epoch, sum(amount)::int8 AS written,
        coalesce(sum(amount) FILTER (WHERE entry = 'reserve' AND NOT EXISTS (
            SELECT 1 FROM quota_consumption s
            WHERE s.tenant_id = q.tenant_id AND s.job_id = q.job_id AND s.attempt = q.attempt
                AND s.entry IN ('commit', 'void', 'expire'))), 0)::int8 AS held
    FROM quota_consumption q WHERE limit_id <> ''";

impl Audited for PostgresLedger {
    async fn entries(
        &self,
        tenant: &str,
        from: u64,
        until: u64,
        after: i64,
        most: usize,
    ) -> Result<Vec<(i64, u64, Row)>, DbError> {
        // The columns are in the order in which jobs are read.
        let query = sqlx::query(
            "SELECT 3::int8, tenant_id, limit_id, quota_type, window_start, until, epoch, attempt, part, amount, granted,
                approver, reason, NULL, NULL, job_id, entry, order_id, fingerprint, id, consumed_at
             FROM quota_consumption
             WHERE tenant_id = $1 AND consumed_at >= $2 AND consumed_at < $3 AND (consumed_at > $2 OR id > $4)
             ORDER BY consumed_at, id LIMIT $5",
        );
        // A plan made for any times would sort all that is left.
        let query = query.persistent(false).bind(text(tenant));
        let query = query.bind(Time(micros(from))).bind(Time(micros(until))).bind(after);
        let found = query.bind(i64::try_from(most).unwrap_or(i64::MAX)).fetch_all(&self.pool).await.map_err(failure)?;
        let entry = |row: &PgRow| {
            let (id, entry) = rows::consumption(row)?;
            Ok((id, nanos(value::<Time>(row, 20)?.0)?, entry))
        };
        found.iter().map(entry).collect()
    }

    async fn sums(&self, tenant: &str, from: u64, until: u64) -> Result<Vec<Sum>, DbError> {
        // A plan made for any times would not know how much a period holds.
        let query = sqlx::query(BILLED).persistent(false);
        let query = query.bind(text(tenant)).bind(Time(micros(from))).bind(Time(micros(until)));
        let sum = |row: &PgRow| {
            let (high, low): (i64, i64) = (value(row, 1)?, value(row, 2)?);
            Ok(Sum { kind: read(value(row, 0)?).into(), amount: (i128::from(high) << 32) + i128::from(low) })
        };
        query.fetch_all(&self.pool).await.map_err(failure)?.iter().map(sum).collect()
    }

    async fn past(&self, tenant: &str, at: u64) -> Result<Vec<Past>, DbError> {
        let query = sqlx::query(
            "SELECT c.limit_id, c.quota_type, c.window_start, coalesce(sum(q.amount), 0)::int8
             FROM (SELECT DISTINCT tenant_id, limit_id, quota_type, window_start FROM quota_counter
                WHERE tenant_id = $1 AND window_start <= $2 AND window_end > $2) c
             LEFT JOIN quota_consumption q ON q.tenant_id = c.tenant_id AND q.limit_id = c.limit_id
                AND q.quota_type = c.quota_type AND q.window_start = c.window_start AND q.consumed_at <= $2
             GROUP BY c.limit_id, c.quota_type, c.window_start ORDER BY c.limit_id, c.quota_type, c.window_start",
        );
        let past = |row: &PgRow| {
            Ok(Past {
                limit: read(value(row, 0)?).into(),
                kind: read(value(row, 1)?).into(),
                starts: nanos(value::<Time>(row, 2)?.0)?,
                amount: value(row, 3)?,
            })
        };
        let found = query.bind(text(tenant)).bind(Time(micros(at))).fetch_all(&self.pool).await.map_err(failure)?;
        found.iter().map(past).collect()
    }

    async fn drifts(&self, most: usize) -> Result<(u64, Vec<CounterMismatch>), DbError> {
        let compared: i64 =
            sqlx::query_scalar("SELECT count(*) FROM quota_counter").fetch_one(&self.pool).await.map_err(failure)?;
        let sql = format!(
            "SELECT coalesce(c.tenant_id, s.tenant_id), coalesce(c.limit_id, s.limit_id),
                coalesce(c.quota_type, s.quota_type), coalesce(c.window_start, s.window_start), coalesce(c.epoch, s.epoch),
                c.used + c.reserved, coalesce(s.written, 0)
             FROM quota_counter c FULL OUTER JOIN
                ({SHOULD_BE} GROUP BY tenant_id, limit_id, quota_type, window_start, epoch) s
                ON s.tenant_id = c.tenant_id AND s.limit_id = c.limit_id AND s.quota_type = c.quota_type
                    AND s.window_start = c.window_start AND s.epoch = c.epoch
             WHERE (c.tenant_id IS NULL AND s.written <> 0) OR c.used + c.reserved <> coalesce(s.written, 0)
                OR c.reserved <> coalesce(s.held, 0)
             ORDER BY 1, 2, 3, 4, 5 LIMIT $1"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let drift = |row: &PgRow| {
            Ok(CounterMismatch {
                tenant: read(value(row, 0)?).into(),
                limit: read(value(row, 1)?).into(),
                kind: read(value(row, 2)?).into(),
                starts: nanos(value::<Time>(row, 3)?.0)?,
                epoch: natural(value(row, 4)?)?,
                counted: value(row, 5)?,
                written: value(row, 6)?,
            })
        };
        let found = query.fetch_all(&self.pool).await.map_err(failure)?;
        let drifts: Result<Vec<_>, _> = found.iter().map(drift).collect();
        Ok((natural(compared)?, drifts?))
    }

    async fn repair(&self, tenant: &str) -> Result<u64, DbError> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        let mut transaction = connection.begin().await.map_err(failure)?;
        session::lock(&mut transaction, &[text(tenant)]).await?;
        let wrong = put_right(&mut transaction, tenant).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(wrong)
    }

    async fn seal(&self, before: u64) -> Result<u64, DbError> {
        let query = sqlx::query(
            "INSERT INTO quota_archive AS a (only_row, sealed_until) VALUES (true, $1)
             ON CONFLICT (only_row) DO UPDATE SET sealed_until = greatest(a.sealed_until, EXCLUDED.sealed_until)
             RETURNING sealed_until",
        );
        let row = query.bind(Time(micros(before))).fetch_one(&self.pool).await.map_err(failure)?;
        nanos(value::<Time>(&row, 0)?.0)
    }

    async fn sealed(&self) -> Result<u64, DbError> {
        let row = sqlx::query("SELECT sealed_until FROM quota_archive").fetch_optional(&self.pool).await;
        row.map_err(failure)?.map_or(Ok(0), |row| nanos(value::<Time>(&row, 0)?.0))
    }

    async fn archive(&self, tenant: &str, before: u64, command: u128) -> Result<u64, DbError> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        let mut transaction = connection.begin().await.map_err(failure)?;
        session::lock(&mut transaction, &[text(tenant)]).await?;
        sqlx::raw_sql("SET LOCAL tollgate.archives = 'on'").execute(&mut *transaction).await.map_err(failure)?;
        let query = sqlx::query(ARCHIVE).bind(text(tenant)).bind(Time(micros(before))).bind(Digest(command));
        let row = query.fetch_one(&mut *transaction).await.map_err(failure)?;
        let gone: i64 = value(&row, 0)?;
        transaction.commit().await.map_err(failure)?;
        natural(gone)
    }
}

/// Periods that are over, in which nothing is open and nothing was written since, and which are not archived yet: their rows
/// go, and one for each stays, which says what they come to and when the last was written. All parts see the same moment; what
/// is open is looked up once, not for each row.
const ARCHIVE: &str = "
    WITH open AS MATERIALIZED (
        SELECT r.limit_id, r.quota_type, r.window_start, r.epoch FROM quota_hold h, LATERAL (
            SELECT * FROM quota_consumption c
            WHERE c.tenant_id = h.tenant_id AND c.job_id = h.job_id AND c.attempt = h.attempt OFFSET 0) r
        WHERE h.tenant_id = $1),
    sealed AS (
        SELECT q.limit_id, q.quota_type, q.window_start, q.epoch, sum(q.amount)::int8 AS amount,
            max(q.consumed_at) AS consumed_at, row_number() OVER () AS part
        FROM quota_consumption q JOIN quota_counter c USING (tenant_id, limit_id, quota_type, window_start, epoch)
        WHERE q.tenant_id = $1 AND c.window_end <= $2 AND c.reserved = 0 AND q.entry <> 'grant'
            AND (q.limit_id, q.quota_type, q.window_start, q.epoch) NOT IN (SELECT * FROM open)
        GROUP BY q.limit_id, q.quota_type, q.window_start, q.epoch
        HAVING max(q.consumed_at) < $2 AND (count(*) > 1 OR max(q.job_id) NOT LIKE 'archive %' OR max(q.entry) <> 'adjust')),
    gone AS (
        DELETE FROM quota_consumption q USING sealed s
        WHERE q.tenant_id = $1 AND q.limit_id = s.limit_id AND q.quota_type = s.quota_type
            AND q.window_start = s.window_start AND q.epoch = s.epoch AND q.entry <> 'grant' RETURNING 1),
    kept AS (
        INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, window_start, epoch, entry, attempt, part,
            amount, consumed_at, order_id)
        SELECT $1, 'archive ' || replace($3::text, '-', ''), quota_type, limit_id, window_start, epoch, 'adjust', 0, part,
            amount, consumed_at, $3::uuid FROM sealed)
    SELECT count(*) FROM gone";

async fn put_right(connection: &mut PgConnection, tenant: &str) -> Result<u64, DbError> {
    let sql = format!(
        "UPDATE quota_counter SET used = greatest(s.written - s.held, 0), reserved = greatest(s.held, 0)
         FROM (SELECT c.limit_id, c.quota_type, c.window_start, c.epoch, coalesce(s.written, 0) AS written,
                coalesce(s.held, 0) AS held
            FROM quota_counter c LEFT JOIN
                ({SHOULD_BE} AND tenant_id = $1 GROUP BY tenant_id, limit_id, quota_type, window_start, epoch) s
                USING (tenant_id, limit_id, quota_type, window_start, epoch)
            WHERE c.tenant_id = $1) s
         WHERE quota_counter.tenant_id = $1 AND quota_counter.limit_id = s.limit_id
            AND quota_counter.quota_type = s.quota_type AND quota_counter.window_start = s.window_start
            AND quota_counter.epoch = s.epoch
            AND (used <> greatest(s.written - s.held, 0) OR reserved <> greatest(s.held, 0))"
    );
    let done = sqlx::query(AssertSqlSafe(sql)).bind(text(tenant)).execute(&mut *connection).await;
    Ok(done.map_err(failure)?.rows_affected())
}
