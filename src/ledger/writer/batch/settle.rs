//! Settlements: commits, voids, expiries, and corrections of what was settled before.

use std::{collections::BTreeMap, sync::Arc};

use super::Attempt;
use crate::{
    kind::Kind,
    ledger::writer::{
        EntryKind, JobEnd, JobStatus, LATE, Reply, Row, SettleCommand, SettleKind, StoredCounter, counter::Posting,
    },
    quota::{Amounts, Plan},
};

impl Attempt<'_, '_> {
    /// Settles the charge that the command `of`, or the fallback under that id, admitted; nothing if it charged
    /// nothing.
    pub(super) fn settle_of(&mut self, of: u128, settle: &SettleCommand) -> Reply {
        let Some(attempt) = self.rows().attempt_of(of) else {
            // A duplicate passed while the ledger was away, and did the work of a job that was cut before.
            if settle.job == Some(JobEnd::Done)
                && let Err(latest) = self.rows().next_attempt()
                && self.at(latest).is_unfinished().is_some()
            {
                self.end_job(JobEnd::Done);
            }
            let adds_nothing = settle.end == SettleKind::Add && settle.used.is_empty();
            let stale = settle.end != SettleKind::Void && !adds_nothing && self.is_stale();
            return if stale { Reply::Stale } else { Reply::Settled(JobStatus::Unknown, Vec::new()) };
        };
        match self.rows().is_made_by(attempt, of) {
            true => self.at(attempt).settle(settle),
            false => self.at(attempt).amend(of, settle),
        }
    }

