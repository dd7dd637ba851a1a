//! Charge path: transactions of the writer on one connection.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use sqlx::{
    AssertSqlSafe, Connection as _, Executor, Row as _, SqlSafeStr, Sqlite, SqliteConnection, sqlite::SqliteRow,
};

use super::{
    SqliteQuery,
    statements::{self, Statement},
};
use crate::ledger::{
    DbError,
    sql::{
        ChargePath, ReadRows, SqlDialect, db_error,
        encoding::{instant, nanos, number, text, time, until},
        in_order,
    },
    writer::{Detail, EntryKind, Key, Loaded, Reads, Row, Stored, Writes},
};

static ENTRIES: LazyLock<[Arc<str>; EntryKind::ALL.len()]> =
    LazyLock::new(|| EntryKind::ALL.map(|entry| entry.as_str().into()));

impl ChargePath for Sqlite {
    async fn tune(connection: &mut SqliteConnection) -> Result<(), DbError> {
        // A batch changes many pages, and each should reach the file once: a larger cache and fewer checkpoints.
        Self::run(connection, "PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 8192".into_sql_str()).await
    }

    async fn read(connection: &mut SqliteConnection, tenants: &[Arc<str>], jobs: &[Key]) -> Result<Loaded, DbError> {
        let mut transaction = connection.begin().await.map_err(db_error::<Sqlite>)?;
        let (micros, _) = clock(&mut transaction, statements::CLOCK_AND_SEAL.clone()).await?;
        load(&mut transaction, tenants, jobs, None, micros).await
    }

    /// `BEGIN IMMEDIATE` has locked the file.
    async fn lock(_: &mut SqliteConnection, _: &str) -> Result<(), DbError> {
        Ok(())
    }

    async fn begin(connection: &mut SqliteConnection, reads: &Reads) -> Result<Loaded, DbError> {
        let (micros, sealed) = clock(connection, statements::BEGIN.clone()).await?;
        let tenants = in_order(&reads.tenants);
        let mut loaded = load(connection, &tenants, &reads.jobs, reads.since, micros).await?;
        loaded.sealed = sealed.map_or(0, time);
        // Every counter and row has an account.
        let unknown: Vec<_> =
            tenants.into_iter().filter(|tenant| loaded.accounts[tenant] == Stored::default()).collect();
        let named = |query: SqliteQuery, tenant: &Arc<str>| Ok(query.bind(name(tenant)));
        in_chunks(connection, &statements::ACCOUNTS, true, &unknown, &[micros], named).await?;
        Ok(loaded)
    }

    async fn write(connection: &mut SqliteConnection, writes: &Writes, now: u64) -> Result<(), DbError> {
        let consumed_at = until(now);
        if writes.rows.iter().any(|row| row.detail.is_some()) {
            let all = |query, row: &Row| detailed(bind_entry(query, row, consumed_at)?, row.detail.as_deref());
            in_chunks(connection, &statements::INSERT_DETAILED, false, &writes.rows, &[], all).await?;
        } else {
            let all = |query, row: &Row| bind_entry(query, row, consumed_at);
            in_chunks(connection, &statements::INSERT_ROWS, false, &writes.rows, &[], all).await?;
        }
        in_chunks(connection, &statements::PUT_COUNTS, false, &writes.counts, &[], |query, (tenant, count)| {
            let query =
                query.bind(name(tenant)).bind(name(&count.limit)).bind(name(&count.kind)).bind(name(&count.period));
            let query = query
                .bind(instant(count.counter.starts)?)
                .bind(number(count.counter.epoch)?)
                .bind(instant(count.counter.ends)?);
            let query = query.bind(number(count.counter.used)?).bind(number(count.counter.reserved)?);
            Ok(query.bind(count.counter.warned).bind(count.counter.warning_pending))
        })
        .await?;
        in_chunks(connection, &statements::PUT_GRANTS, false, &writes.grants, &[], |query, (tenant, grant)| {
            let query =
                query.bind(name(tenant)).bind(number(grant.id)?).bind(name(&grant.limit)).bind(name(&grant.kind));
            let query = query.bind(name(&grant.period));
            let query = query.bind(number(grant.amount)?).bind(until(grant.until));
            let query = query.bind(text(&grant.approver)).bind(text(&grant.reason));
            let query = query.bind(number(grant.before)?).bind(number(grant.current)?);
            Ok(query.bind(instant(grant.window)?).bind(number(grant.epoch)?).bind(grant.ended))
        })
        .await?;
        in_chunks(connection, &statements::OPEN_HOLDS, false, &writes.opened, &[], |query, hold| {
            let query = keyed(query, &hold.key).bind(i64::from(hold.attempt)).bind(until(hold.until));
            Ok(query.bind(until(hold.since)).bind(hold.charge))
        })
        .await?;
        in_chunks(connection, &statements::RENEW_HOLDS, false, &writes.renewed, &[], |query, hold| {
            Ok(keyed(query.bind(until(hold.until)), &hold.key).bind(i64::from(hold.attempt)))
        })
        .await?;
        in_chunks(connection, &statements::CLOSE_HOLDS, false, &writes.closed, &[], |query, (key, attempt)| {
            Ok(keyed(query, key).bind(i64::from(*attempt)))
        })
        .await?;
        Ok(())
    }

