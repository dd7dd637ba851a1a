//! A map whose entries can have a due time, after which they are removed a few at a time.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Moment;

/// A map of entries that can have a due time.
///
/// An entry is due from that time on, and stays in the map until a call removes it. So no call walks entries that are
/// not due, and none has to remove all that are. Trees, because a hash table is moved as a whole when it grows.
#[derive(Clone, Debug)]
pub(super) struct DueMap<K, V> {
    entries: BTreeMap<K, DueEntry<V>>,
    /// Keys of the entries with a due time, in the order of these times.
    by_time: BTreeSet<(Moment, K)>,
}

#[derive(Clone, Debug)]
struct DueEntry<V> {
    /// `None` for an entry that is never due.
    due: Option<Moment>,
    value: V,
}

/// Greatest number of entries that one call on an account removes from each of its maps, so that no lock is held long.
pub(super) const STEPS: usize = 64;

impl<K: Copy + Ord, V> DueMap<K, V> {
    /// Inserts an entry, or replaces the one of the key with its due time.
    pub(super) fn insert(&mut self, key: K, due: Option<Moment>, value: V) {
        let before = self.entries.insert(key, DueEntry { due, value });
        // Else the new entry would be removed at the time of the old one.
        self.reorder(key, before.and_then(|before| before.due), due);
    }

    /// Changes the due time of an entry, if there is one.
    pub(super) fn set_due(&mut self, key: K, due: Option<Moment>) {
        if let Some(entry) = self.entries.get_mut(&key) {
            let before = std::mem::replace(&mut entry.due, due);
            self.reorder(key, before, due);
        }
    }

    /// Returns the value of a key, due or not.
    pub(super) fn get(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|entry| &entry.value)
    }

    /// Returns the value of a key to change, due or not.
    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.entries.get_mut(&key).map(|entry| &mut entry.value)
    }

    /// Returns the value of a key that is not due at `now`, as if each entry were removed at its time.
    pub(super) fn get_at(&self, key: K, now: Moment) -> Option<&V> {
        self.entries.get(&key).filter(|entry| !entry.is_due(now)).map(|entry| &entry.value)
    }

    /// Removes an entry, due or not.
    pub(super) fn remove(&mut self, key: K) -> Option<V> {
        let DueEntry { due, value } = self.entries.remove(&key)?;
        self.reorder(key, due, None);
        Some(value)
    }

    /// Removes an entry if it is due at `now`, whatever others are due.
    pub(super) fn remove_due(&mut self, key: K, now: Moment) -> Option<V> {
        self.entries.get(&key).filter(|entry| entry.is_due(now))?;
        self.remove(key)
    }

    /// Removes entries that are due at `now` in the order of their times, at most `most`, and passes each to `expired`.
    /// Returns their number. Others may be [left](Self::has_due).
    pub(super) fn expire(&mut self, now: Moment, most: usize, mut expired: impl FnMut(K, V)) -> usize {
        let mut count = 0;
        while count < most && self.has_due(now) {
            if let Some((key, value)) = self.pop_first() {
                expired(key, value);
            }
            count += 1;
        }
        count
    }

    /// Removes the entry with the earliest due time, also before that time.
    pub(super) fn pop_first(&mut self) -> Option<(K, V)> {
        let (_, key) = self.by_time.pop_first()?;
        self.entries.remove(&key).map(|entry| (key, entry.value))
    }

    /// Whether an entry is due at `now`.
    pub(super) fn has_due(&self, now: Moment) -> bool {
        self.next_due().is_some_and(|due| now >= due)
    }

    /// Returns the earliest due time.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.by_time.first().map(|(due, _)| *due)
    }

    /// Returns the number of entries, due or not.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of entries with a due time.
    pub(super) fn len_with_due(&self) -> usize {
        self.by_time.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Moves a key from one due time to another.
    fn reorder(&mut self, key: K, before: Option<Moment>, due: Option<Moment>) {
        if let Some(before) = before {
            self.by_time.remove(&(before, key));
        }
        self.by_time.extend(due.map(|due| (due, key)));
    }
}

impl<V> DueEntry<V> {
    fn is_due(&self, now: Moment) -> bool {
        self.due.is_some_and(|due| now >= due)
    }
}

impl<K, V> Default for DueMap<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), by_time: BTreeSet::new() }
    }
}
