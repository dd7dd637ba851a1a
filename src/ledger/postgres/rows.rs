//! What an account and its jobs say, read in one statement.

use std::sync::Arc;

use sqlx::{Decode, PgExecutor, Postgres, Row as _, postgres::PgRow};

use super::{
    failure::failure,
    values::{Digest, Time},
};
use crate::{
    ledger::{
        DbError,
        columns::{nanos, natural, read, text, time, until},
        writer::{Detail, EntryKind, Key, Loaded, ReservationRow, Row},
    },
    quota::account::{GrantState, StoredCounter},
};

/// The clock, counts, grants and rows, told apart by the first column: one statement sees one moment. Each account and job is
/// looked up by itself (`OFFSET 0` keeps it so): the number of rows in the tables never changes the plan.
const READ: &str = "
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now),
    accounts AS (SELECT t FROM unnest($1::text[]) AS asked (t)),
    jobs AS (SELECT t, j FROM unnest($3::text[], $4::text[]) AS asked (t, j))
    SELECT 0::int8 AS what, NULL::text AS tenant, current_setting('synchronous_commit') AS limit_id, NULL::text AS quota_type,
        now AS starts, (SELECT sealed_until FROM quota_archive) AS ends, NULL::int8 AS epoch, NULL::int8 AS n1, NULL::int8 AS n2, NULL::int8 AS n3,
        NULL::int8 AS n4, NULL::text AS s1, NULL::text AS s2, NULL::bool AS b1, NULL::bool AS b2, NULL::text AS job,
        NULL::text AS entry, NULL::uuid AS order_id, NULL::uuid AS fingerprint, NULL::int8 AS id
    FROM clock
    UNION ALL
    SELECT 1, t, c.limit_id, c.quota_type, c.window_start, c.window_end, c.epoch, c.used, c.reserved, NULL, NULL, NULL, NULL,
        c.warned, c.untold, NULL, NULL, NULL, NULL, NULL
    FROM accounts, clock, LATERAL (
        SELECT * FROM quota_counter WHERE tenant_id = t AND window_end > least(now, $2::timestamptz) OFFSET 0) c
    UNION ALL
    SELECT 2, t, g.limit_id, g.quota_type, g.window_start, g.until, g.epoch, g.id, g.amount, g.used_before, g.used_now,
        g.approver, g.reason, g.ended, NULL, NULL, NULL, NULL, NULL, NULL
    FROM accounts, LATERAL (
        SELECT * FROM quota_grant WHERE tenant_id = t AND (NOT ended OR used_now > 0) OFFSET 0) g
    UNION ALL
    SELECT 3, t, q.limit_id, q.quota_type, q.window_start, q.until, q.epoch, q.attempt, q.part, q.amount, q.granted,
        q.approver, q.reason, NULL, NULL, j, q.entry, q.order_id, q.fingerprint, q.id
    FROM jobs, LATERAL (
        SELECT * FROM quota_consumption WHERE tenant_id = t AND job_id = j OFFSET 0) q";

pub(super) const STATEMENTS: [&str; 1] = [READ];

/// Reads accounts and jobs.
pub(super) async fn load(
    connection: impl PgExecutor<'_>,
    tenants: &[Arc<str>],
    jobs: &[Key],
    since: Option<u64>,
) -> Result<Loaded, DbError> {
    let asked = sqlx::query(READ)
        .bind(tenants.iter().map(|tenant| text(tenant)).collect::<Vec<_>>())
        .bind(Time(since.map_or(i64::MAX, until)))
        .bind(jobs.iter().map(|key| text(&key.tenant)).collect::<Vec<_>>())
        .bind(jobs.iter().map(|key| text(&key.job)).collect::<Vec<_>>());
    let accounts = tenants.iter().map(|tenant| (tenant.clone(), Default::default())).collect();
    let mut loaded = Loaded { accounts, ..Loaded::default() };
    let mut found = Vec::new();
    for row in asked.fetch_all(connection).await.map_err(failure)? {
        take(&row, &mut loaded, &mut found)?;
    }
    found.sort_unstable_by_key(|(id, _)| *id);
    found.dedup_by_key(|(id, _)| *id);
    loaded.rows = found.into_iter().map(|(_, row)| row).collect();
    Ok(loaded)
}

