//! The store in an SQL database: a table of entries and one of records, one statement for each operation.

mod driver;
mod entries;
mod opening;
#[cfg(feature = "postgres")]
mod postgres;
mod records;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
mod transactions;

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use driver::SqlDriver;
use opening::PoolSource;
#[cfg(feature = "postgres")]
pub use postgres::PostgresStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;
use tokio::sync::{OnceCell, Semaphore};

use super::limits::DEFAULT_MAX_VALUE;
use crate::time::Clock;

/// A store in a database that is reached through a pool.
struct SqlStore<D: SqlDriver> {
    source: PoolSource<D>,
    /// Set once the tables are there and the database keeps what it acknowledges.
    checked: OnceCell<()>,
    max_value: usize,
    /// Places of the transactions that handlers share.
    transactions: OnceLock<Arc<Semaphore>>,
    max_transaction: Duration,
    /// Clock in place of the database's, for tests.
    clock: Option<Clock>,
}

impl<D: SqlDriver> SqlStore<D> {
    fn new(source: PoolSource<D>) -> Self {
        Self {
            source,
            checked: OnceCell::new(),
            max_value: DEFAULT_MAX_VALUE,
            transactions: OnceLock::new(),
            max_transaction: D::MAX_TRANSACTION,
            clock: None,
        }
    }

    /// Returns the expression of the present time, in microseconds since 1970.
    fn now(&self) -> Cow<'static, str> {
        match &self.clock {
            None => D::NOW.into(),
            Some(clock) => clock.wall().as_micros().to_string().into(),
        }
    }
}

impl<D: SqlDriver> fmt::Debug for SqlStore<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlStore").field("database", &D::NAME).finish_non_exhaustive()
    }
}

/// Implements both ports for a store that has its operations in field 0, and its setters.
macro_rules! sql_store {
    ($store:ident) => {
        impl $store {
            /// Sets the greatest length in bytes of a value, and of an answer; default 1 MiB.
            #[must_use]
            pub fn max_value(mut self, bytes: usize) -> Self {
                self.0.max_value = bytes;
                self
            }

            /// Sets the longest time for which a transaction that a handler shares may be open; default 2 s in SQLite, where
            /// it blocks every other write of the file, and 30 s in PostgreSQL.
            #[must_use]
            pub fn max_transaction(mut self, time: Duration) -> Self {
                self.0.max_transaction = time;
                self
            }

            /// Sets the clock of the store, for tests: an entry expires when the test says so. Without it the database's
            /// clock counts, which all its processes share.
            #[must_use]
            pub fn clock(mut self, clock: impl Into<crate::time::Clock>) -> Self {
                self.0.clock = Some(clock.into());
                self
            }
        }

        impl $crate::key_value::KeyValue for $store {
            fn connect(&self) -> StoreFuture<'_, ()> {
                Box::pin(async move { self.0.connection().await.map(drop) })
            }

            fn disconnect(&self) -> StoreFuture<'_, ()> {
                Box::pin(async move { Ok(self.0.disconnect().await) })
            }

            fn get<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Option<Bytes>> {
                Box::pin(self.0.get(key))
            }

            fn set<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
                Box::pin(self.0.set(key, value, ttl))
            }

            fn delete<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool> {
                Box::pin(self.0.delete(key))
            }

            fn exists<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool> {
                Box::pin(async move { Ok(self.0.ttl(key).await? != Ttl::Missing) })
            }

            fn mget<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
                Box::pin(self.0.mget(keys))
            }

            fn mset<'a>(&'a self, entries: &'a [(&'a [u8], Bytes)], ttl: Option<Duration>) -> StoreFuture<'a, ()> {
                Box::pin(self.0.mset(entries, ttl))
            }

            fn delete_many<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, u64> {
                Box::pin(self.0.delete_many(keys))
            }

            fn ttl<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Ttl> {
                Box::pin(self.0.ttl(key))
            }

            fn expire<'a>(&'a self, key: &'a [u8], ttl: Option<Duration>) -> StoreFuture<'a, bool> {
                Box::pin(self.0.expire(key, ttl))
            }

            fn set_nx<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, bool> {
                Box::pin(self.0.set_nx(key, value, ttl))
            }

            fn incr<'a>(&'a self, key: &'a [u8], ttl_if_created: Option<Duration>) -> StoreFuture<'a, Incremented> {
                Box::pin(self.0.incr(key, ttl_if_created))
            }

            fn scan<'a>(
                &'a self,
                prefix: &'a [u8],
                after: Option<&'a [u8]>,
                limit: usize,
            ) -> StoreFuture<'a, ScanPage> {
                Box::pin(self.0.scan(prefix, after, limit))
            }
        }

        impl RecordStore for $store {
            fn begin<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Begun> {
                Box::pin(self.0.begin(claim))
            }

            fn find<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, Option<Answer>> {
                Box::pin(self.0.find(key))
            }

            fn renew<'a>(
                &'a self,
                key: &'a RecordKey,
                owner: &'a Owner,
                lease: Duration,
            ) -> StoreFuture<'a, Ownership> {
                Box::pin(self.0.renew(key, owner, lease))
            }

            fn complete<'a>(
                &'a self,
                key: &'a RecordKey,
                owner: &'a Owner,
                completion: &'a Completion,
                life: Duration,
            ) -> StoreFuture<'a, Ownership> {
                Box::pin(self.0.complete(key, owner, completion, life))
            }

            fn abandon<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner) -> StoreFuture<'a, Ownership> {
                Box::pin(self.0.abandon(key, owner))
            }

            fn unknown<'a>(&'a self, after: Option<&'a RecordKey>, limit: usize) -> StoreFuture<'a, UnknownPage> {
                Box::pin(self.0.unknown(after, limit))
            }

            fn settle<'a>(
                &'a self,
                key: &'a RecordKey,
                completion: &'a Completion,
                life: Duration,
            ) -> StoreFuture<'a, bool> {
                Box::pin(self.0.settle(key, completion, life))
            }

            fn release<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, bool> {
                Box::pin(self.0.release(key))
            }

            fn max_answer(&self) -> usize {
                self.0.max_value
            }

            fn transactions(&self) -> Option<&dyn RecordTransactions> {
                Some(self)
            }
        }

        impl RecordTransactions for $store {
            fn begin_transaction(&self) -> StoreFuture<'_, OpenTransaction> {
                Box::pin(self.0.begin_transaction())
            }

            fn commit_transaction<'a>(
                &'a self,
                transaction: OpenTransaction,
                undo: bool,
                key: &'a RecordKey,
                owner: &'a Owner,
                completion: &'a Completion,
                life: Duration,
            ) -> StoreFuture<'a, Committed> {
                Box::pin(self.0.commit_transaction(transaction, undo, key, owner, completion, life))
            }

            fn roll_back_transaction(&self, transaction: OpenTransaction) -> StoreFuture<'_, ()> {
                Box::pin(self.0.roll_back_transaction(transaction))
            }

            fn max_transaction(&self) -> Duration {
                self.0.max_transaction
            }
        }
    };
}
use sql_store;
