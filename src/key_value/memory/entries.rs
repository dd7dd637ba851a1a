//! Key-value operations of the store in memory. Each of them is one step under the lock of its entry.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{MemoryStore, Value, table::Edit};
use crate::key_value::{
    error::KeyValueError,
    limits,
    port::{Incremented, KeyValue, ScanPage, StoreFuture, Ttl},
};

impl Value {
    /// Returns the value as it is stored: a number counts on.
    fn of(bytes: &Bytes) -> Self {
        limits::number(bytes).map_or_else(|| Self::Bytes(Bytes::copy_from_slice(bytes)), Self::Number)
    }

    fn bytes(&self) -> Bytes {
        match self {
            Self::Bytes(bytes) => bytes.clone(),
            Self::Number(number) => Bytes::copy_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_) => 0, // in the slot itself
        }
    }
}

/// Returns the edit that stores a value under a key.
fn put(key: &[u8], value: Value, expires_at: Option<i64>) -> Edit<Value> {
    Edit::Put { bytes: key.len() + value.len(), value, expires_at }
}

/// Returns the time to live of an entry that expires at a time, or never.
fn left(expires_at: Option<i64>, now: i64) -> Ttl {
    expires_at.map_or(Ttl::Forever, |at| Ttl::Left(Duration::from_micros(at.abs_diff(now))))
}

impl MemoryStore {
    /// Returns the time at which an entry that is stored now expires.
    fn expiry(&self, ttl: Option<Duration>, now: i64) -> Result<Option<i64>, KeyValueError> {
        ttl.map(|ttl| Ok(now.saturating_add(limits::ttl(ttl)?))).transpose()
    }

    /// Changes an entry of a valid key.
    fn change<T>(
        &self,
        key: &[u8],
        now: i64,
        change: impl FnMut(Option<(&Value, Option<i64>)>) -> (Edit<Value>, T),
    ) -> Result<T, KeyValueError> {
        limits::key(key)?;
        self.entries.update(Bytes::copy_from_slice(key), now, change).map_err(|no_place| self.full(&no_place))
    }

    fn store(&self, key: &[u8], value: &Bytes, ttl: Option<Duration>, if_absent: bool) -> Result<bool, KeyValueError> {
        limits::value(value, self.max_value)?;
        let now = self.now();
        let expires_at = self.expiry(ttl, now)?;
        self.change(key, now, |present| match present {
            Some(_) if if_absent => (Edit::Keep, false),
            _ => (put(key, Value::of(value), expires_at), true),
        })
    }

    fn count(&self, key: &[u8], ttl: Option<Duration>) -> Result<Incremented, KeyValueError> {
        let now = self.now();
        let created = self.expiry(ttl, now)?;
        self.change(key, now, |present| {
            let (number, expires_at) = match present {
                None => (1, created),
                Some((Value::Number(number), expires_at)) if *number < i64::MAX => (number + 1, expires_at),
                Some(_) => return (Edit::Keep, Err(KeyValueError::not_a_number())),
            };
            let counted = Incremented { number, ttl: left(expires_at, now) };
            (put(key, Value::Number(number), expires_at), Ok(counted))
        })?
    }

    fn page(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<ScanPage, KeyValueError> {
        limits::scan(prefix, limit)?;
        let mut first = BTreeSet::new();
        self.entries.each(self.now(), |key, _| {
            if key.starts_with(prefix) && after.is_none_or(|after| **key > *after) {
                first.insert(key.clone());
                if first.len() > limit + 1 {
                    first.pop_last();
                }
            }
        });
        Ok(ScanPage::of(first.into_iter().collect(), limit))
    }
}

impl KeyValue for MemoryStore {
    fn connect(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn disconnect(&self) -> StoreFuture<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Option<Bytes>> {
        Box::pin(async move {
            limits::key(key)?;
            Ok(self.entries.read(key, self.now(), |entry| entry.map(|(value, _)| value.bytes())))
        })
    }

    fn set<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move { self.store(key, &value, ttl, false).map(drop) })
    }

    fn delete<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool> {
        Box::pin(async move { self.change(key, self.now(), |present| (Edit::Remove, present.is_some())) })
    }

    fn exists<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, bool> {
        Box::pin(async move { self.get(key).await.map(|value| value.is_some()) })
    }

    fn mget<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            limits::keys(keys.iter().copied())?;
            Ok(self.entries.read_all(keys, self.now(), Value::bytes))
        })
    }

    fn mset<'a>(&'a self, entries: &'a [(&'a [u8], Bytes)], ttl: Option<Duration>) -> StoreFuture<'a, ()> {
        Box::pin(async move {
            let entries = limits::entries(entries, self.max_value)?;
            let now = self.now();
            let expires_at = self.expiry(ttl, now)?;
            let entry = |(key, value): (&[u8], &Bytes)| {
                let value = Value::of(value);
                (Bytes::copy_from_slice(key), key.len() + value.len(), value)
            };
            let batch: Vec<_> = entries.into_iter().map(entry).collect();
            self.entries.put_all(&batch, expires_at, now).map_err(|no_place| self.full(&no_place))
        })
    }

    fn delete_many<'a>(&'a self, keys: &'a [&'a [u8]]) -> StoreFuture<'a, u64> {
        Box::pin(async move {
            limits::keys(keys.iter().copied())?;
            let now = self.now();
            keys.iter().try_fold(0, |removed, key| {
                self.change(key, now, |present| (Edit::Remove, removed + u64::from(present.is_some())))
            })
        })
    }

    fn ttl<'a>(&'a self, key: &'a [u8]) -> StoreFuture<'a, Ttl> {
        Box::pin(async move {
            limits::key(key)?;
            let now = self.now();
            Ok(self.entries.read(key, now, |entry| entry.map_or(Ttl::Missing, |(_, expires_at)| left(expires_at, now))))
        })
    }

    fn expire<'a>(&'a self, key: &'a [u8], ttl: Option<Duration>) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let now = self.now();
            let expires_at = self.expiry(ttl, now)?;
            self.change(key, now, |present| match present {
                None => (Edit::Keep, false),
                Some((value, _)) => (put(key, value.clone(), expires_at), true),
            })
        })
    }

    fn set_nx<'a>(&'a self, key: &'a [u8], value: Bytes, ttl: Option<Duration>) -> StoreFuture<'a, bool> {
        Box::pin(async move { self.store(key, &value, ttl, true) })
    }

    fn incr<'a>(&'a self, key: &'a [u8], ttl_if_created: Option<Duration>) -> StoreFuture<'a, Incremented> {
        Box::pin(async move { self.count(key, ttl_if_created) })
    }

    fn scan<'a>(&'a self, prefix: &'a [u8], after: Option<&'a [u8]>, limit: usize) -> StoreFuture<'a, ScanPage> {
        Box::pin(async move { self.page(prefix, after, limit) })
    }
}
