//! The rates in force, read by every request and seldom replaced.

use std::{
    ops::Deref,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::{ArcSwap, Guard};

use super::rates::Rates;

/// Rates that are read without a lock; as long as nobody has replaced them, without so much as a reference count.
#[derive(Debug)]
pub(super) struct InForce {
    first: Rates,
    later: OnceLock<ArcSwap<Rates>>,
    /// One change at a time.
    changing: Mutex<()>,
}

/// The rates as they were when they were asked for.
pub(super) enum Present<'a> {
    First(&'a Rates),
    Later(Guard<Arc<Rates>>),
}

impl InForce {
    pub(super) fn new(first: Rates) -> Self {
        Self { first, later: OnceLock::new(), changing: Mutex::new(()) }
    }

    #[inline]
    pub(super) fn present(&self) -> Present<'_> {
        match self.later.get() {
            None => Present::First(&self.first),
            Some(later) => Present::Later(later.load()),
        }
    }

    /// Replaces the rates by what `change` makes of them.
    pub(super) fn replace(&self, change: impl FnOnce(&Rates) -> Rates) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let rates = Arc::new(change(&self.present()));
        match self.later.get() {
            Some(later) => later.store(rates),
            None => drop(self.later.set(ArcSwap::new(rates))),
        }
    }
}

impl Deref for Present<'_> {
    type Target = Rates;

    #[inline]
    fn deref(&self) -> &Rates {
        match self {
            Self::First(rates) => rates,
            Self::Later(rates) => rates,
        }
    }
}
