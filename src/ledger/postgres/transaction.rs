//! Charge path: transactions of the writer on one connection.

use std::{borrow::Cow, sync::Arc};

use sqlx::{PgConnection, Postgres, SqlSafeStr};

use super::{
    PostgresQuery, read,
    values::{Time, Uuid},
};
use crate::ledger::{
    DbError,
    sql::{
        ChargePath, SqlDialect, db_error,
        encoding::{instant, number, text, until},
        in_order,
    },
    writer::{Key, Loaded, Reads, ReservationRow, Row, StoredCounter, Writes},
};

/// The wait for an account that another transaction holds is shorter than that of callers, so that other accounts are
/// served in time. All settings end with the transaction, because a pooler may give the connection to another client. A
/// process that stops in mid-transaction holds an account for at most 10 s. Sequential scans are off: a plan made for
/// small tables outlives their size.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = '500ms'; \
    SET LOCAL statement_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '10s'; \
    SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; \
    SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off";

/// A time-out that strikes while a commit waits for its replica would end the wait, but not the commit.
const COMMIT: &str = "SET LOCAL statement_timeout = 0; COMMIT";

/// Creates missing accounts and locks the others in their order, in one statement; `WHERE false` locks without a new
/// row version.
const LOCK: &str = "INSERT INTO quota_account (tenant_id) SELECT t FROM unnest($1::text[]) WITH ORDINALITY AS asked (t, n) \
    ORDER BY n ON CONFLICT (tenant_id) DO UPDATE SET tenant_id = EXCLUDED.tenant_id WHERE false";

const INSERT_ROWS: &str = "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, entry, \
    attempt, part, amount, consumed_at, order_id, fingerprint) \
    SELECT a, b, c, d, p, e, f, g, h, i, j, $12, k, l FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], \
    $6::timestamptz[], $7::int8[], $8::text[], $9::int8[], $10::int8[], $11::int8[], $13::uuid[], $14::uuid[]) \
    AS given (a, b, c, d, p, e, f, g, h, i, j, k, l)";

const INSERT_DETAILED: &str = "INSERT INTO quota_consumption (tenant_id, job_id, quota_type, limit_id, period, window_start, epoch, \
    entry, attempt, part, amount, consumed_at, order_id, fingerprint, granted, until, approver, reason) \
    SELECT a, b, c, d, p, e, f, g, h, i, j, $12, k, l, m, n, o, r FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], \
    $5::text[], $6::timestamptz[], $7::int8[], $8::text[], $9::int8[], $10::int8[], $11::int8[], $13::uuid[], $14::uuid[], \
    $15::int8[], $16::timestamptz[], $17::text[], $18::text[]) AS given (a, b, c, d, p, e, f, g, h, i, j, k, l, m, n, o, r)";

const PUT_COUNTS: &str = "INSERT INTO quota_counter (tenant_id, limit_id, quota_type, period, window_start, epoch, window_end, used, \
    reserved, warned, untold) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::int8[], $7::timestamptz[], \
    $8::int8[], $9::int8[], $10::bool[], $11::bool[]) \
    ON CONFLICT (tenant_id, limit_id, quota_type, period, window_start, epoch) DO UPDATE SET window_end = EXCLUDED.window_end, \
    used = EXCLUDED.used, reserved = EXCLUDED.reserved, warned = EXCLUDED.warned, untold = EXCLUDED.untold";

const PUT_GRANTS: &str = "INSERT INTO quota_grant (tenant_id, id, limit_id, quota_type, period, amount, until, approver, reason, \
    used_before, used_now, window_start, epoch, ended) \
    SELECT * FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[], $5::text[], $6::int8[], $7::timestamptz[], $8::text[], \
    $9::text[], $10::int8[], $11::int8[], $12::timestamptz[], $13::int8[], $14::bool[]) \
    ON CONFLICT (tenant_id, id) DO UPDATE SET amount = EXCLUDED.amount, until = EXCLUDED.until, \
    approver = EXCLUDED.approver, reason = EXCLUDED.reason, used_before = EXCLUDED.used_before, \
    used_now = EXCLUDED.used_now, window_start = EXCLUDED.window_start, epoch = EXCLUDED.epoch, ended = EXCLUDED.ended";

