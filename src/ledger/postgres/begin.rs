//! Begins a transaction, locks its accounts and reads them, in one round trip.
//!
//! Several statements in one message cannot have values of their own, so that the values are literals in the text of a
//! call. Names are hexadecimal digits there, which no setting of the server reads as anything else.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use sqlx::{Executor as _, PgConnection, Postgres};

use super::read::{WHAT, decode};
use crate::ledger::{
    DbError,
    sql::{
        ReadRows, SqlDialect, db_error,
        encoding::{self, text, until},
        safe,
    },
    writer::{Loaded, Reads},
};

/// Query for what the function returns, whose times are the hexadecimal digits of their bytes.
const COLUMNS: &str = "SELECT tenant, limit_id, quota_type, period, encode(timestamptz_send(starts), 'hex'), \
    encode(timestamptz_send(ends), 'hex'), epoch, n1, n2, b1, b2, n3, n4, s1, s2, job, entry, order_id, fingerprint, id, what \
    FROM quota_begin";

/// A call with the function's parameters, by which a missing function is found.
pub(super) const CALL: &str = "SELECT tenant, limit_id, quota_type, period, starts, ends, epoch, n1, n2, b1, b2, n3, n4, s1, s2, \
    job, entry, order_id, fingerprint, id, what FROM quota_begin($1, $2, $3, $4, $5, $6)";

/// Value of [`WHAT`] in the row of an account that is locked.
const LOCKED: i64 = 6;
/// Column of whether the transaction has created the account.
const CREATED: usize = 9;

/// Returns the call for these accounts, whose names are in order.
pub(super) fn call(tenants: &[Arc<str>], reads: &Reads, at: Option<i64>, locks: &str) -> String {
    let since = |tenant| reads.since.get(tenant).map(|since| until(*since)).filter(|since| *since < i64::MAX);
    format!(
        "{COLUMNS}({}, {}, {}, {}, {}, '{locks}')",
        names(tenants.iter().map(|tenant| &**tenant)),
        times(tenants.iter().map(since)),
        names(reads.jobs.iter().map(|key| &*key.tenant)),
        names(reads.jobs.iter().map(|key| &*key.job)),
        at.map_or_else(|| "NULL".into(), Postgres::time),
    )
}

/// Returns an array of texts. Its elements are quoted and hexadecimal.
fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut sql = String::from("convert_from(decode('");
    let mut digits =
        |byte: u8| sql.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[digit as usize])));
    digits(b'{');
    for (at, name) in names.enumerate() {
        if at > 0 {
            digits(b',');
        }
        digits(b'"');
        for byte in text(name).bytes() {
            if matches!(byte, b'"' | b'\\') {
                digits(b'\\');
            }
            digits(byte);
        }
        digits(b'"');
    }
    digits(b'}');
    sql.push_str("', 'hex'), 'UTF8')::text[]");
    sql
}

/// Returns an array of times, `infinity` for none.
fn times(times: impl ExactSizeIterator<Item = Option<i64>> + Clone) -> String {
    if times.clone().all(|time| time.is_none()) {
        return format!("array_fill(timestamptz 'infinity', ARRAY[{}])", times.len());
    }
    let mut sql = String::from("ARRAY[");
    for (at, time) in times.enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        let time = time.map_or_else(|| "timestamptz 'infinity'".into(), Postgres::time);
        let _ = write!(sql, "{comma}{time}");
    }
    sql.push(']');
    sql
}

/// Runs statements that end with a call; `skips` if it skips accounts that other transactions hold.
pub(super) async fn run(
    connection: &mut PgConnection,
    sql: String,
    tenants: &[Arc<str>],
    skips: bool,
) -> Result<Loaded, DbError> {
    let rows = connection.fetch_all(sqlx::raw_sql(safe(sql))).await.map_err(db_error::<Postgres>)?;
    let (mut locked, mut others) = (HashMap::new(), Vec::with_capacity(rows.len()));
    for row in &rows {
        if Postgres::number(row, WHAT)? == Some(LOCKED) {
            let tenant = Postgres::text(row, 0)?.unwrap_or_default();
            locked.insert(encoding::read(tenant), Postgres::flag(row, CREATED)? == Some(true));
        } else {
            others.push(row);
        }
    }
    let is_locked = |tenant: &str| !skips || locked.contains_key(tenant);
    let (free, held): (Vec<_>, Vec<_>) = tenants.iter().cloned().partition(|tenant| is_locked(tenant));
    let mut read = ReadRows::<Postgres>::new(&free);
    for row in others {
        let of_account = matches!(Postgres::number(row, WHAT)?, Some(1 | 2 | 4));
        if !of_account || is_locked(&encoding::read(Postgres::text(row, 0)?.unwrap_or_default())) {
            decode(&mut read, row)?;
        }
    }
    let created = locked.iter().filter(|(_, created)| **created).map(|(tenant, _)| Arc::from(&**tenant)).collect();
    Ok(Loaded { held, created, ..read.finish() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{postgres::read::READ, writer::Key};

    #[test]
    fn function_reads_as_the_statement_of_unlocked_reads() {
        let function = include_str!("../schema/postgres/0003_begin.sql");
        assert!(function.contains(READ.trim_start()), "the text of the function and READ differ");
    }

    #[test]
    fn no_name_is_part_of_the_statement() {
        let name = "a'; DROP TABLE quota_account; --\\\"{}\0";
        let reads = Reads {
            jobs: vec![Key { tenant: name.into(), job: name.into() }],
            since: [(Arc::from(name), 1_700_000_000_000_000_000)].into(),
            ..Reads::default()
        };
        let sql = call(&[name.into()], &reads, Some(1), "wait");
        let literals: Vec<_> = sql.split('\'').skip(1).step_by(2).collect();
        let is_plain =
            |literal: &&str| literal.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b' ' || byte == b'-');
        assert!(literals.iter().all(is_plain) && !sql.contains("DROP"), "{sql}");
        assert_eq!(sql.matches('\'').count() % 2, 0, "{sql}");
    }
}
