//! The table of keys.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, Hash},
    sync::{Arc, PoisonError, RwLock},
};

use arc_swap::ArcSwap;

use super::Principal;

/// Table of keys and their principals; closures and maps implement it.
///
/// A lookup runs on every request's path and must not block. Keep the table in memory and replace it in the background:
/// an [`ArcSwap`] or an [`RwLock`] of a table is one too. A table of hashed keys is a closure that hashes. For a table
/// that has to be awaited, see [`LookupLayer`](crate::identity::LookupLayer).
///
/// ```
/// use std::{collections::HashMap, sync::Arc};
/// use tollgate::{Principal, Lookup};
///
/// let table = HashMap::from([("k-7f3a".to_owned(), Principal::named("alice"))]);
/// let shared = Arc::new(table.clone());
/// let closure = move |key: &str| table.get(key).cloned();
/// assert_eq!(shared.look_up("k-7f3a"), closure.look_up("k-7f3a"));
/// assert_eq!(shared.look_up("guessed"), None);
/// ```
pub trait Lookup: Send + Sync + 'static {
    /// Returns the principal of a key, or `None` for a key that was never issued.
    fn look_up(&self, key: &str) -> Option<Principal>;

    /// Returns whether every principal of the table, now and later, has a public name.
    fn is_all_named(&self) -> bool {
        false
    }
}

impl<F: Fn(&str) -> Option<Principal> + Send + Sync + 'static> Lookup for F {
    fn look_up(&self, key: &str) -> Option<Principal> {
        self(key)
    }
}

impl<K, S> Lookup for HashMap<K, Principal, S>
where
    K: Borrow<str> + Eq + Hash + Send + Sync + 'static,
    S: BuildHasher + Send + Sync + 'static,
{
    fn look_up(&self, key: &str) -> Option<Principal> {
        self.get(key).cloned()
    }

    fn is_all_named(&self) -> bool {
        self.values().all(Principal::is_named)
    }
}

impl<K: Borrow<str> + Ord + Send + Sync + 'static> Lookup for BTreeMap<K, Principal> {
    fn look_up(&self, key: &str) -> Option<Principal> {
        self.get(key).cloned()
    }

    fn is_all_named(&self) -> bool {
        self.values().all(Principal::is_named)
    }
}

/// A table that is replaced may have other principals later: it does not guarantee names.
impl<L: Lookup> Lookup for RwLock<L> {
    fn look_up(&self, key: &str) -> Option<Principal> {
        self.read().unwrap_or_else(PoisonError::into_inner).look_up(key)
    }
}

/// A table that is replaced may have other principals later: it does not guarantee names.
impl<L: Lookup> Lookup for ArcSwap<L> {
    fn look_up(&self, key: &str) -> Option<Principal> {
        self.load().look_up(key)
    }
}

impl<L: Lookup + ?Sized> Lookup for Arc<L> {
    fn look_up(&self, key: &str) -> Option<Principal> {
        (**self).look_up(key)
    }

    fn is_all_named(&self) -> bool {
        (**self).is_all_named()
    }
}