const OPEN_HOLDS: &str = "INSERT INTO quota_hold (tenant_id, job_id, attempt, until, since, charge) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::int8[], $4::timestamptz[], $5::timestamptz[], $6::bool[]) \
    ON CONFLICT (tenant_id, job_id, attempt) DO UPDATE SET until = EXCLUDED.until, since = EXCLUDED.since, \
    charge = EXCLUDED.charge";

const RENEW_HOLDS: &str = "UPDATE quota_hold h SET until = given.u \
    FROM unnest($1::text[], $2::text[], $3::int8[], $4::timestamptz[]) AS given (t, j, a, u) \
    WHERE h.tenant_id = given.t AND h.job_id = given.j AND h.attempt = given.a";

const CLOSE_HOLDS: &str = "DELETE FROM quota_hold h USING unnest($1::text[], $2::text[], $3::int8[]) AS given (t, j, a) \
    WHERE h.tenant_id = given.t AND h.job_id = given.j AND h.attempt = given.a";

pub(super) const STATEMENTS: [&str; 8] =
    [LOCK, INSERT_ROWS, INSERT_DETAILED, PUT_COUNTS, PUT_GRANTS, OPEN_HOLDS, RENEW_HOLDS, CLOSE_HOLDS];

impl ChargePath for Postgres {
    async fn tune(_: &mut PgConnection) -> Result<(), DbError> {
        Ok(())
    }

    async fn read(connection: &mut PgConnection, tenants: &[Arc<str>], jobs: &[Key]) -> Result<Loaded, DbError> {
        read::load(connection, tenants, jobs, None).await
    }

    async fn lock(connection: &mut PgConnection, tenant: &str) -> Result<(), DbError> {
        lock(connection, &[text(tenant)]).await
    }

    async fn begin(connection: &mut PgConnection, reads: &Reads) -> Result<Loaded, DbError> {
        Self::run(connection, BEGIN.into_sql_str()).await?;
        let tenants = in_order(&reads.tenants);
        let names: Vec<_> = tenants.iter().map(|tenant| text(tenant)).collect();
        lock(connection, &names).await?;
        read::load(connection, &tenants, &reads.jobs, reads.since).await
    }

