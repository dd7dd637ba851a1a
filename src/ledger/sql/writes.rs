//! Statements by which a transaction writes, and the values of their rows.

use std::sync::{Arc, LazyLock};

use super::{
    ChargePath, SqlValue,
    encoding::{instant, number, until},
};
use crate::{
    ledger::{
        DbError,
        writer::{Detail, Key, ReservationRow, Row, StoredCounter, UnfinishedJob, Writes},
    },
    quota::account::GrantState,
};

/// A statement that writes rows of one table. Only the source of the rows differs between the databases.
pub(crate) struct WriteStatement {
    effect: Effect,
    pub(crate) table: &'static str,
    /// Columns that identify a row.
    key: &'static str,
    /// Columns and their types, as PostgreSQL names them.
    pub(crate) columns: Vec<(&'static str, &'static str)>,
}

/// Effect of a statement on the rows with the keys that it is given.
#[derive(Clone, Copy)]
enum Effect {
    Insert,
    /// Inserts rows, and replaces those that are there.
    Put,
    /// Changes the rows that are there.
    Update,
    Delete,
}

/// Number of the statements.
pub(crate) const COUNT: usize = 11;

/// The statements, in the order in which a transaction runs those of one table; no table refers to another. Columns of one type stand together.
pub(crate) static WRITES: LazyLock<[WriteStatement; COUNT]> = LazyLock::new(|| {
    let entries = "tenant_id text, job_id text, quota_type text, limit_id text, period text, entry text, epoch int8, attempt int8, \
        part int8, amount int8, window_start timestamptz, consumed_at timestamptz, order_id uuid, fingerprint uuid, \
        granted int8, until timestamptz, approver text, reason text";
    let counters = "tenant_id text, limit_id text, quota_type text, period text, epoch int8, used int8, reserved int8, \
        window_start timestamptz, window_end timestamptz, warned bool, untold bool";
    let grants = "tenant_id text, limit_id text, quota_type text, period text, approver text, reason text, id int8, amount int8, \
        used_before int8, used_now int8, epoch int8, until timestamptz, window_start timestamptz, ended bool";
    let closed = "tenant_id text, job_id text, attempt int8";
    let renewed = "tenant_id text, job_id text, attempt int8, until timestamptz";
    let opened = "tenant_id text, job_id text, attempt int8, until timestamptz, since timestamptz, charge bool";
    let attempt = "tenant_id, job_id, attempt";
    [
        (Effect::Insert, "quota_consumption", "", entries),
        (Effect::Put, "quota_counter", "tenant_id, limit_id, quota_type, period, window_start, epoch", counters),
        (Effect::Put, "quota_grant", "tenant_id, id", grants),
        (Effect::Put, "quota_hold", attempt, opened),
        (Effect::Update, "quota_hold", attempt, renewed),
        (Effect::Delete, "quota_hold", attempt, closed),
        (Effect::Update, "quota_account", "tenant_id", "tenant_id text, tier text"),
        (Effect::Put, "quota_unfinished_job", attempt, renewed),
        (Effect::Update, "quota_unfinished_job", attempt, renewed),
        (Effect::Delete, "quota_unfinished_job", attempt, closed),
        (Effect::Delete, "quota_account", "tenant_id", "tenant_id text"),
    ]
    .map(|(effect, table, key, columns)| {
        let columns = columns.split(", ").filter_map(|column| column.split_once(' ')).collect();
        WriteStatement { effect, table, key, columns }
    })
});

impl WriteStatement {
    /// Returns the text for these rows: a query whose columns are named `column1` and so on.
    pub(crate) fn sql(&self, rows: &str) -> String {
        let Self { effect, table, key, columns } = self;
        let of_key = |name: &str| key.split(", ").any(|column| column == name);
        // Returns `a = x.column1, b = x.column2` of the columns that are in the key, or of the others.
        let equal = |in_key: bool, separator: &str, value: fn(usize, &str) -> String| {
            let columns = columns.iter().enumerate().filter(|(_, (name, _))| of_key(name) == in_key);
            let equal = columns.map(|(at, (name, _))| format!("{name} = {}", value(at + 1, name)));
            equal.collect::<Vec<_>>().join(separator)
        };
        let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
        let insert = format!("INSERT INTO {table} ({}) {rows}", names.join(", "));
        let given = |at, _: &str| format!("given.column{at}");
        match effect {
            Effect::Insert => insert,
            Effect::Put => {
                let set = equal(false, ", ", |_, name| format!("excluded.{name}"));
                format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {set}")
            }
            Effect::Update => {
                let (set, found) = (equal(false, ", ", given), equal(true, " AND ", given));
                format!("UPDATE {table} SET {set} FROM ({rows}) AS given WHERE {found}")
            }
            Effect::Delete => format!("DELETE FROM {table} WHERE ({key}) IN ({rows})"),
        }
    }
}

