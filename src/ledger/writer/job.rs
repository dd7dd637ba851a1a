//! What the rows of one job say has become of it.

use std::sync::Arc;

use super::{Billed, EntryKind, Row, billed};
use crate::{kind::Kind, quota::Amounts};

/// All rows of one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRows<'a>(pub(crate) &'a [Row]);

/// How far an attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobStatus {
    /// Nobody knows of it.
    Unknown,
    /// Charged, or charged with what was really used.
    Charged,
    /// Set aside, and not settled.
    Open,
    /// What was set aside was settled.
    Committed,
    /// All of it went back.
    Voided,
    /// Its time ran out.
    Expired,
    /// Its time ran out, and then it was settled after all.
    Late,
}

/// The part of the record of what was settled when its time had run out.
pub(crate) const LATE: u32 = u32::MAX;

impl<'a> JobRows<'a> {
    /// The latest attempt, if there was any.
    pub(crate) fn latest(self) -> Option<u32> {
        self.0
            .iter()
            .filter(|row| matches!(row.entry, EntryKind::Charge | EntryKind::Reserve))
            .map(|row| row.attempt)
            .max()
    }

    /// The rows of an attempt.
    pub(crate) fn of(self, attempt: u32) -> impl Iterator<Item = &'a Row> {
        self.0.iter().filter(move |row| row.attempt == attempt)
    }

    pub(crate) fn standing(self, attempt: u32) -> JobStatus {
        let has = |entry| self.of(attempt).any(|row| row.entry == entry);
        let late = || self.of(attempt).any(|row| row.entry == EntryKind::Record && row.part == LATE);
        if has(EntryKind::Void) {
            JobStatus::Voided
        } else if has(EntryKind::Commit) {
            JobStatus::Committed
        } else if has(EntryKind::Expire) {
            if late() { JobStatus::Late } else { JobStatus::Expired }
        } else if has(EntryKind::Reserve) {
            JobStatus::Open
        } else if has(EntryKind::Charge) {
            JobStatus::Charged
        } else {
            JobStatus::Unknown
        }
    }

    /// Whether an order has written any of them.
    pub(crate) fn written_by(self, command: u128) -> bool {
        self.0.iter().any(|row| row.command == command)
    }

    /// The attempt that an order made, the latest if it made two.
    pub(crate) fn attempt_of(self, command: u128) -> Option<u32> {
        let made = |row: &&Row| {
            row.command == command && matches!(row.entry, EntryKind::Charge | EntryKind::Reserve | EntryKind::Record)
        };
        self.0.iter().filter(made).map(|row| row.attempt).max()
    }

    /// Whether an order made an attempt: what it only noted of other work is no part of the job.
    pub(crate) fn is_made_by(self, attempt: u32, command: u128) -> bool {
        self.of(attempt)
            .any(|row| row.command == command && matches!(row.entry, EntryKind::Charge | EntryKind::Reserve))
    }

    /// Whether an attempt was given back by the writer itself, because whoever had asked for it seemed to have gone.
    pub(crate) fn was_taken_back(self, attempt: u32, command: u128) -> bool {
        self.of(attempt).any(|row| row.entry == EntryKind::Void && row.command == command ^ 1)
    }

    /// A part of an attempt that no record has: its own count from below, the last one has a meaning.
    pub(crate) fn free_part(self, attempt: u32) -> u32 {
        let taken = |part: u32| self.of(attempt).any(|row| row.entry == EntryKind::Record && row.part == part);
        (0..LATE).rev().find(|part| !taken(*part)).unwrap_or(0)
    }

    /// Returns the billed amount of an attempt, kind by kind.
    pub(crate) fn amounts(self, attempt: u32) -> Amounts {
        let mut sums: Vec<(Arc<str>, i64)> = Vec::new();
        for Billed { kind, amount, .. } in billed(self.of(attempt).map(|row| ((), row))) {
            match sums.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, sum)) => *sum = sum.saturating_add(amount),
                None => sums.push((kind, amount)),
            }
        }
        let mut amounts = Amounts::new();
        for (kind, sum) in sums {
            if let Ok(kind) = Kind::try_units(&kind) {
                amounts.set(&kind, u64::try_from(sum).unwrap_or(0));
            }
        }
        amounts
    }
}
