//! A bounded table whose entries expire: the inside of the store in memory.

use std::{
    borrow::Borrow,
    collections::BTreeMap,
    hash::Hash,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::{DashMap, Entry};

/// Expired entries that a change removes beside its own work.
const PURGED: usize = 2;

/// Expired entries that a change removes at once where there is no room for it.
const PURGED_FOR_ROOM: usize = 64;

/// Bytes that an entry takes beside its key and value: slots of the map and of the order of expiry.
const OVERHEAD: usize = 128;

/// Entries by key, at most so many and so many bytes. Times are microseconds.
///
/// An entry that has expired is as good as none. Each change removes two others that have.
pub(super) struct ExpiringTable<K, V> {
    entries: DashMap<K, Slot<V>>,
    /// Keys by the time at which they expire, and a number that tells apart those of one time.
    due: Mutex<BTreeMap<(i64, u64), K>>,
    numbers: AtomicU64,
    /// Held by a batch alone, and by all others together, so that they see all of a batch or nothing.
    batches: RwLock<()>,
    pub(super) max_entries: usize,
    pub(super) max_bytes: usize,
    used_entries: AtomicUsize,
    used_bytes: AtomicUsize,
}

struct Slot<V> {
    value: V,
    bytes: usize,
    due: Option<(i64, u64)>,
}

/// Change of an entry.
pub(super) enum Edit<V> {
    Keep,
    /// Stores a value of this many bytes, key included, that expires at a time.
    Put {
        value: V,
        bytes: usize,
        expires_at: Option<i64>,
    },
    Remove,
}

/// A change for which there is no room. Nothing has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoPlace {
    /// Whether the bytes are used up, not the entries.
    pub(super) bytes: bool,
}

