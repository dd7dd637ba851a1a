//! What people read of the file.

use sqlx::{Row as _, SqliteConnection};

use super::{SqliteLedger, failure::failure, rows};
use crate::ledger::{
    DbError,
    billed::BILLED,
    columns::{nanos, natural, read, text, until as micros},
    database::{Audited, CounterMismatch, Past, Sum},
    writer::Row,
};

/// What each count should be, from its rows: `written` is what they come to, `held` what of it is set aside and not settled.
const SHOULD_BE: &str = "
    SELECT tenant_id, limit_id, quota_type, window_start, epoch, sum(amount) AS written,
        coalesce(sum(amount) FILTER (WHERE entry = 'reserve' AND NOT EXISTS (
            SELECT 1 FROM quota_consumption s INDEXED BY quota_consumption_once
            WHERE s.tenant_id = q.tenant_id AND s.job_id = q.job_id AND s.attempt = q.attempt
                AND s.entry IN ('commit', 'void', 'expire'))), 0) AS held
    FROM quota_consumption q WHERE limit_id <> ''";

impl Audited for SqliteLedger {
    async fn entries(
        &self,
        tenant: &str,
        from: u64,
        until: u64,
        after: i64,
        most: usize,
    ) -> Result<Vec<(i64, u64, Row)>, DbError> {
        let query = sqlx::query(
            "SELECT id, tenant_id, job_id, quota_type, limit_id, window_start, epoch, entry, attempt, part, amount, order_id,
                fingerprint, granted, until, approver, reason, consumed_at
             FROM quota_consumption INDEXED BY quota_consumption_by_time
             WHERE tenant_id = ?1 AND consumed_at >= ?2 AND consumed_at < ?3 AND (consumed_at > ?2 OR id > ?4)
             ORDER BY consumed_at, id LIMIT ?5",
        );
        let query = query.bind(text(tenant)).bind(micros(from)).bind(micros(until)).bind(after);
        let found = query.bind(i64::try_from(most).unwrap_or(i64::MAX)).fetch_all(&self.pool).await.map_err(failure)?;
        let entry = |row| {
            let (id, entry) = rows::consumption(row)?;
            Ok((id, nanos(row.try_get("consumed_at").map_err(failure)?)?, entry))
        };
        found.iter().map(entry).collect()
    }

    async fn sums(&self, tenant: &str, from: u64, until: u64) -> Result<Vec<Sum>, DbError> {
        let query = sqlx::query(BILLED);
        let query = query.bind(text(tenant)).bind(micros(from)).bind(micros(until));
        let sum = |row: &sqlx::sqlite::SqliteRow| {
            let (high, low): (i64, i64) = (row.try_get(1).map_err(failure)?, row.try_get(2).map_err(failure)?);
            Ok(Sum {
                kind: read(row.try_get(0).map_err(failure)?).into(),
                amount: (i128::from(high) << 32) + i128::from(low),
            })
        };
        query.fetch_all(&self.pool).await.map_err(failure)?.iter().map(sum).collect()
    }

