//! A ledger in a pool of connections.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use sqlx::{ConnectOptions as _, Pool, SqlStr, pool::PoolConnection};

use super::{
    ChargePath, Columns, OpenOptions, SqlSession, SqlValue, TestClock, db_error,
    opening::{OpenConnection, open_connection},
    safe,
    schema::check,
};
use crate::{
    ledger::{
        Database, DbError, LedgerError,
        database::{LedgerCheck, RefusalListener},
        writer::{Key, Loaded, ReservationRow, Stored},
    },
    time::Clock,
};

/// A ledger in a database that is reached through a pool.
pub(crate) struct SqlDatabase<S: ChargePath> {
    pub(crate) pool: Pool<S>,
    options: OpenOptions,
    /// File or address of a pool that the ledger has made; `None` if the pool is the program's.
    place: Option<Box<str>>,
    /// Connection that keeps a database in memory alive.
    memory: Option<Mutex<S::Connection>>,
    /// Connection that was opened with the ledger, for the writer.
    first: Mutex<Option<OpenConnection<S>>>,
    /// Whether the tables were there. If they are missing later, they were removed, and must not begin anew.
    opened: AtomicBool,
    /// Reason of the last check that has failed, unless a later one has passed.
    refusal: Mutex<Option<LedgerError>>,
    listeners: Mutex<Vec<RefusalListener>>,
    /// Check of the ledger's id by the program's part of the ledger.
    check: OnceLock<LedgerCheck>,
    pub(super) clock: TestClock,
}

impl<S: ChargePath> SqlDatabase<S> {
    pub(crate) fn new(pool: Pool<S>, options: OpenOptions) -> Self {
        let (first, refusal, listeners) = (Mutex::new(None), Mutex::new(None), Mutex::default());
        let opened = AtomicBool::new(false);
        let clock = TestClock::default();
        Self {
            pool,
            options,
            place: None,
            memory: None,
            first,
            opened,
            refusal,
            listeners,
            check: OnceLock::new(),
            clock,
        }
    }

    /// Declares the pool as one that the ledger has made, for this file or address.
    pub(crate) fn owned(self, place: &str) -> Self {
        Self { place: Some(place.into()), ..self }
    }

    /// Declares that the database is in memory and lives as long as this connection.
    #[cfg(feature = "sqlite")]
    pub(crate) fn kept_by(self, connection: S::Connection) -> Self {
        Self { memory: Some(Mutex::new(connection)), ..self }
    }

    /// Makes the ledger follow this clock instead of the database's.
    pub(crate) fn timed_by(self, clock: Option<Clock>) -> Self {
        Self { clock: TestClock(clock), ..self }
    }

    /// Creates the tables if they are missing, checks them, and keeps the connection for the writer. Does nothing if the
    /// database is opened with its first use.
    pub(crate) async fn open(self) -> Result<Self, LedgerError> {
        if !self.options.lazy {
            let connection = self.writing().await?;
            *locked(&self.first) = Some(connection);
        }
        Ok(self)
    }

    /// Opens a connection for the writer. That of a pool that the ledger has made is not from the pool, so that it never
    /// waits for a report; a program's pool prepares it as the program says.
    async fn writing(&self) -> Result<OpenConnection<S>, LedgerError> {
        let connect = || async {
            match self.place {
                Some(_) => self.pool.connect_options().connect().await,
                None => Ok(self.pool.acquire().await?.detach()),
            }
        };
        let migrates = !self.opened.load(Ordering::Acquire);
        let opened = open_connection::<S, _>(connect, self.options, self.memory.is_some(), migrates).await;
        let checked = opened.and_then(|opened| self.check_id(&opened).map(|()| opened));
        self.judge(checked.map_err(|error| error.at(self.place.as_deref().unwrap_or_default())))
    }

    /// Returns the id of the ledger that was opened; `None` before the first use of one that opens lazily.
    pub(crate) fn ledger_id(&self) -> Option<u128> {
        locked(&self.first).as_ref().map(|opened| opened.ledger)
    }

    fn check_id(&self, opened: &OpenConnection<S>) -> Result<(), LedgerError> {
        self.check.get().map_or(Ok(()), |check| check(opened.ledger))
    }

