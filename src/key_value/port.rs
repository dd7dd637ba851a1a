//! Port of key-value stores.

use std::{pin::Pin, time::Duration};

use bytes::Bytes;

use super::error::KeyValueError;

/// Future of an operation of a store.
pub type StoreFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, KeyValueError>> + Send + 'a>>;

/// A key-value store: bytes under keys, each with a time to live or for ever.
///
/// Every store has the same bounds. A key has 1 to 1,024 bytes, a value at most 1 MiB unless the store is told otherwise,
/// a time to live is positive and at most ten years, a call names at most 1,000 keys. A call beyond them is an error, and
/// stores nothing. An entry whose time to live is over is as good as none for every operation.
///
/// A value that is the shortest decimal text of an `i64`, such as `42`, is a number: [`incr`](Self::incr) counts on from
/// it. What it counts is read back as such a text.
///
/// # Cancel safety
/// Each operation but [`delete_many`](Self::delete_many) is one step: dropped before it ends, it was carried out as a whole or
/// not at all.
///
/// # Errors
/// Every operation fails with [`Unavailable`](super::KeyValueErrorKind::Unavailable) if the store does not answer, with
/// [`Indeterminate`](super::KeyValueErrorKind::Indeterminate) if it may have carried out the operation, and with
/// [`Invalid`](super::KeyValueErrorKind::Invalid) outside of the bounds.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::{sync::Arc, time::Duration};
/// use tollgate::key_value::{KeyValue, MemoryStore, Ttl};
///
/// let store: Arc<dyn KeyValue> = Arc::new(MemoryStore::new());
/// store.set(b"session:7", "alice".into(), Some(Duration::from_secs(60))).await?;
/// assert_eq!(store.get(b"session:7").await?.unwrap(), "alice");
/// assert!(!store.set_nx(b"session:7", "bob".into(), None).await?); // it is there
/// assert_eq!(store.ttl(b"session:8").await?, Ttl::Missing);
/// # Ok::<(), tollgate::key_value::KeyValueError>(())
/// # }).unwrap();
/// ```
pub trait KeyValue: Send + Sync + 'static {
    /// Connects to the store and checks that it can be used. Every other operation connects too if it must.
    fn connect(&self) -> StoreFuture<'_, ()>;

    /// Closes the connections that the store has opened itself. A later operation opens new ones.
    fn disconnect(&self) -> StoreFuture<'_, ()>;

    /// Returns the value of a key.
    fn get<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Option<Bytes>>;

    /// Stores a value, and replaces the one that was there and its time to live. Without one it stays for ever.
    fn set<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()>;

    /// Removes a key; returns whether it was there.
    fn delete<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool>;

    /// Returns whether a key is there.
    fn exists<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool>;

    /// Returns the values of keys, in their order.
    fn mget<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, Vec<Option<Bytes>>>;

    /// Stores all values, or none. Of a key that is named twice the last value counts.
    fn mset<'a>(&'a self, entries: &'a [(&'a [u8], Bytes)], ttl: Option<Duration>) -> StoreFuture<'a, ()>;

    /// Removes keys, one after another; returns how many of them were there. A batch that is stored meanwhile may stay in part.
    fn delete_many<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, u64>;

    /// Returns the time to live that is left.
    fn ttl<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Ttl>;

    /// Sets the time to live from now on, or keeps the key for ever; returns whether it was there.
    fn expire<'a>(&'a self, key: &'a [u8], ttl: Option<Duration>) -> StoreFuture<'a, bool>;

    /// Stores a value unless the key is there; returns whether it was stored. Of callers at once, one stores.
    fn set_nx<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, bool>;

    /// Adds 1 to the number of a key, in one step. A key that is not there becomes 1 and gets the time to live; one that is
    /// there keeps its own.
    ///
    /// # Errors
    /// [`NotANumber`](super::KeyValueErrorKind::NotANumber) if the value is none, or is `i64::MAX`.
    fn incr<'a>(&'a self, key: &'a [u8], ttl_if_created: Option<Duration>) -> StoreFuture<'a, Incremented>;

    /// Returns at most `limit` keys that begin with `prefix` and come after the key `after`, in the order of their bytes.
    ///
    /// Keys that stay during a scan over several pages are returned once; others may be. It is no step: of a batch that is
    /// stored meanwhile it may see a part. In memory each page reads all keys.
    fn scan<'a>(&'a self, prefix: &'a [u8], after: Option<&'a [u8]>, limit: usize) -> StoreFuture<'a, ScanPage>;

    /// Whether entries may have a time to live. Without one, a call that names one is an error.
    fn supports_ttl(&self) -> bool {
        true
    }

    /// Whether [`scan`](Self::scan) is possible.
    fn supports_scan(&self) -> bool {
        true
    }

    /// Whether [`mset`](Self::mset) stores all or nothing.
    fn supports_batch(&self) -> bool {
        true
    }
}

/// Time to live of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ttl {
    /// The key is not there.
    Missing,
    /// The key stays for ever.
    Forever,
    /// The key stays for this long.
    Left(Duration),
}

/// Result of [`KeyValue::incr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incremented {
    /// The number after the addition.
    pub number: i64,
    /// The time to live that is left; never [`Ttl::Missing`].
    pub ttl: Ttl,
}

/// Result of [`KeyValue::scan`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanPage {
    /// The keys, in the order of their bytes.
    pub keys: Vec<Bytes>,
    /// The key after which the next page begins; `None` after the last page.
    pub next: Option<Bytes>,
}

impl ScanPage {
    /// Creates a page of the first `limit` of `keys`, which are one more if another page follows.
    pub(crate) fn of(mut keys: Vec<Bytes>, limit: usize) -> Self {
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| more).cloned();
        Self { keys, next }
    }
}
