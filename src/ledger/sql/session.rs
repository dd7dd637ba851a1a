//! Transactions of the writer on one connection.

use std::{future::Future, sync::Arc};

use sqlx::Connection;

use super::{COUNT, OpenFile, SqlDialect, SqlValue, TestClock, db_error, writes::write};
use crate::ledger::{
    DbError, Session,
    writer::{Key, Loaded, Reads, Writes},
};

/// Transactions of the charge path. SQLite binds row by row, PostgreSQL whole columns.
pub(crate) trait ChargePath: SqlDialect {
    /// Name of the kind of database in events and metrics.
    const STORE: &'static str;

    /// Whether the database is a server, whose [`begin`](Self::begin) can skip accounts that other transactions hold.
    const IS_SERVER: bool = false;

    /// Prepares a connection for the writer.
    fn tune(connection: &mut Self::Connection) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Returns the file that a connection has open, if the database is one.
    fn file(_: &mut Self::Connection) -> impl Future<Output = Result<Option<OpenFile>, DbError>> + Send {
        async { Ok(None) }
    }

    /// Reads accounts and jobs without a lock, at the database's time or at `now`.
    fn read(
        connection: &mut Self::Connection,
        tenants: &[Arc<str>],
        jobs: &[Key],
        now: Option<i64>,
    ) -> impl Future<Output = Result<Loaded, DbError>> + Send;

    /// Locks an account within a transaction that writes; returns whether it had to create the account for that.
    fn lock(connection: &mut Self::Connection, tenant: &str) -> impl Future<Output = Result<bool, DbError>> + Send;

    /// Begins a transaction of the writer, locks its accounts in the order of names, creates missing ones, and reads, at
    /// the database's time or at `now`.
    fn begin(
        connection: &mut Self::Connection,
        reads: &Reads,
        now: Option<i64>,
    ) -> impl Future<Output = Result<Loaded, DbError>> + Send;

    /// Writes within the transaction, by each statement of [`WRITES`](super::WRITES) that has rows: these are the values
    /// of all its rows.
    fn put(
        connection: &mut Self::Connection,
        values: &[Vec<SqlValue<'_>>; COUNT],
    ) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Commits the transaction.
    fn commit(connection: &mut Self::Connection) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Rolls the transaction back, even if the failed step has done so.
    fn roll_back(connection: &mut Self::Connection) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Ends a connection.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send {
        async { drop(connection) }
    }
}

/// A connection of its own. Dropping it closes it and discards all writes that are not committed.
pub(crate) struct SqlSession<S: ChargePath> {
    connection: S::Connection,
    state: TxState,
    file: Option<OpenFile>,
    clock: TestClock,
}

/// State of a connection's transaction. During a step it is `Broken`, so that a cancelled step leaves it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TxState {
    Idle,
    Open,
    Broken,
}

impl<S: ChargePath> SqlSession<S> {
    pub(super) const fn new(connection: S::Connection, file: Option<OpenFile>, clock: TestClock) -> Self {
        Self { connection, state: TxState::Idle, file, clock }
    }

    /// Takes the state of an open transaction for a step.
    fn take_open(&mut self) -> Result<(), DbError> {
        match std::mem::replace(&mut self.state, TxState::Broken) {
            TxState::Open => Ok(()),
            TxState::Idle => {
                self.state = TxState::Idle;
                Err(DbError::Refused("no transaction is open".into()))
            }
            TxState::Broken => Err(DbError::Lost("the connection was left in the middle of a step".into())),
        }
    }

    /// Ends a step. After an error with a known effect the connection is usable if the transaction can be rolled back.
    async fn end_step<T>(&mut self, result: Result<T, DbError>, then: TxState) -> Result<T, DbError> {
        match &result {
            Ok(_) => self.state = then,
            Err(DbError::Lost(_)) => {}
            Err(_) if S::roll_back(&mut self.connection).await.is_ok() => self.state = TxState::Idle,
            Err(_) => {}
        }
        result
    }
}

impl<S: ChargePath> Session for SqlSession<S> {
    async fn begin(&mut self, reads: &Reads) -> Result<Loaded, DbError> {
        if std::mem::replace(&mut self.state, TxState::Broken) != TxState::Idle {
            return Err(DbError::Lost("the connection was left in the middle of a transaction".into()));
        }
        let begun = S::begin(&mut self.connection, reads, self.clock.micros()).await;
        self.end_step(begun, TxState::Open).await
    }

    async fn write(&mut self, writes: &Writes, now: u64) -> Result<(), DbError> {
        self.take_open()?;
        let written = write::<S>(&mut self.connection, writes, now).await;
        self.end_step(written, TxState::Open).await
    }

    async fn commit(&mut self) -> Result<(), DbError> {
        self.take_open()?;
        // An error that the database reports means that nothing is written; a lost reply means nothing.
        let committed = S::commit(&mut self.connection).await;
        self.end_step(committed, TxState::Idle).await?;
        self.file.as_ref().map_or(Ok(()), OpenFile::check)
    }

    async fn roll_back(&mut self) -> Result<(), DbError> {
        if self.state != TxState::Idle {
            self.take_open()?;
            S::roll_back(&mut self.connection).await?;
            self.state = TxState::Idle;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), DbError> {
        self.connection.ping().await.map_err(db_error::<S>)
    }

    async fn close(self) {
        S::close(self.connection).await;
    }
}

/// Returns accounts in the order of their names, each once: every writer locks them in this order.
pub(crate) fn in_order(tenants: &[Arc<str>]) -> Vec<Arc<str>> {
    let mut tenants = tenants.to_vec();
    tenants.sort_unstable();
    tenants.dedup();
    tenants
}