    /// Keeps the reason why a database must not be used, and notifies the listeners of a new one.
    fn judge<T>(&self, checked: Result<T, LedgerError>) -> Result<T, LedgerError> {
        let refusal = checked.as_ref().err().filter(|error| !error.is_temporary()).cloned();
        self.opened.fetch_or(checked.is_ok(), Ordering::AcqRel);
        let before = std::mem::replace(&mut *locked(&self.refusal), refusal.clone());
        if let Some(error) = refusal.filter(|error| before.as_ref() != Some(error)) {
            let why = error.reason().into();
            locked(&self.listeners).iter().for_each(|listener| listener(&why));
        }
        checked
    }

    /// Acquires a connection of the pool, of a database that has been opened.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<S>, DbError> {
        if !self.opened.load(Ordering::Acquire) {
            let connection = self.writing().await?;
            *locked(&self.first) = Some(connection);
        }
        self.pool.acquire().await.map_err(db_error::<S>)
    }

    /// Runs one query on a connection of the pool, and decodes its rows.
    pub(super) async fn query<T>(
        &self,
        sql: SqlStr,
        values: &[SqlValue<'_>],
        decode: fn(&mut Columns<'_, S>) -> Result<T, DbError>,
    ) -> Result<Vec<T>, DbError> {
        let rows = S::fetch(&mut *self.acquire().await?, sql, values).await?;
        rows.iter().map(|row| decode(&mut Columns::new(row))).collect()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<S: ChargePath> fmt::Debug for SqlDatabase<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDatabase").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl<S: ChargePath> Database for SqlDatabase<S> {
    type Session = SqlSession<S>;

    const STORE: &'static str = S::STORE;
    const IS_SERVER: bool = S::IS_SERVER;

    async fn connect(&self) -> Result<SqlSession<S>, DbError> {
        let first = locked(&self.first).take();
        let opened = match first {
            // It may have been closed, and the tables may have changed since.
            Some(mut opened) => {
                match check::<S>(&mut opened.connection, self.memory.is_some(), self.options.durable_storage).await {
                    Err(error) if error.is_temporary() => self.writing().await?,
                    checked => self.judge(checked.and_then(|()| self.check_id(&opened)).map(|()| opened))?,
                }
            }
            None => self.writing().await?,
        };
        Ok(SqlSession::new(opened.connection, opened.file, self.clock.clone()))
    }

    fn refusal(&self) -> Option<LedgerError> {
        locked(&self.refusal).clone()
    }

    fn on_refusal(&self, listener: RefusalListener) {
        locked(&self.listeners).push(listener);
    }

    fn check_ledger(&self, check: LedgerCheck) {
        let _ = self.check.set(check);
    }

    async fn account(&self, tenant: &str) -> Result<(u64, Stored), DbError> {
        let tenant = Arc::<str>::from(tenant);
        let mut loaded =
            S::read(&mut *self.acquire().await?, std::slice::from_ref(&tenant), &[], self.clock.micros()).await?;
        Ok((loaded.now, loaded.accounts.remove(&tenant).unwrap_or_default()))
    }

    async fn tenants(&self, after: Option<&str>, most: usize) -> Result<Vec<Arc<str>>, DbError> {
        let sql = |from| safe(format!("SELECT tenant_id FROM quota_account {from} ORDER BY tenant_id LIMIT $1"));
        match after {
            Some(after) => {
                let values = [SqlValue::count(most), SqlValue::Text(after)];
                self.query(sql("WHERE tenant_id > $2"), &values, |columns| columns.text()).await
            }
            None => self.query(sql(""), &[SqlValue::count(most)], |columns| columns.text()).await,
        }
    }

    async fn job(&self, tenant: &str, job: &str) -> Result<Loaded, DbError> {
        let key = Key { tenant: tenant.into(), job: job.into() };
        S::read(&mut *self.acquire().await?, &[], &[key], self.clock.micros()).await
    }

    async fn due(&self, most: usize, skip: usize) -> Result<Vec<ReservationRow>, DbError> {
        let sql = format!(
            "SELECT tenant_id, job_id, attempt, until, since, charge FROM quota_hold WHERE until <= {}
             ORDER BY until, tenant_id, job_id, attempt LIMIT $1 OFFSET $2",
            self.clock.sql::<S>()
        );
        self.query(safe(sql), &[most, skip].map(SqlValue::count), |columns| columns.reservation()).await
    }

    async fn close(&self) {
        if self.place.is_some() {
            self.pool.close().await;
        }
    }
}