    pub(super) fn settle(&mut self, settle: &SettleCommand) -> Reply {
        let status = match settle.end {
            SettleKind::Add => JobStatus::Charged, // not read: an addition does not depend on it
            _ => self.status(),
        };
        let done = match (&settle.end, status) {
            (SettleKind::Commit(_), JobStatus::Open) => self.commit(settle),
            (SettleKind::Commit(_), JobStatus::Expired) => self.commit_late(settle),
            (SettleKind::Void, JobStatus::Open | JobStatus::Charged) => {
                self.void(&settle.plan);
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(amount) = done {
            return Reply::TooLarge(amount);
        }
        let voided = settle.end == SettleKind::Void || status == JobStatus::Voided;
        if !settle.used.is_empty() && !voided {
            self.record_used(settle, &settle.used, settle.part);
        }
        if let Some(end) = settle.job {
            self.end_job(end);
        }
        Reply::Settled(status, std::mem::take(&mut self.near))
    }

    /// Charges the actual amounts of a reservation in place of the estimates.
    fn commit(&mut self, settle: &SettleCommand) -> Result<(), u64> {
        let reserved = self.reserved();
        let (used, beyond) = settle.beyond(&reserved, &estimates(&reserved));
        self.check_whole(settle, &used, &beyond)?;
        let used = |row: &Row, estimate: u64| settle.used_of(&row.kind, estimate).min(estimate);
        self.settle_reserved(EntryKind::Commit, Some(&settle.plan), used);
        let part = self.rows().free_part(self.number);
        self.record_used(settle, &beyond, part);
        self.close();
        Ok(())
    }

    /// Charges the actual amounts of an expired reservation, in place of the amounts that the expiry charged.
    fn commit_late(&mut self, settle: &SettleCommand) -> Result<(), u64> {
        let reserved = self.reserved();
        let charged: Vec<_> = reserved.iter().map(|row| self.charged(row)).collect();
        let (used, beyond) = settle.beyond(&reserved, &charged);
        self.check_whole(settle, &used, &beyond)?;
        let corrections = reserved.iter().zip(&charged).map(|(row, charged)| {
            let used = settle.used_of(&row.kind, unsigned(row.amount));
            (row, *charged, used.min(*charged))
        });
        let corrections: Vec<_> = corrections.filter(|(_, charged, _)| *charged > 0).collect();
        // A record of this part marks the attempt as settled.
        let part = if corrections.is_empty() { LATE } else { self.rows().free_part(self.number) };
        if part != LATE {
            self.correct(settle, LATE, corrections);
        }
        self.record_used(settle, &beyond, part);
        Ok(())
    }

    /// Checks that the counters take a commit in full, if its caller waits for the result.
    fn check_whole(&mut self, settle: &SettleCommand, used: &Amounts, beyond: &Amounts) -> Result<(), u64> {
        let (account, now) = self.account();
        let too_large = settle.whole.then(|| account.too_large(&settle.plan, used, beyond, now)).flatten();
        too_large.map_or(Ok(()), Err)
    }

    /// Settles other work that the fallback admitted under the id of a job. The job and the parts of its records stay.
    fn amend(&mut self, of: u128, settle: &SettleCommand) -> Reply {
        let noted = self.rows().of(self.number).filter(|row| row.command == of && !row.limit.is_empty());
        let noted: Vec<_> = noted.cloned().collect();
        let (used, mut beyond) = settle.beyond(&noted, &estimates(&noted));
        if let Err(amount) = self.check_whole(settle, &used, &beyond) {
            return Reply::TooLarge(amount);
        }
        let corrections = noted.iter().map(|row| {
            let amount = unsigned(row.amount);
            (row, amount, settle.used_of(&row.kind, amount).min(amount))
        });
        let corrections = corrections.filter(|(_, amount, used)| amount != used).collect();
        self.correct(settle, self.rows().free_part(self.number), corrections);
        if settle.end != SettleKind::Void {
            settle.used.iter().for_each(|(kind, amount)| beyond.add(kind, amount));
            let part = self.rows().free_part(self.number);
            self.record_used(settle, &beyond, part);
        }
        Reply::Settled(JobStatus::Charged, std::mem::take(&mut self.near))
    }

    /// Ends an overdue reservation: charges the estimates, or returns them.
    pub(super) fn expire(&mut self, charge: bool) -> Reply {
        if self.status() == JobStatus::Open {
            self.settle_reserved(EntryKind::Expire, None, |_, estimate| if charge { estimate } else { 0 });
        }
        self.close();
        Reply::Done
    }

    /// Changes each reserved amount to the amount that `used` returns for its row and estimate.
    pub(super) fn settle_reserved(&mut self, entry: EntryKind, plan: Option<&Plan>, used: impl Fn(&Row, u64) -> u64) {
        let mut postings = Vec::new();
        for row in self.reserved() {
            let estimate = unsigned(row.amount);
            let (account, now) = self.account();
            let changed = account.change(plan, &row, now, |stored| {
                stored.counter.release(estimate);
                stored.counter.take(used(&row, estimate), false)
            });
            let Some((posting, warning)) = changed else { continue };
            postings.push(posting);
            self.near.extend(warning);
        }
        self.write_marked(entry, 0, postings);
    }

    /// Lowers the counters of rows, each from the charged to the used amount. Writes the corrections as records of `part`,
    /// with the reset rows that belong to them.
    fn correct(&mut self, settle: &SettleCommand, part: u32, rows: Vec<(&Row, u64, u64)>) {
        let (mut postings, mut resets) = (Vec::new(), Vec::new());
        for (row, charged, used) in rows {
            let (account, now) = self.account();
            let mut by_reset = 0;
            let changed = account.change(Some(&settle.plan), row, now, |stored| {
                by_reset = return_used(stored, charged.saturating_sub(used));
                0
            });
            let Some((mut posting, warning)) = changed else { continue };
            resets.extend(return_in_full(&mut posting, by_reset));
            postings.push(posting);
            self.near.extend(warning);
        }
        self.write(EntryKind::Reset, part, resets);
        self.write_record(part, postings);
    }

    fn write_record(&mut self, part: u32, postings: Vec<Posting>) {
        match part {
            LATE => self.write_marked(EntryKind::Record, part, postings),
            _ => self.write(EntryKind::Record, part, postings),
        }
    }

    /// Returns all amounts that the attempt charged or reserved.
    pub(super) fn void(&mut self, plan: &Plan) {
        // Nothing is reserved any more once the reservation has ended: what is left of the estimates is used.
        let is_open = self.status() == JobStatus::Open;
        let mut sums = BTreeMap::new();
        for row in self.rows().of(self.number).filter(|row| !row.limit.is_empty()) {
            if row.entry == EntryKind::Reset {
                continue; // reverts a part of a reset, and is no part of the attempt
            }
            let counter =
                (Arc::clone(&row.limit), Arc::clone(&row.kind), Arc::clone(&row.period), row.window, row.epoch);
            let (reserved, used, _) = sums.entry(counter).or_insert_with(|| (0_i64, 0_i64, row.clone()));
            let sum = if row.entry == EntryKind::Reserve && is_open { reserved } else { used };
            *sum = sum.saturating_add(row.amount);
        }
        let mut part = 0;
        for (reserved, used, row) in sums.into_values() {
            let (reserved, used) = (unsigned(reserved), unsigned(used));
            let (account, now) = self.account();
            let mut by_reset = 0;
            let changed = account.change(Some(plan), &row, now, |stored| {
                stored.counter.release(reserved);
                by_reset = return_used(stored, used);
                0
            });
            let Some((mut posting, _)) = changed else { continue };
            let reset = return_in_full(&mut posting, by_reset);
            self.write(EntryKind::Reset, part, reset);
            self.write(EntryKind::Void, part, [posting]);
            part += 1;
        }
        if part == 0 {
            self.write_marked(EntryKind::Void, 0, Vec::new());
        }
        self.close();
        if self.is_unfinished().is_some() {
            self.end_job(JobEnd::Done);
        }
    }

    /// Records used amounts in the windows that are open.
    fn record_used(&mut self, settle: &SettleCommand, used: &Amounts, part: u32) {
        let (account, now) = self.account();
        let (postings, near) = account.record(&settle.plan, used, now);
        self.near.extend(near);
        self.write_record(part, postings);
    }

    /// Returns the amount of a reserved row that stays charged after its expiry.
    fn charged(&self, row: &Row) -> u64 {
        let same = |other: &&Row| other.limit == row.limit && other.kind == row.kind;
        let rows = self.rows().of(self.number).filter(same);
        let charged = rows.filter(|row| matches!(row.entry, EntryKind::Reserve | EntryKind::Expire));
        unsigned(charged.fold(0, |sum, row| sum.saturating_add(row.amount)))
    }
}

/// Returns a used amount to a counter; returns the part that the counter no longer had, because a reset emptied it.
fn return_used(stored: &mut StoredCounter, amount: u64) -> i64 {
    let missing = amount - stored.counter.give_back(amount);
    i64::try_from(missing).unwrap_or(i64::MAX)
}

/// Completes `posting`, which returned all but the amount that a reset had taken. Returns the posting of the reset row
/// that belongs to it, if any.
///
/// A reset makes room and refunds no money, so the row that takes the amount off the bill carries all of it. The reset
/// row adds back the part that the counter no longer had, so that the counter stays the sum of its rows.
fn return_in_full(posting: &mut Posting, by_reset: i64) -> Option<Posting> {
    posting.amount = posting.amount.saturating_sub(by_reset);
    (by_reset > 0).then(|| Posting { amount: by_reset, ..posting.clone() })
}

/// Returns the amounts of rows by kind. Rows of one kind differ only where a counter was full, so the largest stands for
/// all.
fn by_kind<'a>(rows: impl Iterator<Item = (&'a Row, u64)>) -> Amounts {
    let mut amounts = Amounts::new();
    for (row, amount) in rows {
        let Ok(kind) = Kind::try_units(&row.kind) else { continue };
        amounts.set(&kind, amount.max(amounts.get(&kind).unwrap_or(0)));
    }
    amounts
}

fn estimates(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|row| unsigned(row.amount)).collect()
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).unwrap_or(0)
}

impl SettleCommand {
    /// Returns the amounts that a commit charges, and their parts beyond those that are `counted` for the rows of the
    /// estimates; none of another settlement.
    fn beyond(&self, rows: &[Row], counted: &[u64]) -> (Amounts, Amounts) {
        let SettleKind::Commit(actual) = &self.end else { return Default::default() };
        let estimates = by_kind(rows.iter().map(|row| (row, unsigned(row.amount))));
        let counted = by_kind(rows.iter().zip(counted.iter().copied()));
        let used = estimates.overridden_by(actual);
        let (_, beyond) = used.split_at(&counted);
        (used, beyond)
    }

    /// Returns the final amount of a kind of which `amount` was charged or reserved.
    fn used_of(&self, kind: &str, amount: u64) -> u64 {
        match &self.end {
            SettleKind::Add => amount,
            SettleKind::Commit(actual) => {
                let actual = actual.iter().find(|(known, _)| known.as_str() == kind);
                actual.map_or(amount, |(_, actual)| actual)
            }
            SettleKind::Void => 0,
        }
    }
}
