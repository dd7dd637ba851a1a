//! Transactions on one connection.

use std::sync::{Arc, LazyLock};

use sqlx::{
    AssertSqlSafe, Executor, Row as _, SqliteConnection,
    query::Query,
    sqlite::{Sqlite, SqliteArguments, SqliteRow},
};

use super::{
    failure::failure,
    rows,
    statements::{self, Statement},
};
use crate::ledger::{
    DbError, Session,
    columns::{in_order, instant, name, nanos, number, text, time, until},
    progress::Progress,
    writer::{Detail, EntryKind, Key, Loaded, Reads, Row, Stored, Writes},
};

/// A connection of its own: dropping it closes it, and what has not been committed comes to nothing.
pub(crate) struct SqliteSession {
    connection: SqliteConnection,
    progress: Progress,
}

static ENTRIES: LazyLock<[Arc<str>; EntryKind::ALL.len()]> =
    LazyLock::new(|| EntryKind::ALL.map(|entry| entry.as_str().into()));

type Prepared = Query<'static, Sqlite, SqliteArguments>;

impl SqliteSession {
    pub(super) fn new(connection: SqliteConnection) -> Self {
        Self { connection, progress: Progress::default() }
    }

    /// After an error whose end is known, the connection can go on if the transaction can be rolled back.
    async fn failed(&mut self, failure: DbError) -> DbError {
        if !matches!(failure, DbError::Lost(_)) && self.undo().await.is_ok() {
            self.progress.ended();
        }
        failure
    }

    /// Some errors have rolled back already.
    async fn undo(&mut self) -> Result<(), DbError> {
        match self.connection.execute("ROLLBACK").await.map_err(failure) {
            Err(DbError::Refused(words)) if words.contains("no transaction is active") => Ok(()),
            done => done.map(|_| ()),
        }
    }

    async fn start(&mut self, reads: &Reads) -> Result<Loaded, DbError> {
        let row = prepared(statements::BEGIN.clone()).fetch_one(&mut self.connection).await.map_err(failure)?;
        let micros: i64 = row.try_get(0).map_err(failure)?;
        let sealed: Option<i64> = row.try_get(1).map_err(failure)?;
        let (tenants, connection) = (in_order(&reads.tenants), &mut self.connection);
        let mut loaded = load(connection, &tenants, &reads.jobs, reads.since, micros).await?;
        loaded.sealed = sealed.map_or(0, time);
        // What counts something has an account.
        let unknown: Vec<_> =
            tenants.into_iter().filter(|tenant| loaded.accounts[tenant] == Stored::default()).collect();
        let named = |query: Prepared, tenant: &Arc<str>| Ok(query.bind(name(tenant)));
        in_chunks(connection, &statements::ACCOUNTS, true, &unknown, &[micros], named).await?;
        Ok(loaded)
    }