    async fn write(connection: &mut PgConnection, writes: &Writes, now: u64) -> Result<(), DbError> {
        let mut queries = Vec::new();
        if !writes.rows.is_empty() {
            queries.push(insert_rows(&writes.rows, now)?);
        }
        if !writes.counts.is_empty() {
            queries.push(put_counts(writes)?);
        }
        if !writes.grants.is_empty() {
            queries.push(put_grants(writes)?);
        }
        if !writes.opened.is_empty() {
            let query = held(OPEN_HOLDS, &writes.opened).bind(all(&writes.opened, |hold| Time(until(hold.since))));
            queries.push(query.bind(all(&writes.opened, |hold| hold.charge)));
        }
        if !writes.renewed.is_empty() {
            queries.push(held(RENEW_HOLDS, &writes.renewed));
        }
        if !writes.closed.is_empty() {
            let closed = writes.closed.iter().map(|(key, attempt)| (key, *attempt));
            queries.push(keyed(sqlx::query(CLOSE_HOLDS), closed));
        }
        for query in queries {
            query.execute(&mut *connection).await.map_err(db_error::<Self>)?;
        }
        Ok(())
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

/// Locks accounts whose names are in order, and creates missing ones.
async fn lock(connection: &mut PgConnection, names: &[Cow<'_, str>]) -> Result<(), DbError> {
    sqlx::query(LOCK).bind(names).execute(connection).await.map_err(db_error::<Postgres>).map(|_| ())
}

fn insert_rows(rows: &[Row], now: u64) -> Result<PostgresQuery, DbError> {
    let detailed = rows.iter().any(|row| row.detail.is_some());
    let query = sqlx::query(if detailed { INSERT_DETAILED } else { INSERT_ROWS })
        .bind(all(rows, |row| text(&row.key.tenant)))
        .bind(all(rows, |row| text(&row.key.job)))
        .bind(all(rows, |row| text(&row.kind)))
        .bind(all(rows, |row| text(&row.limit)))
        .bind(all(rows, |row| text(&row.period)))
        .bind(try_all(rows, |row| instant(row.window).map(Time))?)
        .bind(try_all(rows, |row| number(row.epoch))?)
        .bind(all(rows, |row| row.entry.as_str()))
        .bind(all(rows, |row| i64::from(row.attempt)))
        .bind(all(rows, |row| i64::from(row.part)))
        .bind(all(rows, |row| row.amount))
        .bind(Time(until(now)))
        .bind(all(rows, |row| Uuid(row.command)))
        .bind(all(rows, |row| row.fingerprint.map(Uuid)));
    if !detailed {
        return Ok(query);
    }
    let details: Vec<_> = rows.iter().map(|row| row.detail.as_deref()).collect();
    let ends = |until_: u64| (until_ > 0).then(|| Time(until(until_)));
    Ok(query
        .bind(try_all(&details, |detail| detail.map(|detail| number(detail.granted)).transpose())?)
        .bind(all(&details, |detail| detail.and_then(|detail| ends(detail.until))))
        .bind(all(&details, |detail| detail.map(|detail| text(&detail.approver))))
        .bind(all(&details, |detail| detail.map(|detail| text(&detail.reason)))))
}

fn put_counts(writes: &Writes) -> Result<PostgresQuery, DbError> {
    let counts: Vec<&StoredCounter> = writes.counts.iter().map(|(_, count)| count).collect();
    Ok(sqlx::query(PUT_COUNTS)
        .bind(all(&writes.counts, |(tenant, _)| text(tenant)))
        .bind(all(&counts, |count| text(&count.limit)))
        .bind(all(&counts, |count| text(&count.kind)))
        .bind(all(&counts, |count| text(&count.period)))
        .bind(try_all(&counts, |count| instant(count.counter.starts).map(Time))?)
        .bind(try_all(&counts, |count| number(count.counter.epoch))?)
        .bind(try_all(&counts, |count| instant(count.counter.ends).map(Time))?)
        .bind(try_all(&counts, |count| number(count.counter.used))?)
        .bind(try_all(&counts, |count| number(count.counter.reserved))?)
        .bind(all(&counts, |count| count.counter.warned))
        .bind(all(&counts, |count| count.counter.warning_pending)))
}

fn put_grants(writes: &Writes) -> Result<PostgresQuery, DbError> {
    let grants: Vec<_> = writes.grants.iter().map(|(_, grant)| grant).collect();
    Ok(sqlx::query(PUT_GRANTS)
        .bind(all(&writes.grants, |(tenant, _)| text(tenant)))
        .bind(try_all(&grants, |grant| number(grant.id))?)
        .bind(all(&grants, |grant| text(&grant.limit)))
        .bind(all(&grants, |grant| text(&grant.kind)))
        .bind(all(&grants, |grant| text(&grant.period)))
        .bind(try_all(&grants, |grant| number(grant.amount))?)
        .bind(all(&grants, |grant| Time(until(grant.until))))
        .bind(all(&grants, |grant| text(&grant.approver)))
        .bind(all(&grants, |grant| text(&grant.reason)))
        .bind(try_all(&grants, |grant| number(grant.before))?)
        .bind(try_all(&grants, |grant| number(grant.current))?)
        .bind(try_all(&grants, |grant| instant(grant.window).map(Time))?)
        .bind(try_all(&grants, |grant| number(grant.epoch))?)
        .bind(all(&grants, |grant| grant.ended)))
}

fn keyed<'a>(query: PostgresQuery, keys: impl Iterator<Item = (&'a Key, u32)> + Clone) -> PostgresQuery {
    query
        .bind(keys.clone().map(|(key, _)| text(&key.tenant)).collect::<Vec<Cow<'_, str>>>())
        .bind(keys.clone().map(|(key, _)| text(&key.job)).collect::<Vec<Cow<'_, str>>>())
        .bind(keys.map(|(_, attempt)| i64::from(attempt)).collect::<Vec<_>>())
}

fn held(statement: &'static str, holds: &[ReservationRow]) -> PostgresQuery {
    let query = keyed(sqlx::query(statement), holds.iter().map(|hold| (&hold.key, hold.attempt)));
    query.bind(all(holds, |hold| Time(until(hold.until))))
}

/// Returns one column of all items.
fn all<'a, T, U>(items: &'a [T], of: impl Fn(&'a T) -> U) -> Vec<U> {
    items.iter().map(of).collect()
}

fn try_all<'a, T, U>(items: &'a [T], of: impl Fn(&'a T) -> Result<U, DbError>) -> Result<Vec<U>, DbError> {
    items.iter().map(of).collect()
}
