//! The store in memory, for one process.

mod entries;
mod table;

use std::fmt;

use bytes::Bytes;
use table::ExpiringTable;

use super::{
    error::{KeyValueError, KeyValueErrorKind},
    limits::DEFAULT_MAX_VALUE,
};
use crate::{error::ConfigError, time::Clock};

/// A key-value store in memory, bounded by entries and by bytes.
///
/// What it stores is lost when the process ends. An entry that has not expired is never evicted: without room a call is
/// an error of the kind [`Full`](super::KeyValueErrorKind::Full). Each change removes a few entries that have expired, also
/// those that are asked for no more.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::key_value::{KeyValue, KeyValueErrorKind, MemoryStore};
///
/// let store = MemoryStore::new().max_entries(1);
/// store.set(b"one", "1".into(), None).await.unwrap();
/// let full = store.set(b"two", "2".into(), None).await.unwrap_err();
/// assert_eq!(full.kind(), KeyValueErrorKind::Full);
/// # });
/// ```
pub struct MemoryStore {
    entries: ExpiringTable<Bytes, Value>,
    max_value: usize,
    clock: Clock,
}

/// A value: bytes, or a number that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bytes(Bytes),
    Number(i64),
}

impl MemoryStore {
    /// Creates a store of at most 100,000 entries and 64 MiB.
    #[must_use]
    pub fn new() -> Self {
        let entries = ExpiringTable::new(100_000, 64 << 20);
        Self { entries, max_value: DEFAULT_MAX_VALUE, clock: Clock::system() }
    }

    /// Sets the greatest number of entries.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn max_entries(mut self, entries: usize) -> Self {
        ConfigError::or_panic(ConfigError::require(entries > 0, "max_entries", "be positive", entries));
        self.entries.max_entries = entries;
        self
    }

    /// Sets the greatest number of bytes: of keys, of values, and 128 for each entry.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        ConfigError::or_panic(ConfigError::require(bytes > 0, "max_bytes", "be positive", bytes));
        self.entries.max_bytes = bytes;
        self
    }

    /// Sets the greatest length of a value in bytes; default 1 MiB.
    #[must_use]
    pub const fn max_value(mut self, bytes: usize) -> Self {
        self.max_value = bytes;
        self
    }

    /// Sets the clock, for tests.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use tollgate::{FakeClock, key_value::{KeyValue, MemoryStore}};
    ///
    /// let clock = FakeClock::new();
    /// let store = MemoryStore::new().clock(clock.clone());
    /// store.set(b"code", "1234".into(), Some(Duration::from_secs(30))).await.unwrap();
    /// clock.advance(Duration::from_secs(30));
    /// assert_eq!(store.get(b"code").await.unwrap(), None);
    /// # });
    /// ```
    #[must_use]
    pub fn clock(mut self, clock: impl Into<Clock>) -> Self {
        self.clock = clock.into();
        self
    }

    /// Returns the time in microseconds. Rounded down, so that what is stored now never expires early.
    fn now(&self) -> i64 {
        i64::try_from(self.clock.now().as_nanos() / 1_000).unwrap_or(i64::MAX)
    }

    fn full(&self, no_place: &table::NoPlace) -> KeyValueError {
        let (entries, bytes) = (self.entries.max_entries, self.entries.max_bytes);
        KeyValueError::new(
            KeyValueErrorKind::Full,
            if no_place.bytes {
                format!("no room in the store, all {bytes} bytes are taken; raise .max_bytes()")
            } else {
                format!("no room in the store, all {entries} entries are taken; raise .max_entries()")
            },
        )
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows the numbers of entries and of bytes, and no content.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, bytes) = self.entries.used();
        f.debug_struct("MemoryStore").field("entries", &entries).field("bytes", &bytes).finish_non_exhaustive()
    }
}
