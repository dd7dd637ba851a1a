//! Transactions that a handler shares with the record of its operation.

use std::{any::Any, fmt, time::Duration};

use super::{Completion, Owner, RecordKey};
use crate::key_value::port::StoreFuture;

/// Part of a [`RecordStore`](super::RecordStore) in a database: transactions in which a handler writes, and which the store
/// commits together with the end of the operation.
pub trait RecordTransactions: Send + Sync {
    /// Begins a transaction on a connection that is not used otherwise.
    ///
    /// # Errors
    /// [`Unavailable`](crate::key_value::KeyValueErrorKind::Unavailable) if no connection is free in time,
    /// [`Refused`](crate::key_value::KeyValueErrorKind::Refused) if the pool has too few.
    fn begin_transaction(&self) -> StoreFuture<'_, OpenTransaction>;

    /// Marks the operation as carried out and commits, both or neither. With `undo` the writes of the handler are rolled
    /// back before.
    ///
    /// # Errors
    /// [`Indeterminate`](crate::key_value::KeyValueErrorKind::Indeterminate) if it is unknown whether the transaction was
    /// committed; after any other error it was not.
    fn commit_transaction<'a>(
        &'a self,
        transaction: OpenTransaction,
        undo: bool,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Committed>;

    /// Rolls a transaction back.
    fn roll_back_transaction(&self, transaction: OpenTransaction) -> StoreFuture<'_, ()>;

    /// Longest time for which a transaction may be open.
    fn max_transaction(&self) -> Duration;
}

/// A transaction that is open. Dropped, it is rolled back.
#[allow(dead_code, reason = "only a database reads them")]
pub struct OpenTransaction {
    pub(crate) inner: Box<dyn Any + Send>,
    /// Name of the database, for errors.
    pub(crate) database: &'static str,
    /// Its place among the transactions of the store.
    pub(crate) permit: Option<tokio::sync::OwnedSemaphorePermit>,
}

impl OpenTransaction {
    /// Creates a transaction; for stores of your own. `inner` is what the handler receives, such as
    /// `sqlx::Transaction<'static, D>`.
    #[must_use]
    pub fn new(inner: Box<dyn Any + Send>, database: &'static str) -> Self {
        Self { inner, database, permit: None }
    }
}

impl fmt::Debug for OpenTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTransaction").field("database", &self.database).finish_non_exhaustive()
    }
}

/// Result of [`RecordTransactions::commit_transaction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Committed {
    /// The writes and the end of the operation are stored.
    Stored,
    /// Another owner has the record; the writes are rolled back.
    Lost,
    /// The handler has ended the transaction itself. What it has committed is stored, and the end of the operation is not.
    EndedByHandler,
}
