//! What a ledger needs of a database.

use std::{future::Future, sync::Arc};

use super::writer::{Loaded, Reads, ReservationRow, Row, Stored, Writes};

/// A database in which a ledger is kept.
pub(crate) trait Database: Send + Sync + 'static {
    /// A connection with one transaction at a time.
    type Session: Session;

    /// A connection of its own, checked: what would lose acknowledged rows is refused in words.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, DbError>> + Send;

    /// An account, and the time, read without a lock. `counts` are those of periods that are not over.
    fn account(&self, tenant: &str) -> impl Future<Output = Result<(u64, Stored), DbError>> + Send;

    /// The names of accounts after one of them, in the order of their names.
    fn tenants(&self, after: Option<&str>, most: usize) -> impl Future<Output = Result<Vec<Arc<str>>, DbError>> + Send;

    /// All rows of a job.
    fn job(&self, tenant: &str, job: &str) -> impl Future<Output = Result<Vec<Row>, DbError>> + Send;

    /// Reservations whose time has run out, the earliest first, without the first `skip` of them.
    fn due(&self, most: usize, skip: usize) -> impl Future<Output = Result<Vec<ReservationRow>, DbError>> + Send;

    /// Nobody asks it anything more: it closes the connections that are its own.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// One connection, on which transactions follow one another. It is dropped once it has failed.
pub(crate) trait Session: Send + 'static {
    /// Begins a transaction, locks the accounts in the order of their names (missing ones are made), and reads.
    fn begin(&mut self, reads: &Reads) -> impl Future<Output = Result<Loaded, DbError>> + Send;

    /// Writes within the transaction; `now` is what [`begin`](Self::begin) read.
    fn write(&mut self, writes: &Writes, now: u64) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Ends the transaction. [`DbError::Lost`] here means that nobody knows how it ended.
    fn commit(&mut self) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Rolls the transaction back. Does nothing where a failed step has ended it: its failure is no second one.
    fn roll_back(&mut self) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Ends the connection, and waits for its end.
    fn close(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async { drop(self) }
    }
}

/// Failure of a step of a transaction, classified by what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DbError {
    /// Others were in the way (a deadlock, a lock that did not come in time, a serialization failure): it is rolled back,
    /// and may be tried again.
    Again(String),
    /// The database rejects the values themselves (a constraint, a unique index, a value out of range, a trigger): it is
    /// rolled back, and the same command fails whenever it is tried.
    Rejected(String),
    /// The connection is of no use any more.
    Lost(String),
    /// The database takes no writes: it is full, read-only, damaged, or has other tables.
    Refused(String),
}

impl DbError {
    /// Reason as the database gave it.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Again(reason) | Self::Rejected(reason) | Self::Lost(reason) | Self::Refused(reason) => reason,
        }
    }
}
