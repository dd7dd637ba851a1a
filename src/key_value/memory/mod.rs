//! The store in memory, for one process.

mod entries;
mod records;
mod table;

use std::fmt;

use bytes::Bytes;
use records::{ClientShares, RecordEntry};
use table::ExpiringTable;

use super::{
    error::{KeyValueError, KeyValueErrorKind},
    limits::DEFAULT_MAX_VALUE,
    record::RecordKey,
};
use crate::{error::ConfigError, time::Clock};

/// A key-value store and a record store in memory, bounded by entries, by records and by bytes.
///
/// All that it stores is lost when the process ends. An entry or a record that has not expired is never evicted: without room
/// a call is an error of the kind [`Full`](super::KeyValueErrorKind::Full). Each change removes a few that have expired,
/// also those that are asked for no more.
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
    records: ExpiringTable<RecordKey, RecordEntry>,
    shares: ClientShares,
    max_records_per_client: usize,
    max_answers_per_client: Option<usize>,
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
    /// Creates a store of at most 100,000 entries in 64 MiB, and as many records in 64 MiB more.
    #[must_use]
    pub fn new() -> Self {
        let (entries, records) = (ExpiringTable::new(100_000, 64 << 20), ExpiringTable::new(100_000, 64 << 20));
        let (shares, max_value, clock) = (ClientShares::default(), DEFAULT_MAX_VALUE, Clock::system());
        let (max_records_per_client, max_answers_per_client) = (10_000, None);
        Self { entries, records, shares, max_records_per_client, max_answers_per_client, max_value, clock }
    }

    /// Sets the greatest number of entries; default 100,000.
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

    /// Sets the greatest number of bytes of entries: of keys, of values, and 128 for each; default 64 MiB.
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

    /// Sets the greatest number of records; default 100,000.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn max_records(mut self, records: usize) -> Self {
        ConfigError::or_panic(ConfigError::require(records > 0, "max_records", "be positive", records));
        self.records.max_entries = records;
        self
    }

    /// Sets the greatest number of bytes of records: of answers, of texts, and 256 for each; default 64 MiB.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        ConfigError::or_panic(ConfigError::require(bytes > 0, "max_record_bytes", "be positive", bytes));
        self.records.max_bytes = bytes;
        self
    }

    /// Sets the greatest number of records of one [client](super::Claim::client), so that a client with ever new keys leaves
    /// room for others; default 10,000.
    ///
    /// # Panics
    /// If it is 0.
    #[must_use]
    #[track_caller]
    pub fn max_records_per_client(mut self, records: usize) -> Self {
        ConfigError::or_panic(ConfigError::require(records > 0, "max_records_per_client", "be positive", records));
        self.max_records_per_client = records;
        self
    }

    /// Sets the greatest number of bytes of answers of one client, so that a client with long answers leaves room for others;
    /// default a quarter of [`max_record_bytes`](Self::max_record_bytes). The answers of all have at most three quarters of
    /// it. An answer beyond that is not retained.
    #[must_use]
    pub const fn max_answer_bytes_per_client(mut self, bytes: usize) -> Self {
        self.max_answers_per_client = Some(bytes);
        self
    }

    /// Sets the greatest length in bytes of a value, and of an answer; default 1 MiB.
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
        full(&if no_place.bytes {
            format!("all {bytes} bytes are taken; raise .max_bytes()")
        } else {
            format!("all {entries} entries are taken; raise .max_entries()")
        })
    }
}

fn full(why: &str) -> KeyValueError {
    KeyValueError::new(KeyValueErrorKind::Full, format!("no room in the store, {why}"))
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows the numbers of entries and records and of their bytes, and no content.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((entries, bytes), (records, record_bytes)) = (self.entries.used(), self.records.used());
        let mut shown = f.debug_struct("MemoryStore");
        shown.field("entries", &entries).field("bytes", &bytes);
        shown.field("records", &records).field("record_bytes", &record_bytes).finish_non_exhaustive()
    }
}