    async fn past(&self, tenant: &str, at: u64) -> Result<Vec<Past>, DbError> {
        let query = sqlx::query(
            "SELECT c.limit_id, c.quota_type, c.window_start, coalesce(sum(q.amount), 0)
             FROM quota_counter c LEFT JOIN quota_consumption q ON q.tenant_id = c.tenant_id AND q.limit_id = c.limit_id
                AND q.quota_type = c.quota_type AND q.window_start = c.window_start AND q.consumed_at <= ?2
             WHERE c.tenant_id = ?1 AND c.window_start <= ?2 AND c.window_end > ?2 AND c.epoch =
                (SELECT min(e.epoch) FROM quota_counter e WHERE e.tenant_id = c.tenant_id AND e.limit_id = c.limit_id
                    AND e.quota_type = c.quota_type AND e.window_start = c.window_start)
             GROUP BY c.limit_id, c.quota_type, c.window_start ORDER BY c.limit_id, c.quota_type, c.window_start",
        );
        let past = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Past {
                limit: read(row.try_get(0).map_err(failure)?).into(),
                kind: read(row.try_get(1).map_err(failure)?).into(),
                starts: nanos(row.try_get(2).map_err(failure)?)?,
                amount: row.try_get(3).map_err(failure)?,
            })
        };
        let found = query.bind(text(tenant)).bind(micros(at)).fetch_all(&self.pool).await.map_err(failure)?;
        found.iter().map(past).collect()
    }

    async fn drifts(&self, most: usize) -> Result<(u64, Vec<CounterMismatch>), DbError> {
        let mut transaction = self.reading().await?;
        let compared: i64 = sqlx::query_scalar("SELECT count(*) FROM quota_counter")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failure)?;
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
             ORDER BY 1, 2, 3, 4, 5 LIMIT ?"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let drift = |row: &sqlx::sqlite::SqliteRow| {
            Ok(CounterMismatch {
                tenant: read(row.try_get(0).map_err(failure)?).into(),
                limit: read(row.try_get(1).map_err(failure)?).into(),
                kind: read(row.try_get(2).map_err(failure)?).into(),
                starts: nanos(row.try_get(3).map_err(failure)?)?,
                epoch: natural(row.try_get(4).map_err(failure)?)?,
                counted: row.try_get(5).map_err(failure)?,
                written: row.try_get(6).map_err(failure)?,
            })
        };
        let found = query.fetch_all(&mut *transaction).await.map_err(failure)?;
        let drifts: Result<Vec<_>, _> = found.iter().map(drift).collect();
        Ok((natural(compared)?, drifts?))
    }

    async fn repair(&self, tenant: &str) -> Result<u64, DbError> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        let mut transaction =
            sqlx::Connection::begin_with(&mut *connection, "BEGIN IMMEDIATE").await.map_err(failure)?;
        let wrong = put_right(&mut transaction, tenant).await?;
        transaction.commit().await.map_err(failure)?;
        Ok(wrong)
    }

    async fn seal(&self, before: u64) -> Result<u64, DbError> {
        let query = sqlx::query_scalar(
            "INSERT INTO quota_archive (only_row, sealed_until) VALUES (1, ?1)
             ON CONFLICT (only_row) DO UPDATE SET sealed_until = max(sealed_until, excluded.sealed_until)
             RETURNING sealed_until",
        );
        nanos(query.bind(micros(before)).fetch_one(&self.pool).await.map_err(failure)?)
    }

    async fn sealed(&self) -> Result<u64, DbError> {
        let sealed: Option<i64> = sqlx::query_scalar("SELECT sealed_until FROM quota_archive")
            .fetch_optional(&self.pool)
            .await
            .map_err(failure)?;
        sealed.map_or(Ok(0), nanos)
    }

    async fn archive(&self, tenant: &str, before: u64, command: u128) -> Result<u64, DbError> {
        let mut connection = self.pool.acquire().await.map_err(failure)?;
        let mut transaction =
            sqlx::Connection::begin_with(&mut *connection, "BEGIN IMMEDIATE").await.map_err(failure)?;
        // The trigger goes and comes back within the transaction, which nobody else can look into.
        let kept: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = 'quota_consumption_kept'")
            .fetch_one(&mut *transaction)
            .await
            .map_err(failure)?;
        sqlx::raw_sql("DROP TRIGGER quota_consumption_kept").execute(&mut *transaction).await.map_err(failure)?;
        let found = sqlx::query(SEALABLE).bind(text(tenant)).bind(micros(before)).fetch_all(&mut *transaction).await;
        let mut gone = 0;
        for (part, window) in (0_i64..).zip(found.map_err(failure)?) {
            let column = |at| window.try_get::<String, _>(at).map_err(failure);
            let number = |at| window.try_get::<i64, _>(at).map_err(failure);
            let (limit, kind, starts, epoch) = (column(0)?, column(1)?, number(2)?, number(3)?);
            // First of all, for SQLite gives a number again once the row that has the highest is gone.
            let insert = sqlx::query(
                "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, window_start, epoch, entry, attempt,
                    part, amount, consumed_at, order_id)
                 VALUES (?1, 'archive ' || lower(hex(?9)), ?3, ?2, ?4, ?5, 'adjust', 0, ?6, ?7, ?8, ?9)",
            );
            let insert = insert.bind(text(tenant)).bind(&limit).bind(&kind).bind(starts).bind(epoch).bind(part);
            let insert = insert.bind(number(4)?).bind(number(5)?).bind(command.to_be_bytes().to_vec());
            insert.execute(&mut *transaction).await.map_err(failure)?;
            let delete = sqlx::query(
                "DELETE FROM quota_consumption WHERE tenant_id = ?1 AND limit_id = ?2 AND quota_type = ?3
                    AND window_start = ?4 AND epoch = ?5 AND entry <> 'grant' AND order_id <> ?6
                    AND consumed_at BETWEEN ?7 AND ?8",
            );
            let delete = delete.bind(text(tenant)).bind(&limit).bind(&kind).bind(starts).bind(epoch);
            let delete = delete.bind(command.to_be_bytes().to_vec()).bind(number(6)?).bind(number(5)?);
            gone += delete.execute(&mut *transaction).await.map_err(failure)?.rows_affected();
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(kept)).execute(&mut *transaction).await.map_err(failure)?;
        transaction.commit().await.map_err(failure)?;
        Ok(gone)
    }
}

