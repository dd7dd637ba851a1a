//! A value that every request reads and that is seldom replaced.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

/// A value that is read without a lock and, until its first replacement, without a reference count.
#[derive(Debug)]
pub(crate) struct HotSwap<T> {
    first: T,
    later: OnceLock<ArcSwap<T>>,
    /// Serializes changes.
    changing: Mutex<()>,
}

/// The value at the time of its reading.
pub(crate) enum Present<'a, T> {
    First(&'a T),
    Later(Guard<Arc<T>>),
}

impl<T> HotSwap<T> {
    pub(crate) const fn new(first: T) -> Self {
        Self { first, later: OnceLock::new(), changing: Mutex::new(()) }
    }

    #[inline]
    pub(crate) fn present(&self) -> Present<'_, T> {
        match self.later.get() {
            None => Present::First(&self.first),
            Some(later) => Present::Later(later.load()),
        }
    }

    /// As [`present`](Self::present), but keeps a reference count, where there is one, in `held`: for callers that would
    /// otherwise read a part of the result from memory right after it was written there in smaller parts.
    #[inline]
    pub(crate) fn present_in<'a>(&'a self, held: &'a mut Option<Guard<Arc<T>>>) -> &'a T {
        match self.later.get() {
            None => &self.first,
            Some(later) => held.insert(later.load()),
        }
    }

    /// Replaces the value by the result of `change`.
    pub(crate) fn replace(&self, change: impl FnOnce(&T) -> T) {
        let Ok(()) = self.try_replace::<std::convert::Infallible>(|value| Ok(change(value)));
    }

    /// Replaces the value by the result of `change`, unless that is an error.
    pub(crate) fn try_replace<E>(&self, change: impl FnOnce(&T) -> Result<T, E>) -> Result<(), E> {
        let _guard = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let value = Arc::new(change(&self.present())?);
        match self.later.get() {
            Some(later) => later.store(value),
            None => drop(self.later.set(ArcSwap::new(value))),
        }
        Ok(())
    }
}

impl<T> Deref for Present<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        match self {
            Self::First(value) => value,
            Self::Later(value) => value,
        }
    }
}
