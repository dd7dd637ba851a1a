//! Charge path: transactions of the writer on one connection.

use std::{collections::BTreeMap, sync::Arc};

use sqlx::{Connection as _, Executor, Row as _, SqlSafeStr, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{
    FILE, SqliteQuery, bind, one,
    statements::{self, Statement},
};
use crate::ledger::{
    DbError,
    sql::{
        COUNT, ChargePath, Columns, OpenFile, ReadRows, SqlDialect, SqlValue, db_error,
        encoding::{nanos, time, until},
        in_order, safe,
    },
    writer::{Key, Loaded, Reads, Stored},
};

impl ChargePath for Sqlite {
    const STORE: &'static str = "sqlite";

    async fn tune(connection: &mut SqliteConnection) -> Result<(), DbError> {
        // A batch changes many pages, and each should reach the file once: a larger cache and fewer checkpoints.
        Self::run(connection, "PRAGMA cache_size = -65536; PRAGMA wal_autocheckpoint = 8192".into_sql_str()).await
    }

    async fn file(connection: &mut SqliteConnection) -> Result<Option<OpenFile>, DbError> {
        let path = one(connection, FILE).await?;
        Ok((!path.is_empty()).then(|| OpenFile::at(path.into())))
    }

    async fn read(
        connection: &mut SqliteConnection,
        tenants: &[Arc<str>],
        jobs: &[Key],
        now: Option<i64>,
    ) -> Result<Loaded, DbError> {
        let mut transaction = connection.begin().await.map_err(db_error::<Sqlite>)?;
        let (micros, _) = clock(&mut transaction, statements::CLOCK_AND_SEAL.clone()).await?;
        load(&mut transaction, tenants, jobs, &BTreeMap::new(), now.unwrap_or(micros)).await
    }

    /// `BEGIN IMMEDIATE` has locked the file.
    async fn lock(_: &mut SqliteConnection, _: &str) -> Result<bool, DbError> {
        Ok(false)
    }

    async fn begin(connection: &mut SqliteConnection, reads: &Reads, now: Option<i64>) -> Result<Loaded, DbError> {
        let (micros, sealed) = clock(connection, statements::BEGIN.clone()).await?;
        let micros = now.unwrap_or(micros);
        let tenants = in_order(&reads.tenants);
        let mut loaded = load(connection, &tenants, &reads.jobs, &reads.since, micros).await?;
        loaded.sealed = sealed.map_or(0, time);
        // Every counter and row has an account.
        let unknown = tenants.iter().filter(|tenant| loaded.accounts[*tenant] == Stored::default());
        let unknown: Vec<_> = unknown.map(|tenant| SqlValue::Text(tenant)).collect();
        for row in in_chunks(connection, &statements::ACCOUNTS, Some(micros), &unknown).await? {
            loaded.created.push(Columns::<Sqlite>::new(&row).text()?);
        }
        Ok(loaded)
    }

    async fn put(connection: &mut SqliteConnection, values: &[Vec<SqlValue<'_>>; COUNT]) -> Result<(), DbError> {
        for (statement, values) in statements::TEXTS.iter().zip(values) {
            in_chunks(connection, statement, None, values).await?;
        }
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
    since: &BTreeMap<Arc<str>, u64>,
    micros: i64,
) -> Result<Loaded, DbError> {
    let mut read = ReadRows::<Sqlite>::new(tenants);
    read.loaded.now = nanos(micros)?;
    let ended = |tenant| since.get(tenant).map_or(micros, |since| until(*since).min(micros));
    let windows = tenants.iter().flat_map(|tenant| [SqlValue::Text(tenant), SqlValue::Number(ended(tenant))]);
    let windows: Vec<_> = windows.collect();
    let tenants: Vec<_> = tenants.iter().map(|tenant| SqlValue::Text(tenant)).collect();
    for row in in_chunks(connection, &statements::KNOWN, None, &tenants).await? {
        read.account(&row)?;
    }
    for row in in_chunks(connection, &statements::COUNTS, None, &windows).await? {
        read.counter(&row)?;
    }
    for row in in_chunks(connection, &statements::GRANTS, None, &tenants).await? {
        read.grant(&row)?;
    }
    let jobs: Vec<_> = jobs.iter().flat_map(|key| [&key.tenant, &key.job].map(|name| SqlValue::Text(name))).collect();
    for row in in_chunks(connection, &statements::ENTRIES, None, &jobs).await? {
        read.entry(&row)?;
    }
    for row in in_chunks(connection, &statements::UNFINISHED, None, &jobs).await? {
        read.unfinished(&row)?;
    }
    Ok(read.finish())
}

/// Runs a statement over all rows of values, at most 256 rows at a time, each time with `first` before them.
async fn in_chunks(
    connection: &mut SqliteConnection,
    statement: &Statement,
    first: Option<i64>,
    mut values: &[SqlValue<'_>],
) -> Result<Vec<SqliteRow>, DbError> {
    let mut found = Vec::new();
    while !values.is_empty() {
        let (sql, size) = statement.next(values.len() / statement.width);
        let (these, others) = values.split_at((size * statement.width).min(values.len()));
        let query = first.map(SqlValue::Number).iter().chain(these).fold(prepared(sql), bind);
        found.append(&mut connection.fetch_all(query).await.map_err(db_error::<Sqlite>)?);
        values = others;
    }
    Ok(found)
}

fn prepared(sql: Arc<str>) -> SqliteQuery {
    sqlx::query(safe(sql))
}