impl<K: Hash + Eq + Clone, V> ExpiringTable<K, V> {
    pub(super) fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            entries: DashMap::new(),
            due: Mutex::default(),
            numbers: AtomicU64::new(0),
            batches: RwLock::new(()),
            max_entries,
            max_bytes,
            used_entries: AtomicUsize::new(0),
            used_bytes: AtomicUsize::new(0),
        }
    }

    /// Returns the numbers of entries and of bytes, with those that have expired and are not removed yet.
    pub(super) fn used(&self) -> (usize, usize) {
        (self.used_entries.load(Relaxed), self.used_bytes.load(Relaxed))
    }

    /// Reads an entry, with the time at which it expires.
    pub(super) fn read<Q, T>(&self, key: &Q, now: i64, read: impl FnOnce(Option<(&V, Option<i64>)>) -> T) -> T
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let _together = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        self.peek(key, now, read)
    }

    /// Reads entries as they are at one time: before or after each batch.
    pub(super) fn read_all<Q, T>(&self, keys: &[&Q], now: i64, read: impl Fn(&V) -> T) -> Vec<Option<T>>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let _together = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(|key| self.peek(*key, now, |entry| entry.map(|(value, _)| read(value)))).collect()
    }

    fn peek<Q, T>(&self, key: &Q, now: i64, read: impl FnOnce(Option<(&V, Option<i64>)>) -> T) -> T
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let slot = self.entries.get(key);
        read(slot.as_deref().filter(|slot| !slot.is_over(now)).map(Slot::content))
    }

    /// Changes an entry as `change` says, which is called with what is there, again if room had to be made.
    pub(super) fn update<T>(
        &self,
        key: K,
        now: i64,
        mut change: impl FnMut(Option<(&V, Option<i64>)>) -> (Edit<V>, T),
    ) -> Result<T, NoPlace> {
        self.purge(now, PURGED);
        loop {
            let together = self.batches.read().unwrap_or_else(PoisonError::into_inner);
            let updated = self.try_update(key.clone(), now, &mut change);
            drop(together);
            if updated.is_ok() || !self.purge_for_room(now) {
                return updated;
            }
        }
    }

    /// Stores all values or none; each with its key and its bytes, and no key twice.
    pub(super) fn put_all(&self, batch: &[(K, usize, V)], expires_at: Option<i64>, now: i64) -> Result<(), NoPlace>
    where
        V: Clone,
    {
        self.purge(now, PURGED);
        loop {
            let alone = self.batches.write().unwrap_or_else(PoisonError::into_inner);
            let reserved = self.reserve_all(batch);
            if reserved.is_ok() {
                for (key, bytes, value) in batch {
                    let (bytes, value) = (bytes.saturating_add(OVERHEAD), value.clone());
                    let before = self.entries.get(key).and_then(|slot| slot.due);
                    let due = self.plan(before, key, expires_at);
                    self.entries.insert(key.clone(), Slot { value, bytes, due });
                }
                return Ok(());
            }
            drop(alone);
            if !self.purge_for_room(now) {
                return reserved;
            }
        }
    }

    /// Takes room for the entries of a batch, under its lock, in place of that of the entries which it replaces.
    fn reserve_all(&self, batch: &[(K, usize, V)]) -> Result<(), NoPlace> {
        let (mut new, mut more, mut less) = (0, 0_usize, 0);
        for (key, bytes, _) in batch {
            let before = self.entries.get(key).map(|slot| slot.bytes);
            new += usize::from(before.is_none());
            more = more.saturating_add(bytes.saturating_add(OVERHEAD));
            less += before.unwrap_or(0);
        }
        reserve(&self.used_entries, new, self.max_entries).map_err(|()| NoPlace { bytes: false })?;
        if reserve(&self.used_bytes, more.saturating_sub(less), self.max_bytes).is_err() {
            self.used_entries.fetch_sub(new, Relaxed);
            return Err(NoPlace { bytes: true });
        }
        self.used_bytes.fetch_sub(less.saturating_sub(more), Relaxed);
        Ok(())
    }

    fn try_update<T>(
        &self,
        key: K,
        now: i64,
        change: &mut impl FnMut(Option<(&V, Option<i64>)>) -> (Edit<V>, T),
    ) -> Result<T, NoPlace> {
        match self.entries.entry(key) {
            Entry::Occupied(mut occupied) => {
                let slot = occupied.get();
                let (edit, result) = change(Some(slot).filter(|slot| !slot.is_over(now)).map(Slot::content));
                match edit {
                    Edit::Keep => {}
                    Edit::Put { value, bytes, expires_at } => {
                        let (bytes, before) = (bytes.saturating_add(OVERHEAD), slot.bytes);
                        if bytes > before {
                            reserve(&self.used_bytes, bytes - before, self.max_bytes)
                                .map_err(|()| NoPlace { bytes: true })?;
                        } else {
                            self.used_bytes.fetch_sub(before - bytes, Relaxed);
                        }
                        let due = self.plan(slot.due, occupied.key(), expires_at);
                        *occupied.get_mut() = Slot { value, bytes, due };
                    }
                    Edit::Remove => self.removed(&occupied.remove()),
                }
                Ok(result)
            }
            Entry::Vacant(vacant) => {
                let (edit, result) = change(None);
                if let Edit::Put { value, bytes, expires_at } = edit {
                    let bytes = bytes.saturating_add(OVERHEAD);
                    reserve(&self.used_bytes, bytes, self.max_bytes).map_err(|()| NoPlace { bytes: true })?;
                    if reserve(&self.used_entries, 1, self.max_entries).is_err() {
                        self.used_bytes.fetch_sub(bytes, Relaxed);
                        return Err(NoPlace { bytes: false });
                    }
                    let due = self.plan(None, vacant.key(), expires_at);
                    vacant.insert(Slot { value, bytes, due });
                }
                Ok(result)
            }
        }
    }

    /// Calls `visit` with each entry that has not expired, one part of the table after the other.
    pub(super) fn each(&self, now: i64, mut visit: impl FnMut(&K, &V)) {
        let present = self.entries.iter().filter(|entry| !entry.value().is_over(now));
        present.for_each(|entry| visit(entry.key(), &entry.value().value));
    }

    /// Removes some entries that have expired; returns whether there were any. Another thread may have removed them.
    pub(super) fn purge_for_room(&self, now: i64) -> bool {
        self.purge(now, PURGED_FOR_ROOM)
    }

    /// Removes at most `most` entries that have expired; returns whether there were any.
    fn purge(&self, now: i64, most: usize) -> bool {
        let keys: Vec<K> = {
            let due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            due.range(..=(now, u64::MAX)).take(most).map(|(_, key)| key.clone()).collect()
        };
        let _together = self.batches.read().unwrap_or_else(PoisonError::into_inner);
        // Not under the lock of the order, which is the inner one.
        let removed = keys.iter().filter_map(|key| self.entries.remove_if(key, |_, slot| slot.is_over(now)));
        removed.for_each(|(_, slot)| self.removed(&slot));
        !keys.is_empty()
    }

    fn removed(&self, slot: &Slot<V>) {
        self.used_entries.fetch_sub(1, Relaxed);
        self.used_bytes.fetch_sub(slot.bytes, Relaxed);
        if let Some(due) = &slot.due {
            self.due.lock().unwrap_or_else(PoisonError::into_inner).remove(due);
        }
    }

    /// Replaces the place of a key in the order of expiry.
    fn plan(&self, before: Option<(i64, u64)>, key: &K, expires_at: Option<i64>) -> Option<(i64, u64)> {
        let next = expires_at.map(|at| (at, self.numbers.fetch_add(1, Relaxed)));
        if before.is_some() || next.is_some() {
            let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
            before.iter().for_each(|before| drop(due.remove(before)));
            next.iter().for_each(|next| drop(due.insert(*next, key.clone())));
        }
        next
    }
}

impl<V> Slot<V> {
    fn is_over(&self, now: i64) -> bool {
        self.due.is_some_and(|(at, _)| at <= now)
    }

    fn content(&self) -> (&V, Option<i64>) {
        (&self.value, self.due.map(|(at, _)| at))
    }
}

/// Adds to a number unless it would exceed its bound.
fn reserve(used: &AtomicUsize, more: usize, most: usize) -> Result<(), ()> {
    let sum = |used: usize| used.checked_add(more).filter(|sum| *sum <= most);
    used.fetch_update(Relaxed, Relaxed, sum).map(drop).map_err(drop)
}
