//! Parts of amounts that no counter took, on their way to a report.

use crate::{kind::Kind, quota::Amounts};

/// Parts of amounts that no counter took, because a counter holds at most 2^53 - 1; mostly none.
///
/// Of the limits of one kind, the one that lacks most counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "an amount that is cut must be reported"]
pub(crate) struct Cut(Option<Box<Amounts>>);

/// Effects of a change of counters that its caller reports.
#[derive(Debug, Default)]
#[must_use = "warnings and amounts that are cut must be reported"]
pub(crate) struct Changed {
    /// Limits with a new warning, one bit each.
    pub(crate) warned: u64,
    pub(crate) cut: Cut,
}

impl Cut {
    pub(crate) const fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Adds the part that the counter of one limit did not take.
    #[inline]
    pub(crate) fn note(&mut self, kind: &Kind, part: u64) {
        if part > 0 {
            self.note_some(kind, part);
        }
    }

    #[cold]
    fn note_some(&mut self, kind: &Kind, part: u64) {
        let parts = self.0.get_or_insert_default();
        parts.set(kind, part.max(parts.get(kind).unwrap_or(0)));
    }

    /// Adds the parts of another change.
    #[inline]
    pub(crate) fn add(&mut self, other: Self) {
        other.iter().for_each(|(kind, part)| self.0.get_or_insert_default().add(kind, part));
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Kind, u64)> {
        self.0.iter().flat_map(|parts| parts.iter())
    }

    /// Returns the amounts without these parts of them.
    pub(crate) fn rest_of(&self, mut amounts: Amounts) -> Amounts {
        for (kind, part) in self.iter() {
            amounts.set(kind, amounts.get(kind).unwrap_or(0).saturating_sub(part));
        }
        amounts
    }
}

impl Changed {
    /// Adds the effects of another change.
    #[inline]
    pub(crate) fn add(&mut self, other: Self) {
        self.warned |= other.warned;
        self.cut.add(other.cut);
    }
}