fn take(row: &PgRow, loaded: &mut Loaded, found: &mut Vec<(i64, Row)>) -> Result<(), DbError> {
    let tenant = || Ok::<Arc<str>, DbError>(read(value(row, 1)?).into());
    let (limit, starts) = (value::<&str>(row, 2)?, value::<Time>(row, 4)?.0);
    let kind = || Ok::<Arc<str>, DbError>(read(value(row, 3)?).into());
    let ends = || Ok::<_, DbError>(time(value::<Time>(row, 5)?.0));
    let epoch = || natural(value(row, 6)?);
    let number = |at| natural(value(row, at)?);
    match value::<i64>(row, 0)? {
        0 if limit == "off" => return Err(DbError::Refused(super::checks::FORGETS.into())),
        0 => {
            loaded.now = nanos(starts)?;
            loaded.sealed = value::<Option<Time>>(row, 5)?.map_or(0, |at| time(at.0));
        }
        1 => loaded.accounts.entry(tenant()?).or_default().counts.push(StoredCounter {
            limit: read(limit).into(),
            kind: kind()?,
            starts: time(starts),
            ends: ends()?,
            epoch: epoch()?,
            used: number(7)?,
            reserved: number(8)?,
            warned: value(row, 13)?,
            warning_pending: value(row, 14)?,
        }),
        2 => loaded.accounts.entry(tenant()?).or_default().grants.push(GrantState {
            id: number(7)?,
            limit: read(limit).into(),
            kind: kind()?,
            amount: number(8)?,
            until: ends()?,
            approver: read(value(row, 11)?).into_owned(),
            reason: read(value(row, 12)?).into_owned(),
            before: number(9)?,
            current: number(10)?,
            window: time(starts),
            epoch: epoch()?,
            ended: value(row, 13)?,
        }),
        _ => found.push(consumption(row)?),
    }
    Ok(())
}

/// A row of the ledger, and its id.
pub(super) fn consumption(row: &PgRow) -> Result<(i64, Row), DbError> {
    let entry = {
        let word: &str = value(row, 16)?;
        EntryKind::parse(word).ok_or_else(|| DbError::Rejected(format!("unknown entry in the ledger: {word}")))?
    };
    let written = Row {
        key: Key { tenant: read(value(row, 1)?).into(), job: read(value(row, 15)?).into() },
        attempt: natural(value(row, 7)?)?,
        part: natural(value(row, 8)?)?,
        entry,
        kind: read(value(row, 3)?).into(),
        limit: read(value(row, 2)?).into(),
        window: time(value::<Time>(row, 4)?.0),
        epoch: natural(value(row, 6)?)?,
        amount: value(row, 9)?,
        command: value::<Digest>(row, 17)?.0,
        fingerprint: value::<Option<Digest>>(row, 18)?.map(|digest| digest.0),
        detail: detail(row)?,
    };
    Ok((value(row, 19)?, written))
}

fn detail(row: &PgRow) -> Result<Option<Box<Detail>>, DbError> {
    let Some(granted) = value::<Option<i64>>(row, 10)? else { return Ok(None) };
    let until = value::<Option<Time>>(row, 5)?.map_or(0, |at| time(at.0));
    let text = |at| Ok::<_, DbError>(read(value::<Option<&str>>(row, at)?.unwrap_or_default()).into_owned());
    Ok(Some(Box::new(Detail { granted: natural(granted)?, until, approver: text(11)?, reason: text(12)? })))
}

pub(super) fn hold(row: &PgRow) -> Result<ReservationRow, DbError> {
    Ok(ReservationRow {
        key: Key { tenant: read(value(row, 0)?).into(), job: read(value(row, 1)?).into() },
        attempt: natural(value(row, 2)?)?,
        until: time(value::<Time>(row, 3)?.0),
        since: time(value::<Time>(row, 4)?.0),
        charge: value(row, 5)?,
    })
}

pub(super) fn tenant(row: &PgRow) -> Result<Arc<str>, DbError> {
    Ok(read(value(row, 0)?).into())
}

/// The types are those of our own statements.
pub(super) fn value<'r, T: Decode<'r, Postgres>>(row: &'r PgRow, at: usize) -> Result<T, DbError> {
    row.try_get_unchecked(at).map_err(failure)
}
