//! Execution of an operation as the handler sees it, and the transaction that it shares with the record.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, time::sleep};

use crate::key_value::{OpenTransaction, RecordKey, RecordStore};

/// Execution of an operation: in the extensions of each request that an [`IdempotencyLayer`](super::IdempotencyLayer) hands
/// to the handler under a record. A request that passes without a record has none: without a key, unless
/// [`required`](super::IdempotencyLayer::required), and under
/// [`PassUnprotected`](super::OnStoreFailure::PassUnprotected).
///
/// Over a store in SQL, [`transaction`](Self::transaction) is a transaction that is committed together with the record. The
/// handler's writes are then made exactly once: a process that dies in between leaves neither, so that the operation may
/// run again ([`AfterLease::Rerun`](crate::key_value::AfterLease::Rerun)).
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// async fn pay(
///     axum::Extension(execution): axum::Extension<tollgate::idempotency::IdempotentExecution>,
///     amount: String,
/// ) -> Result<(http::StatusCode, &'static str), http::StatusCode> {
///     let unavailable = |_| http::StatusCode::SERVICE_UNAVAILABLE; // from 500 on all is rolled back, and the key is free
///     let mut transaction = execution.transaction::<sqlx::Sqlite>().await.map_err(unavailable)?;
///     let insert = sqlx::query("INSERT INTO payments (amount) VALUES ($1)").bind(amount);
///     insert.execute(&mut *transaction).await.map_err(|_| http::StatusCode::SERVICE_UNAVAILABLE)?;
///     Ok((http::StatusCode::CREATED, "paid")) // committed with this answer
/// }
/// ```
#[derive(Clone)]
pub struct IdempotentExecution(Arc<ExecutionState>);

struct ExecutionState {
    store: Arc<dyn RecordStore>,
    record: RecordKey,
    attempt: u32,
    key: String,
    slot: Mutex<TransactionSlot>,
    opened: Notify,
}

/// Place of the transaction.
#[allow(dead_code, reason = "only a database has transactions")]
enum TransactionSlot {
    Unused,
    Open(OpenTransaction),
    /// The handler has it.
    Lent,
    /// The operation has ended.
    Closed,
}

/// Transaction at the end of the handler.
pub(super) enum AtEnd {
    Unused,
    Open(OpenTransaction),
    /// The handler keeps it beyond its answer.
    Lent,
}

impl IdempotentExecution {
    pub(super) fn new(store: Arc<dyn RecordStore>, record: RecordKey, attempt: u32, key: String) -> Self {
        let (slot, opened) = (Mutex::new(TransactionSlot::Unused), Notify::new());
        Self(Arc::new(ExecutionState { store, record, attempt, key, slot, opened }))
    }

    /// Returns the number of executions that have begun the operation, this one included. From 2 on it may have been carried
    /// out in part.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.attempt
    }

    /// Returns the key of the record: the same for all executions of the operation, and of no other client, method or route.
    ///
    /// Its text is a job id for a quota further in, so that an operation is charged once, however often it is executed:
    ///
    /// ```
    /// use tollgate::{JobIdSource, Plan, QuotaLayer, idempotency::IdempotentExecution};
    ///
    /// let jobs = JobIdSource::from_head(|request| {
    ///     Some(request.extensions.get::<IdempotentExecution>()?.record().to_string())
    /// });
    /// let quota = QuotaLayer::new(Plan::standard()).job_ids(jobs);
    /// ```
    #[must_use]
    pub fn record(&self) -> RecordKey {
        self.0.record
    }

    /// Returns the key that the client has sent.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }

    fn slot(&self) -> MutexGuard<'_, TransactionSlot> {
        self.0.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a transaction has been open for too long.
    pub(super) async fn overdue(&self) {
        self.0.opened.notified().await;
        match self.0.store.transactions() {
            Some(transactions) => sleep(transactions.max_transaction()).await,
            None => std::future::pending().await,
        }
    }

    /// Ends the handler's use of the transaction.
    pub(super) fn close(&self) -> AtEnd {
        let before = std::mem::replace(&mut *self.slot(), TransactionSlot::Closed);
        match before {
            TransactionSlot::Unused | TransactionSlot::Closed => AtEnd::Unused,
            TransactionSlot::Open(transaction) => AtEnd::Open(transaction),
            TransactionSlot::Lent => AtEnd::Lent,
        }
    }
}

impl fmt::Debug for IdempotentExecution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentExecution").field("attempt", &self.attempt()).finish_non_exhaustive()
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[allow(clippy::incompatible_msrv, reason = "sqlx needs Rust 1.94")]
mod shared {
    use std::{
        fmt,
        marker::PhantomData,
        ops::{Deref, DerefMut},
    };

    use sqlx::{Database, Transaction};

    use super::{IdempotentExecution, TransactionSlot};
    use crate::key_value::{KeyValueError, KeyValueErrorKind, OpenTransaction};

