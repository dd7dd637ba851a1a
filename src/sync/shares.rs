//! Amounts in use that are bounded in all and for each key.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use dashmap::{DashMap, Entry};

/// Amounts in use, in all and for each key.
pub(crate) struct Shares<K: Eq + Hash> {
    used: AtomicUsize,
    by_key: DashMap<K, usize>,
}

/// Greatest amounts in use: of all keys together, and of one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShareBounds {
    pub(crate) all: usize,
    pub(crate) each: usize,
}

#[cfg(feature = "idempotency")]
impl ShareBounds {
    /// Returns bounds under which no key has more than half, so that one leaves room for the others.
    pub(crate) fn halved(all: usize) -> Self {
        Self { all, each: all.div_ceil(2) }
    }
}

/// The bound that an amount would exceed. Nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShareExceeded {
    All,
    Each,
}

/// An amount of one key in use. Dropped, it is given back.
pub(crate) struct Share<K: Copy + Eq + Hash> {
    shares: Arc<Shares<K>>,
    key: K,
    amount: usize,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// Returns the amount in use by all keys.
    #[cfg(any(test, feature = "idempotency"))]
    pub(crate) fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Takes an amount for a key.
    pub(crate) fn take(
        self: &Arc<Self>,
        key: K,
        amount: usize,
        bounds: ShareBounds,
    ) -> Result<Share<K>, ShareExceeded> {
        let mut share = Share { shares: Arc::clone(self), key, amount: 0 };
        share.grow(amount, bounds).map(|()| share)
    }

    /// Returns the amount of a key with `more` above `used`, after it was taken of all.
    fn sum(&self, used: usize, more: usize, bounds: ShareBounds) -> Result<usize, ShareExceeded> {
        let within = |used: usize, most: usize| used.checked_add(more).filter(|sum| *sum <= most);
        let of_key = within(used, bounds.each).ok_or(ShareExceeded::Each)?;
        let of_all = self.used.fetch_update(Relaxed, Relaxed, |used| within(used, bounds.all));
        of_all.map(|_| of_key).map_err(|_| ShareExceeded::All)
    }
}

impl<K: Eq + Hash> Default for Shares<K> {
    fn default() -> Self {
        Self { used: AtomicUsize::new(0), by_key: DashMap::new() }
    }
}

impl<K: Copy + Eq + Hash> Share<K> {
    /// Returns the key.
    pub(crate) const fn key(&self) -> K {
        self.key
    }

    /// Returns the amount.
    #[cfg(any(test, feature = "idempotency"))]
    pub(crate) const fn amount(&self) -> usize {
        self.amount
    }

    /// Takes more.
    pub(crate) fn grow(&mut self, more: usize, bounds: ShareBounds) -> Result<(), ShareExceeded> {
        if more == 0 {
            return Ok(());
        }
        match self.shares.by_key.entry(self.key) {
            Entry::Occupied(mut used) => *used.get_mut() = self.shares.sum(*used.get(), more, bounds)?,
            Entry::Vacant(vacant) => drop(vacant.insert(self.shares.sum(0, more, bounds)?)),
        }
        self.amount += more;
        Ok(())
    }

    /// Gives back what is above `amount`.
    pub(crate) fn shrink(&mut self, amount: usize) {
        let less = self.amount.saturating_sub(amount);
        if less == 0 {
            return;
        }
        self.amount -= less;
        self.shares.used.fetch_sub(less, Relaxed);
        if let Entry::Occupied(mut used) = self.shares.by_key.entry(self.key) {
            *used.get_mut() -= less;
            if *used.get() == 0 {
                used.remove();
            }
        }
    }
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: ShareBounds = ShareBounds { all: 10, each: 6 };

    #[test]
    fn amounts_are_bounded_for_each_key_and_in_all() {
        let shares = Arc::<Shares<u8>>::default();
        let mut first = shares.take(1, 6, BOUNDS).expect("room");
        assert_eq!(shares.take(1, 1, BOUNDS).err(), Some(ShareExceeded::Each));
        assert_eq!(first.grow(1, BOUNDS), Err(ShareExceeded::Each));
        let second = shares.take(2, 4, BOUNDS).expect("room for another key");
        assert_eq!(shares.take(3, 1, BOUNDS).err(), Some(ShareExceeded::All));
        assert!(shares.take(3, 0, BOUNDS).is_ok(), "nothing needs no room");
        assert!(shares.take(3, usize::MAX, BOUNDS).is_err());
        assert!(first.grow(usize::MAX, BOUNDS).is_err());
        drop(second);
        assert!(shares.take(3, 4, BOUNDS).is_ok());
        assert_eq!(shares.used(), 6);
    }

    #[test]
    fn what_is_given_back_leaves_nothing() {
        let shares = Arc::<Shares<u8>>::default();
        let mut share = shares.take(1, 6, BOUNDS).expect("room");
        share.shrink(8);
        share.shrink(2);
        assert_eq!((shares.used(), share.amount()), (2, 2));
        assert_eq!(share.grow(4, BOUNDS), Ok(()));
        drop(share);
        assert_eq!((shares.used(), shares.by_key.len()), (0, 0));
        assert!(shares.take(1, 7, BOUNDS).is_err());
        assert_eq!(shares.by_key.len(), 0, "a refusal leaves nothing either");
    }

    #[test]
    fn threads_give_back_all_they_take() {
        let shares = Arc::<Shares<u8>>::default();
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let shares = &shares;
                scope.spawn(move || {
                    for round in 0..2_000_usize {
                        let taken = shares.take(thread % 2, round % 5, BOUNDS);
                        assert!(shares.used() <= BOUNDS.all);
                        drop(taken);
                    }
                });
            }
        });
        assert_eq!((shares.used(), shares.by_key.len()), (0, 0));
    }
}
