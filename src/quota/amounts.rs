//! Amounts by kind.

use smallvec::SmallVec;

use super::MOST;
use crate::kind::Kind;

/// Amounts that are requested or were used, by kind.
///
/// An amount of 0 charges nothing, and is refused exactly if nothing of the kind remains. A kind that the
/// client's plan does not limit is free.
///
/// ```
/// use tollgate::{Amounts, Kind};
///
/// let one = Amounts::from(("queries", 1));
/// let many = Amounts::from([(Kind::Requests, 1), (Kind::from("tokens"), 700)]);
/// assert_eq!(many.get(&Kind::from("tokens")), Some(700));
/// assert_eq!(many.get(&Kind::from("queries")), None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts(SmallVec<[(Kind, u64); 4]>);

impl Amounts {
    /// Creates an empty set of amounts.
    ///
    /// ```
    /// assert!(tollgate::Amounts::new().is_empty());
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self(SmallVec::new_const())
    }

    /// Adds `amount` of `kind`. Sums saturate at `u64::MAX`.
    ///
    /// ```
    /// use tollgate::{Amounts, Kind};
    /// let amounts = Amounts::new().with("tokens", 5).with("tokens", 2);
    /// assert_eq!(amounts.get(&Kind::from("tokens")), Some(7));
    /// ```
    #[must_use]
    pub fn with(mut self, kind: impl Into<Kind>, amount: u64) -> Self {
        self.add(&kind.into(), amount);
        self
    }

    /// Returns the amount of `kind`; `None` if the kind is not among them.
    ///
    /// ```
    /// # use tollgate::{Amounts, Kind};
    /// assert_eq!(Amounts::from(("tokens", 0)).get(&Kind::from("tokens")), Some(0));
    /// ```
    #[must_use]
    #[inline]
    pub fn get(&self, kind: &Kind) -> Option<u64> {
        self.0.iter().find(|(known, _)| known == kind).map(|(_, amount)| *amount)
    }

    /// Returns whether there is no kind among them.
    ///
    /// ```
    /// assert!(!tollgate::Amounts::from(("tokens", 0)).is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all kinds and their amounts.
    ///
    /// ```
    /// let amounts = tollgate::Amounts::from(("tokens", 7));
    /// assert_eq!(amounts.iter().map(|(_, amount)| amount).sum::<u64>(), 7);
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = (&Kind, u64)> {
        self.0.iter().map(|(kind, amount)| (kind, *amount))
    }

    pub(crate) fn add(&mut self, kind: &Kind, amount: u64) {
        match self.0.iter_mut().find(|(known, _)| known == kind) {
            Some((_, sum)) => *sum = sum.saturating_add(amount),
            None => self.0.push((kind.clone(), amount)),
        }
    }

    /// Sets the amount of a kind.
    pub(crate) fn set(&mut self, kind: &Kind, amount: u64) {
        match self.0.iter_mut().find(|(known, _)| known == kind) {
            Some((_, old)) => *old = amount,
            None => self.0.push((kind.clone(), amount)),
        }
    }

    /// Returns these amounts; a kind that `other` names has the amount of `other`.
    pub(crate) fn overridden_by(&self, other: &Self) -> Self {
        let mut merged = self.clone();
        other.iter().for_each(|(kind, amount)| merged.set(kind, amount));
        merged
    }

    /// Returns the part of each amount up to that of `most`, and the rest. A kind that `most` does not name is rest only.
    pub(crate) fn split_at(&self, most: &Self) -> (Self, Self) {
        let (mut within, mut beyond) = (Self::new(), Self::new());
        for (kind, amount) in self.iter() {
            let part = most.get(kind).map(|most| amount.min(most));
            if let Some(part) = part {
                within.add(kind, part);
            }
            match amount - part.unwrap_or(0) {
                0 => {}
                rest => beyond.add(kind, rest),
            }
        }
        (within, beyond)
    }

    /// Returns the amounts above 0, sorted by kind.
    pub(crate) fn positive(&self) -> Self {
        let mut some: SmallVec<_> = self.0.iter().filter(|(_, amount)| *amount > 0).cloned().collect();
        some.sort_unstable();
        Self(some)
    }

    /// Removes a kind.
    pub(crate) fn leave_out(&mut self, kind: &Kind) {
        self.retain(|known| known != kind);
    }

    /// Removes the kinds for which `stays` is false.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Kind) -> bool) {
        self.0.retain(|(kind, _)| stays(kind));
    }

    /// Returns the amount of `kind` to count: at most 2^53 - 1.
    pub(crate) fn counted(&self, kind: &Kind) -> u64 {
        self.get(kind).unwrap_or(0).min(MOST)
    }
}

impl<K: Into<Kind>> From<(K, u64)> for Amounts {
    fn from((kind, amount): (K, u64)) -> Self {
        Self::new().with(kind, amount)
    }
}

impl<K: Into<Kind>, const N: usize> From<[(K, u64); N]> for Amounts {
    fn from(amounts: [(K, u64); N]) -> Self {
        amounts.into_iter().collect()
    }
}

impl<K: Into<Kind>> FromIterator<(K, u64)> for Amounts {
    fn from_iter<T: IntoIterator<Item = (K, u64)>>(amounts: T) -> Self {
        amounts.into_iter().fold(Self::new(), |sum, (kind, amount)| sum.with(kind, amount))
    }
}