    /// Transaction that the handler shares with the record of its operation. It derefs to the connection.
    ///
    /// It has no commit: dropped, it waits for the answer. An answer below 400 commits it, one from 400 to 499 rolls the
    /// handler's writes back and stores the answer, one from 500 on rolls all back and frees the key, as do an error, a
    /// panic and a body that fails; under [`EvenFailures`](crate::idempotency::Replay::EvenFailures) they roll back the
    /// writes, and the key stays taken. An answer that is sent while the handler still has the transaction is replaced by 500.
    ///
    /// The handler must not end the transaction with a statement of its own. If it does, the record is completed after it,
    /// and no longer together with it.
    pub struct SharedTransaction<D: Database> {
        open: Option<OpenTransaction>,
        execution: IdempotentExecution,
        database: PhantomData<fn() -> D>,
    }

    /// Gives the slot back if the transaction cannot be begun.
    struct Begins<'a>(&'a IdempotentExecution);

    impl Drop for Begins<'_> {
        fn drop(&mut self) {
            let mut slot = self.0.slot();
            if matches!(*slot, TransactionSlot::Lent) {
                *slot = TransactionSlot::Unused;
            }
        }
    }

    impl IdempotentExecution {
        /// Returns the transaction of the operation, and begins it at the first call: in SQLite with `BEGIN IMMEDIATE`, which
        /// blocks other writes of the file until the answer.
        ///
        /// A pool of the program must have at least three connections: two stay for the records. A transaction that is open
        /// for longer than the store's `max_transaction` is rolled back, and the request refused with 503.
        ///
        /// # Errors
        /// - [`Refused`](KeyValueErrorKind::Refused): the store has no transactions, or the pool too few connections
        /// - [`Unavailable`](KeyValueErrorKind::Unavailable): no connection was free in time, or the database does not answer
        /// - [`Invalid`](KeyValueErrorKind::Invalid): the store is in another database, the handler has the transaction
        ///   already, or the operation has ended
        ///
        /// # Cancel safety
        /// Dropped before it ends, no transaction is begun.
        pub async fn transaction<D: Database>(&self) -> Result<SharedTransaction<D>, KeyValueError> {
            let error = |kind, reason: String| Err(KeyValueError::new(kind, reason));
            let Some(transactions) = self.0.store.transactions() else {
                let reason = "the record store has no transactions; use SqliteStore or PostgresStore";
                return error(KeyValueErrorKind::Refused, reason.into());
            };
            let before = std::mem::replace(&mut *self.slot(), TransactionSlot::Lent);
            let present = match before {
                TransactionSlot::Unused => None,
                TransactionSlot::Open(open) => Some(open),
                other @ (TransactionSlot::Lent | TransactionSlot::Closed) => {
                    let is_lent = matches!(other, TransactionSlot::Lent);
                    *self.slot() = other;
                    let why =
                        if is_lent { "the handler has it already; drop it first" } else { "the operation has ended" };
                    return error(KeyValueErrorKind::Invalid, format!("there is no transaction: {why}"));
                }
            };
            let open = match present {
                Some(open) => open,
                None => {
                    let begins = Begins(self);
                    let open = transactions.begin_transaction().await?;
                    std::mem::forget(begins);
                    self.0.opened.notify_one();
                    open
                }
            };
            let (is_of, database) = (open.inner.is::<Transaction<'static, D>>(), open.database);
            let shared = SharedTransaction { open: Some(open), execution: self.clone(), database: PhantomData };
            if is_of {
                return Ok(shared);
            }
            error(KeyValueErrorKind::Invalid, format!("the record store is in {database}, asked for {}", D::NAME))
        }
    }

    impl<D: Database> SharedTransaction<D> {
        fn of(open: Option<&OpenTransaction>) -> &Transaction<'static, D> {
            let of = open.and_then(|open| open.inner.downcast_ref());
            of.expect("the type was checked when it was made")
        }
    }

    impl<D: Database> Deref for SharedTransaction<D> {
        type Target = D::Connection;

        fn deref(&self) -> &D::Connection {
            Self::of(self.open.as_ref())
        }
    }

    impl<D: Database> DerefMut for SharedTransaction<D> {
        fn deref_mut(&mut self) -> &mut D::Connection {
            let of = self.open.as_mut().and_then(|open| open.inner.downcast_mut::<Transaction<'static, D>>());
            of.expect("the type was checked when it was made")
        }
    }

    impl<D: Database> Drop for SharedTransaction<D> {
        fn drop(&mut self) {
            let mut slot = self.execution.slot();
            if let (TransactionSlot::Lent, Some(open)) = (&*slot, self.open.take()) {
                *slot = TransactionSlot::Open(open);
            } // else the operation has ended without it, and it is rolled back
        }
    }

    impl<D: Database> fmt::Debug for SharedTransaction<D> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("SharedTransaction").field("database", &D::NAME).finish_non_exhaustive()
        }
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use shared::SharedTransaction;
