//! Port of databases: everything that the writer needs of one.

use std::{future::Future, sync::Arc};

use super::{
    LedgerError,
    writer::{Loaded, Reads, ReservationRow, Stored, Writes},
};

/// Receiver of the reasons why a database must not be used.
pub(crate) type RefusalListener = Box<dyn Fn(&Arc<str>) + Send>;

/// Check of the ledger that a connection has reached, by its id.
pub(crate) type LedgerCheck = Box<dyn Fn(u128) -> Result<(), LedgerError> + Send + Sync>;

/// A database that holds a ledger.
pub(crate) trait Database: Send + Sync + 'static {
    /// A connection with one transaction at a time.
    type Session: Session;

    /// Name of the kind of database in events and metrics.
    const STORE: &'static str;

    /// Whether the database is a server. Its sessions can skip accounts that other transactions hold, so that the writer
    /// has two lanes, and a connection that was idle may be gone.
    const IS_SERVER: bool = false;

    /// Opens a connection for the writer. A connection that would lose acknowledged rows is an error with a reason.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, DbError>> + Send;

    /// Reads the time and an account without a lock, with the counters of periods that have not ended.
    fn account(&self, tenant: &str) -> impl Future<Output = Result<(u64, Stored), DbError>> + Send;

    /// Reads the names of accounts after one of them, in the order of their names.
    fn tenants(&self, after: Option<&str>, most: usize) -> impl Future<Output = Result<Vec<Arc<str>>, DbError>> + Send;

    /// Reads all rows of a job, and whether its work has no recorded end.
    fn job(&self, tenant: &str, job: &str) -> impl Future<Output = Result<Loaded, DbError>> + Send;

    /// Reads overdue reservations, the earliest first, without the first `skip` of them.
    fn due(&self, most: usize, skip: usize) -> impl Future<Output = Result<Vec<ReservationRow>, DbError>> + Send;

    /// Returns why the database must not be used, found by the last [`connect`](Self::connect): it would lose
    /// rows, has other tables, or is not the ledger of the spool. `None` if it was good or did not answer.
    fn refusal(&self) -> Option<LedgerError> {
        None
    }

    /// Calls `listener` with each new [refusal](Self::refusal).
    fn on_refusal(&self, listener: RefusalListener) {
        drop(listener);
    }

    /// Makes `check` one of the checks of each [connection](Self::connect). Later calls have no effect.
    fn check_ledger(&self, check: LedgerCheck) {
        drop(check);
    }

    /// Closes the connections that the ledger owns. No call follows.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// One connection with one transaction at a time. It is dropped once it has failed.
pub(crate) trait Session: Send + 'static {
    /// Begins a transaction, locks the accounts in the order of their names (missing ones are created), and reads.
    fn begin(&mut self, reads: &Reads) -> impl Future<Output = Result<Loaded, DbError>> + Send;

    /// Writes within the transaction; `now` is what [`begin`](Self::begin) read.
    fn write(&mut self, writes: &Writes, now: u64) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Commits the transaction. After [`DbError::Lost`] it is unknown whether it took place.
    fn commit(&mut self) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Rolls the transaction back. Does nothing if a failed step has ended the transaction: that is not a second
    /// failure.
    fn roll_back(&mut self) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Finds out whether the connection is alive.
    fn ping(&mut self) -> impl Future<Output = Result<(), DbError>> + Send {
        async { Ok(()) }
    }

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
    /// Another transaction was in the way (a deadlock, a lock that did not come in time, a serialization failure). The
    /// transaction is rolled back and may be tried again.
    Again(String),
    /// The database rejects the values themselves (a constraint, a unique index, a value out of range, a trigger). The
    /// transaction is rolled back, and the same command fails whenever it is tried.
    Rejected(String),
    /// The connection is unusable.
    Lost(String),
    /// The database takes no writes: it is full, read-only, damaged, or has other tables.
    Refused(String),
}

impl DbError {
    /// Returns the reason as the database gave it.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Again(reason) | Self::Rejected(reason) | Self::Lost(reason) | Self::Refused(reason) => reason,
        }
    }
}
