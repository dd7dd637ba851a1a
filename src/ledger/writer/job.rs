//! Status of a job, as its rows imply it.

use std::sync::Arc;

use super::{BilledItem, EntryKind, Row, billed};
use crate::{kind::Kind, quota::Amounts};

/// All rows of one job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JobRows<'a>(pub(crate) &'a [Row]);

/// Status of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobStatus {
    /// The attempt has no rows.
    Unknown,
    /// Charged on admission, or with the actual amounts.
    Charged,
    /// Reserved, and not settled.
    Open,
    /// Its reservation was committed.
    Committed,
    /// Returned in full.
    Voided,
    /// Its reservation expired.
    Expired,
    /// Its reservation expired and was committed afterwards.
    Late,
}

/// Part of the record that commits an expired reservation.
pub(crate) const LATE: u32 = u32::MAX;

impl<'a> JobRows<'a> {
    /// Returns the number of the latest attempt, if there is one.
    pub(crate) fn latest(self) -> Option<u32> {
        self.0.iter().filter(|row| row.is_charge()).map(|row| row.attempt).max()
    }

    /// Returns the number of the next attempt, or `Err` with the latest if that still occupies the job id.
    pub(super) fn next_attempt(self) -> Result<u32, u32> {
        match self.latest() {
            Some(attempt) if self.status(attempt) != JobStatus::Voided => Err(attempt),
            Some(attempt) => Ok(attempt.saturating_add(1)),
            None => Ok(0),
        }
    }

    /// Returns the number of an attempt that no row has, for work that is no attempt of the job. Counted down, because
    /// attempts of the job count up.
    pub(super) fn attempt_beside(self) -> u32 {
        (0..=u32::MAX).rev().find(|attempt| self.of(*attempt).next().is_none()).unwrap_or(u32::MAX)
    }

    /// Whether an attempt was made for other work, as far as both fingerprints are known.
    pub(super) fn conflicts(self, attempt: u32, fingerprint: Option<u128>) -> bool {
        let known = self.of(attempt).find_map(|row| row.fingerprint);
        matches!((known, fingerprint), (Some(known), Some(asked)) if known != asked)
    }

    /// Returns the rows of an attempt.
    pub(crate) fn of(self, attempt: u32) -> impl Iterator<Item = &'a Row> {
        self.0.iter().filter(move |row| row.attempt == attempt)
    }

    pub(crate) fn status(self, attempt: u32) -> JobStatus {
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

    /// Whether the command has written any of them.
    pub(crate) fn written_by(self, command: u128) -> bool {
        self.0.iter().any(|row| row.command == command)
    }

    /// Returns the number of the attempt that the command made, the latest if it made two.
    pub(crate) fn attempt_of(self, command: u128) -> Option<u32> {
        let made = |row: &&Row| row.command == command && (row.is_charge() || row.entry == EntryKind::Record);
        self.0.iter().filter(made).map(|row| row.attempt).max()
    }

    /// Whether the command made the attempt. A record of other work under the same id is no part of the job.
    pub(crate) fn is_made_by(self, attempt: u32, command: u128) -> bool {
        self.of(attempt).any(|row| row.command == command && row.is_charge())
    }

    /// Whether the writer voided the attempt itself, because the caller of the command appeared to have left.
    pub(crate) fn was_taken_back(self, attempt: u32, command: u128) -> bool {
        self.of(attempt).any(|row| row.entry == EntryKind::Void && row.command == command ^ 1)
    }

    /// Returns a part that no record of the attempt has. Counted down, because the attempt's own parts count up;
    /// [`LATE`] is excluded.
    pub(crate) fn free_part(self, attempt: u32) -> u32 {
        self.free_part_of(attempt, EntryKind::Record, |_| true)
    }

    /// Returns a part that no row of this entry has, and that `is_free` accepts.
    pub(super) fn free_part_of(self, attempt: u32, entry: EntryKind, is_free: impl Fn(&u32) -> bool) -> u32 {
        let taken = |part: u32| self.of(attempt).any(|row| row.entry == entry && row.part == part);
        (0..LATE).rev().find(|part| is_free(part) && !taken(*part)).unwrap_or(0)
    }

    /// Returns the billed amount of an attempt, kind by kind.
    pub(crate) fn amounts(self, attempt: u32) -> Amounts {
        let mut sums: Vec<(Arc<str>, i64)> = Vec::new();
        for BilledItem { kind, amount, .. } in billed(self.of(attempt).map(|row| ((), row))) {
            match sums.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, sum)) => *sum = sum.saturating_add(amount),
                None => sums.push((kind, amount)),
            }
        }
        let amount =
            |(kind, sum): (Arc<str>, i64)| Some((Kind::try_units(&kind).ok()?, u64::try_from(sum).unwrap_or(0)));
        sums.into_iter().filter_map(amount).collect()
    }
}