    async fn put(&mut self, writes: &Writes, now: u64) -> Result<(), DbError> {
        let (consumed_at, connection) = (until(now), &mut self.connection);
        if writes.rows.iter().any(|row| row.detail.is_some()) {
            let all = |query, row: &Row| detailed(told(query, row, consumed_at)?, row.detail.as_deref());
            in_chunks(connection, &statements::INSERT_DETAILED, false, &writes.rows, &[], all).await?;
        } else {
            let all = |query, row: &Row| told(query, row, consumed_at);
            in_chunks(connection, &statements::INSERT_ROWS, false, &writes.rows, &[], all).await?;
        }
        in_chunks(connection, &statements::PUT_COUNTS, false, &writes.counts, &[], |query, (tenant, count)| {
            let query = query.bind(name(tenant)).bind(name(&count.limit)).bind(name(&count.kind));
            let query = query.bind(instant(count.starts)?).bind(i64::from(count.epoch)).bind(instant(count.ends)?);
            let query = query.bind(number(count.used)?).bind(number(count.reserved)?);
            Ok(query.bind(count.warned).bind(count.warning_pending))
        })
        .await?;
        in_chunks(connection, &statements::PUT_GRANTS, false, &writes.grants, &[], |query, (tenant, grant)| {
            let query =
                query.bind(name(tenant)).bind(number(grant.id)?).bind(name(&grant.limit)).bind(name(&grant.kind));
            let query = query.bind(number(grant.amount)?).bind(until(grant.until));
            let query = query.bind(text(&grant.approver)).bind(text(&grant.reason));
            let query = query.bind(number(grant.before)?).bind(number(grant.current)?);
            Ok(query.bind(instant(grant.window)?).bind(i64::from(grant.epoch)).bind(grant.ended))
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
}

impl Session for SqliteSession {
    async fn begin(&mut self, reads: &Reads) -> Result<Loaded, DbError> {
        self.progress.begin()?;
        match self.start(reads).await {
            Ok(loaded) => {
                self.progress.stands();
                Ok(loaded)
            }
            Err(failure) => Err(self.failed(failure).await),
        }
    }

    async fn write(&mut self, writes: &Writes, now: u64) -> Result<(), DbError> {
        self.progress.step()?;
        match self.put(writes, now).await {
            Ok(()) => {
                self.progress.stands();
                Ok(())
            }
            Err(failure) => Err(self.failed(failure).await),
        }
    }

    async fn commit(&mut self) -> Result<(), DbError> {
        self.progress.step()?;
        match self.connection.execute("COMMIT").await.map_err(failure) {
            Ok(_) => {
                self.progress.ended();
                Ok(())
            }
            // BUSY leaves the transaction open, and what else is not `Lost` has undone it: either way nothing is written.
            Err(failure) => Err(self.failed(failure).await),
        }
    }

    async fn roll_back(&mut self) -> Result<(), DbError> {
        if self.progress.undo()? {
            self.undo().await?;
            self.progress.ended();
        }
        Ok(())
    }

    async fn close(self) {
        let _ = sqlx::Connection::close(self.connection).await; // the process could end before a thread does
    }
}

/// What accounts have that count now, and the rows of some jobs.
pub(super) async fn load(
    connection: &mut SqliteConnection,
    tenants: &[Arc<str>],
    jobs: &[Key],
    since: Option<u64>,
    micros: i64,
) -> Result<Loaded, DbError> {
    let mut loaded = Loaded { now: nanos(micros)?, ..Loaded::default() };
    loaded.accounts = tenants.iter().map(|tenant| (tenant.clone(), Default::default())).collect();
    let since = since.map_or(micros, |since| until(since).min(micros));
    let asked = |query: Prepared, tenant: &Arc<str>| Ok(query.bind(name(tenant)));
    for row in in_chunks(connection, &statements::COUNTS, true, tenants, &[since], asked).await? {
        let (tenant, count) = rows::count(&row)?;
        loaded.accounts.entry(tenant).or_default().counts.push(count);
    }
    for row in in_chunks(connection, &statements::GRANTS, true, tenants, &[], asked).await? {
        let (tenant, grant) = rows::grant(&row)?;
        loaded.accounts.entry(tenant).or_default().grants.push(grant);
    }
    loaded.rows = of_jobs(connection, jobs).await?;
    Ok(loaded)
}

/// All rows of some jobs, in the order in which they were written.
pub(super) async fn of_jobs(connection: &mut SqliteConnection, jobs: &[Key]) -> Result<Vec<Row>, DbError> {
    let found = in_chunks(connection, &statements::ROWS, true, jobs, &[], |query, key| Ok(keyed(query, key))).await?;
    let mut all = found.iter().map(rows::consumption).collect::<Result<Vec<_>, _>>()?;
    all.sort_unstable_by_key(|(id, _)| *id);
    all.dedup_by_key(|(id, _)| *id);
    Ok(all.into_iter().map(|(_, row)| row).collect())
}

/// Runs a statement over all items, a few hundred at a time; `padded` where what is not bound does no harm.
async fn in_chunks<T>(
    connection: &mut SqliteConnection,
    statement: &Statement,
    padded: bool,
    mut items: &[T],
    first: &[i64],
    bind: impl Fn(Prepared, &T) -> Result<Prepared, DbError>,
) -> Result<Vec<SqliteRow>, DbError> {
    let mut found = Vec::new();
    while !items.is_empty() {
        let (sql, size) = if padded { statement.around(items.len()) } else { statement.within(items.len()) };
        let (these, others) = items.split_at(size.min(items.len()));
        let query = first.iter().fold(prepared(sql), |query, value| query.bind(*value));
        let query = these.iter().try_fold(query, &bind)?;
        found.append(&mut connection.fetch_all(query).await.map_err(failure)?);
        items = others;
    }
    Ok(found)
}

/// What every row says.
fn told(query: Prepared, row: &Row, consumed_at: i64) -> Result<Prepared, DbError> {
    let query = keyed(query, &row.key).bind(name(&row.kind)).bind(name(&row.limit));
    let query = query.bind(instant(row.window)?).bind(i64::from(row.epoch)).bind(ENTRIES[row.entry as usize].clone());
    let query = query.bind(i64::from(row.attempt)).bind(i64::from(row.part)).bind(row.amount).bind(consumed_at);
    let fingerprint = row.fingerprint.map(|fingerprint| fingerprint.to_be_bytes().to_vec());
    Ok(query.bind(row.command.to_be_bytes().to_vec()).bind(fingerprint))
}

/// What few rows say besides.
fn detailed(query: Prepared, detail: Option<&Detail>) -> Result<Prepared, DbError> {
    let Some(detail) = detail else {
        return Ok(query.bind(None::<i64>).bind(None::<i64>).bind(None::<String>).bind(None::<String>));
    };
    let ends = (detail.until > 0).then(|| until(detail.until));
    let query = query.bind(number(detail.granted)?).bind(ends);
    Ok(query.bind(text(&detail.approver)).bind(text(&detail.reason)))
}

fn prepared(sql: Arc<str>) -> Prepared {
    sqlx::query(AssertSqlSafe(sql))
}

fn keyed(query: Prepared, key: &Key) -> Prepared {
    query.bind(name(&key.tenant)).bind(name(&key.job))
}