    /// BUSY leaves the transaction open, and any other error that is not `Lost` has undone it. Nothing is written in
    /// either case.
    async fn commit(connection: &mut SqliteConnection) -> Result<(), DbError> {
        connection.execute("COMMIT").await.map_err(db_error::<Self>).map(|_| ())
    }

    async fn roll_back(connection: &mut SqliteConnection) -> Result<(), DbError> {
        match connection.execute("ROLLBACK").await.map_err(db_error::<Self>) {
            Err(DbError::Refused(words)) if words.contains("no transaction is active") => Ok(()),
            done => done.map(|_| ()),
        }
    }

    async fn close(connection: SqliteConnection) {
        let _ = sqlx::Connection::close(connection).await; // the process could end before a thread does
    }
}

/// Returns the present in microseconds, and the time before which rows may be archived.
async fn clock(connection: &mut SqliteConnection, sql: Arc<str>) -> Result<(i64, Option<i64>), DbError> {
    let row = prepared(sql).fetch_one(connection).await.map_err(db_error::<Sqlite>)?;
    Ok((row.try_get(0).map_err(db_error::<Sqlite>)?, row.try_get(1).map_err(db_error::<Sqlite>)?))
}

/// Reads the present counters and grants of the accounts, and the rows of some jobs.
async fn load(
    connection: &mut SqliteConnection,
    tenants: &[Arc<str>],
    jobs: &[Key],
    since: Option<u64>,
    micros: i64,
) -> Result<Loaded, DbError> {
    let mut read = ReadRows::<Sqlite>::new(tenants);
    read.loaded.now = nanos(micros)?;
    let since = since.map_or(micros, |since| until(since).min(micros));
    let asked = |query: SqliteQuery, tenant: &Arc<str>| Ok(query.bind(name(tenant)));
    for row in in_chunks(connection, &statements::COUNTS, true, tenants, &[since], asked).await? {
        read.counter(&row)?;
    }
    for row in in_chunks(connection, &statements::GRANTS, true, tenants, &[], asked).await? {
        read.grant(&row)?;
    }
    let asked = |query: SqliteQuery, key: &Key| Ok(keyed(query, key));
    for row in in_chunks(connection, &statements::ROWS, true, jobs, &[], asked).await? {
        read.entry(&row)?;
    }
    Ok(read.finish())
}

/// Runs a statement over all items, at most 256 at a time; `padded` if unbound parameters do no harm.
async fn in_chunks<T>(
    connection: &mut SqliteConnection,
    statement: &Statement,
    padded: bool,
    mut items: &[T],
    first: &[i64],
    bind: impl Fn(SqliteQuery, &T) -> Result<SqliteQuery, DbError>,
) -> Result<Vec<SqliteRow>, DbError> {
    let mut found = Vec::new();
    while !items.is_empty() {
        let (sql, size) = if padded { statement.around(items.len()) } else { statement.within(items.len()) };
        let (these, others) = items.split_at(size.min(items.len()));
        let query = first.iter().fold(prepared(sql), |query, value| query.bind(*value));
        let query = these.iter().try_fold(query, &bind)?;
        found.append(&mut connection.fetch_all(query).await.map_err(db_error::<Sqlite>)?);
        items = others;
    }
    Ok(found)
}

/// Binds the columns of every row.
fn bind_entry(query: SqliteQuery, row: &Row, consumed_at: i64) -> Result<SqliteQuery, DbError> {
    let query = keyed(query, &row.key).bind(name(&row.kind)).bind(name(&row.limit)).bind(name(&row.period));
    let query = query.bind(instant(row.window)?).bind(number(row.epoch)?).bind(ENTRIES[row.entry as usize].clone());
    let query = query.bind(i64::from(row.attempt)).bind(i64::from(row.part)).bind(row.amount).bind(consumed_at);
    let fingerprint = row.fingerprint.map(|fingerprint| fingerprint.to_be_bytes().to_vec());
    Ok(query.bind(row.command.to_be_bytes().to_vec()).bind(fingerprint))
}

/// Binds the columns that only few rows fill.
fn detailed(query: SqliteQuery, detail: Option<&Detail>) -> Result<SqliteQuery, DbError> {
    let Some(detail) = detail else {
        return Ok(query.bind(None::<i64>).bind(None::<i64>).bind(None::<String>).bind(None::<String>));
    };
    let ends = (detail.until > 0).then(|| until(detail.until));
    let query = query.bind(number(detail.granted)?).bind(ends);
    Ok(query.bind(text(&detail.approver)).bind(text(&detail.reason)))
}

fn prepared(sql: Arc<str>) -> SqliteQuery {
    sqlx::query(AssertSqlSafe(sql))
}

fn keyed(query: SqliteQuery, key: &Key) -> SqliteQuery {
    query.bind(name(&key.tenant)).bind(name(&key.job))
}

/// Encodes a name that is shared.
fn name(name: &Arc<str>) -> Arc<str> {
    match text(name) {
        Cow::Borrowed(_) => name.clone(),
        Cow::Owned(encoded) => encoded.into(),
    }
}