/// Writes everything within a transaction; `now` is the time of the entries.
pub(super) async fn write<S: ChargePath>(
    connection: &mut S::Connection,
    writes: &Writes,
    now: u64,
) -> Result<(), DbError> {
    let values = [
        all(&writes.rows, |values, row| entry(values, row, writes.time_of(row, now)))?,
        all(&writes.counts, counter)?,
        all(&writes.grants, grant)?,
        all(&writes.opened, opened)?,
        all(&writes.renewed, renewed)?,
        all(&writes.closed, |values, (key, attempt)| reservation(values, key, *attempt))?,
        all(&writes.tiers, tier)?,
        all(&writes.begun, unfinished)?,
        all(&writes.interrupted, unfinished)?,
        all(&writes.finished, |values, (key, attempt)| reservation(values, key, *attempt))?,
        writes.unused.iter().map(|tenant| SqlValue::Text(tenant)).collect(),
    ];
    S::put(connection, &values).await
}

type Values<'a> = Vec<SqlValue<'a>>;

/// Returns the values of all items, in the order of the statement's columns.
fn all<'a, T>(
    items: &'a [T],
    add: impl Fn(&mut Values<'a>, &'a T) -> Result<(), DbError>,
) -> Result<Values<'a>, DbError> {
    let mut values = Vec::new();
    items.iter().try_for_each(|item| add(&mut values, item)).map(|()| values)
}

fn entry<'a>(values: &mut Values<'a>, row: &'a Row, now: u64) -> Result<(), DbError> {
    let Row { key, kind, limit, period, entry, .. } = row;
    values.extend([&*key.tenant, &key.job, kind, limit, period, entry.as_str()].map(SqlValue::Text));
    values.extend([number(row.epoch)?, row.attempt.into(), row.part.into(), row.amount].map(SqlValue::Number));
    values.extend([SqlValue::Time(instant(row.window)?), SqlValue::time(now), SqlValue::Digest(row.command)]);
    values.push(row.fingerprint.map_or(SqlValue::Null, SqlValue::Digest));
    let Some(Detail { granted, until, approver, reason }) = row.detail.as_deref() else {
        values.extend([SqlValue::Null; 4]);
        return Ok(());
    };
    let until = if *until > 0 { SqlValue::time(*until) } else { SqlValue::Null };
    values.extend([SqlValue::Number(number(*granted)?), until, SqlValue::Text(approver), SqlValue::Text(reason)]);
    Ok(())
}

fn counter<'a>(values: &mut Values<'a>, (tenant, stored): &'a (Arc<str>, StoredCounter)) -> Result<(), DbError> {
    let StoredCounter { limit, kind, period, counter } = stored;
    values.extend([tenant, limit, kind, period].map(|name| SqlValue::Text(name)));
    values.extend([number(counter.epoch)?, number(counter.used)?, number(counter.reserved)?].map(SqlValue::Number));
    values.extend([instant(counter.starts)?, instant(counter.ends)?].map(SqlValue::Time));
    values.extend([counter.warned, counter.warning_pending].map(SqlValue::Flag));
    Ok(())
}

fn grant<'a>(values: &mut Values<'a>, (tenant, grant): &'a (Arc<str>, GrantState)) -> Result<(), DbError> {
    let GrantState { limit, kind, period, approver, reason, .. } = grant;
    values.extend([&**tenant, limit, kind, period, approver, reason].map(SqlValue::Text));
    let numbers = [number(grant.id)?, number(grant.amount)?, number(grant.before)?, number(grant.current)?];
    values.extend(numbers.into_iter().chain([number(grant.epoch)?]).map(SqlValue::Number));
    values.extend([until(grant.until), instant(grant.window)?].map(SqlValue::Time));
    values.push(SqlValue::Flag(grant.ended));
    Ok(())
}

fn tier<'a>(values: &mut Values<'a>, (tenant, tier): &'a (Arc<str>, Arc<str>)) -> Result<(), DbError> {
    values.extend([SqlValue::Text(tenant), if tier.is_empty() { SqlValue::Null } else { SqlValue::Text(tier) }]);
    Ok(())
}

fn unfinished<'a>(values: &mut Values<'a>, job: &'a UnfinishedJob) -> Result<(), DbError> {
    reservation(values, &job.key, job.attempt)?;
    values.push(SqlValue::time(job.until));
    Ok(())
}

fn opened<'a>(values: &mut Values<'a>, hold: &'a ReservationRow) -> Result<(), DbError> {
    renewed(values, hold)?;
    values.extend([SqlValue::time(hold.since), SqlValue::Flag(hold.charge)]);
    Ok(())
}

fn renewed<'a>(values: &mut Values<'a>, hold: &'a ReservationRow) -> Result<(), DbError> {
    reservation(values, &hold.key, hold.attempt)?;
    values.push(SqlValue::time(hold.until));
    Ok(())
}

fn reservation<'a>(values: &mut Values<'a>, key: &'a Key, attempt: u32) -> Result<(), DbError> {
    values.extend([SqlValue::Text(&key.tenant), SqlValue::Text(&key.job), SqlValue::Number(attempt.into())]);
    Ok(())
}
