//! Key-value stores, and what is built on them: events that are processed once, rate limits by fixed windows, operations
//! that are carried out once, and caches without stampedes.
//!
//! [`KeyValue`] is the port: bytes under keys, each with a time to live. [`MemoryStore`] keeps them in one process,
//! `SqliteStore` in a file and `PostgresStore` on a server (with the features `sqlite` and `postgres`). The same stores
//! implement [`RecordStore`], the port of [`IdempotentExecutor`] and [`GuardedCache`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::time::Duration;
//! use tollgate::key_value::{MemoryStore, already_processed};
//!
//! let store = MemoryStore::new();
//! let day = Duration::from_secs(86_400);
//! assert!(!already_processed(&store, b"evt_1", day).await?);
//! assert!(already_processed(&store, b"evt_1", day).await?); // the webhook was delivered twice
//! # Ok::<(), tollgate::key_value::KeyValueError>(())
//! # }).unwrap();
//! ```

mod error;
mod executor;
mod guarded;
mod limits;
mod memory;
mod owned;
mod port;
mod processed;
mod record;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
#[allow(clippy::incompatible_msrv, reason = "sqlx needs Rust 1.94")]
mod sql;
mod window;

pub use error::{KeyValueError, KeyValueErrorKind};
pub use executor::{Executed, IdempotentError, IdempotentExecutor};
pub use guarded::{GuardedCache, GuardedCacheError};
#[cfg(feature = "idempotency")]
pub(crate) use limits::setting;
pub use limits::{MAX_BATCH, MAX_KEY, MAX_TTL};
pub use memory::MemoryStore;
#[cfg(feature = "idempotency")]
pub(crate) use owned::{Finished, OwnedRecord};
pub use port::{Incremented, KeyValue, ScanPage, StoreFuture, Ttl};
pub use processed::already_processed;
pub use record::{
    AfterLease, Answer, Begun, Claim, Committed, Completion, OpenTransaction, Owner, Ownership, RecordAbout, RecordKey,
    RecordStore, RecordTransactions, UnknownPage, UnknownRecord,
};
#[cfg(feature = "postgres")]
pub use sql::PostgresStore;
#[cfg(feature = "sqlite")]
pub use sql::SqliteStore;
pub use window::{WindowDecision, fixed_window};