/// Periods that are over, in which nothing is open and nothing was written since, and which are not archived yet; what their
/// rows come to, and when the last and the first were written. What is open is looked up once, not for each row.
const SEALABLE: &str = "
    SELECT q.limit_id, q.quota_type, q.window_start, q.epoch, sum(q.amount), max(q.consumed_at), min(q.consumed_at)
    FROM quota_consumption q JOIN quota_counter c USING (tenant_id, limit_id, quota_type, window_start, epoch)
    WHERE q.tenant_id = ?1 AND c.window_end <= ?2 AND c.reserved = 0 AND q.entry <> 'grant'
        AND (q.limit_id, q.quota_type, q.window_start, q.epoch) NOT IN (
            SELECT r.limit_id, r.quota_type, r.window_start, r.epoch
            FROM quota_hold h CROSS JOIN quota_consumption r INDEXED BY quota_consumption_once
                USING (tenant_id, job_id, attempt) WHERE h.tenant_id = ?1)
    GROUP BY q.limit_id, q.quota_type, q.window_start, q.epoch
    HAVING max(q.consumed_at) < ?2 AND (count(*) > 1 OR max(q.job_id) NOT LIKE 'archive %' OR max(q.entry) <> 'adjust')";

async fn put_right(connection: &mut SqliteConnection, tenant: &str) -> Result<u64, DbError> {
    let sql = format!(
        "UPDATE quota_counter SET used = max(s.written - s.held, 0), reserved = max(s.held, 0)
         FROM (SELECT c.limit_id, c.quota_type, c.window_start, c.epoch, coalesce(s.written, 0) AS written,
                coalesce(s.held, 0) AS held
            FROM quota_counter c LEFT JOIN
                ({SHOULD_BE} AND tenant_id = ?1 GROUP BY tenant_id, limit_id, quota_type, window_start, epoch) s
                USING (tenant_id, limit_id, quota_type, window_start, epoch)
            WHERE c.tenant_id = ?1) s
         WHERE quota_counter.tenant_id = ?1 AND quota_counter.limit_id = s.limit_id
            AND quota_counter.quota_type = s.quota_type AND quota_counter.window_start = s.window_start
            AND quota_counter.epoch = s.epoch AND (used <> max(s.written - s.held, 0) OR reserved <> max(s.held, 0))"
    );
    let done = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(text(tenant)).execute(&mut *connection).await;
    Ok(done.map_err(failure)?.rows_affected())
}
