//! An attempt of a job under decision: its rows, and the rows that the command writes.

use std::sync::Arc;

use super::Batch;
use crate::{
    ledger::writer::{
        Command, Detail, EntryKind, JobRows, JobStatus, ReservationRow, ReservationTerms, Row,
        account_state::AccountState, counter::Posting, job_time::forgotten,
    },
    quota::account::Warning,
};

/// A command under decision, and the attempt that its rows belong to.
pub(super) struct Attempt<'b, 'c> {
    pub(super) batch: &'b mut Batch,
    pub(super) command: &'c Command,
    /// Number of the attempt; 0 for commands that have none.
    pub(super) number: u32,
    /// Columns of its rows, which only charges and grants fill.
    pub(super) fingerprint: Option<u128>,
    pub(super) detail: Option<Box<Detail>>,
    /// Warnings that it raised.
    pub(super) near: Vec<Warning>,
}

impl Attempt<'_, '_> {
    pub(super) fn at(&mut self, number: u32) -> &mut Self {
        self.number = number;
        self
    }

    /// Returns the account, and the time of the batch.
    pub(super) fn account(&mut self) -> (&mut AccountState, u64) {
        let tenant = &self.command.key.tenant;
        (self.batch.accounts.entry(Arc::clone(tenant)).or_default(), self.batch.now)
    }

    /// Whether nothing was ever written in the account, neither before the batch nor by earlier commands of it.
    pub(super) fn is_unknown(&self) -> bool {
        let tenant = &self.command.key.tenant;
        self.batch.created.contains(tenant) && !self.batch.writes.rows.iter().any(|row| row.key.tenant == *tenant)
    }

    /// Returns all rows of the job.
    pub(super) fn rows(&self) -> JobRows<'_> {
        JobRows(self.batch.rows.get(&self.command.key).map_or(&[], Vec::as_slice))
    }

    /// Whether the job is older than the ledger remembers, so that its absence does not show that it was not charged.
    pub(super) fn is_stale(&self) -> bool {
        !self.command.own && forgotten(&self.command.key.job, self.batch.sealed, self.batch.now)
    }

    pub(super) fn status(&self) -> JobStatus {
        self.rows().status(self.number)
    }

    /// Returns the rows of the attempt that reserve an amount, one for each limit.
    pub(super) fn reserved(&self) -> Vec<Row> {
        let rows = self.rows().of(self.number);
        rows.filter(|row| row.entry == EntryKind::Reserve && !row.limit.is_empty()).cloned().collect()
    }

    /// Opens the reservation of an attempt, if it has terms.
    pub(super) fn open(&mut self, terms: Option<ReservationTerms>, since: u64) {
        let Some(ReservationTerms { ttl, charge }) = terms else { return };
        let (key, attempt) = (self.command.key.clone(), self.number);
        // An earlier command of the batch closed this number before the attempt existed.
        self.batch.writes.closed.retain(|(closed, number)| *closed != key || *number != attempt);
        let until = self.batch.now.saturating_add(ttl);
        self.batch.writes.opened.push(ReservationRow { key, attempt, until, since, charge });
    }

    /// Closes the reservation of the attempt, if it has one.
    pub(super) fn close(&mut self) {
        self.batch.writes.closed.push((self.command.key.clone(), self.number));
    }

    /// Writes one row for each posting.
    pub(super) fn write(&mut self, entry: EntryKind, part: u32, postings: impl IntoIterator<Item = Posting>) {
        postings.into_iter().for_each(|posting| self.push(entry, part, posting));
    }

    /// Writes one row for each posting, and at least one, which marks that the entry took place.
    pub(super) fn write_marked(&mut self, entry: EntryKind, part: u32, postings: Vec<Posting>) {
        if postings.is_empty() {
            self.push(
                entry,
                part,
                Posting { limit: "".into(), kind: "".into(), period: "".into(), window: 0, epoch: 0, amount: 0 },
            );
        }
        self.write(entry, part, postings);
    }

    fn push(&mut self, entry: EntryKind, part: u32, posting: Posting) {
        let Command { key, id, own, .. } = self.command;
        let Posting { limit, kind, period, window, epoch, amount } = posting;
        let (key, attempt, command) = (key.clone(), self.number, *id);
        // Damaged rows may hold a limit twice. The unique index would reject the command for each row beyond the first.
        let written = self.batch.writes.rows.iter().rev().take_while(|row| row.command == command);
        let same = |row: &&Row| (row.attempt, row.entry) == (attempt, entry) && row.limit == limit && row.kind == kind;
        let taken: Vec<_> = written.filter(same).map(|row| row.part).collect();
        let is_free = |part: &u32| !taken.contains(part);
        let part = if is_free(&part) { part } else { self.rows().free_part_of(attempt, entry, is_free) };
        let (fingerprint, detail) = (self.fingerprint, self.detail.clone());
        let row =
            Row { key, attempt, part, entry, kind, limit, period, window, epoch, amount, command, fingerprint, detail };
        // If no other command has the job id, only spooled commands read rows in the batch that writes them.
        if !own || self.batch.spooled.contains(&row.key) {
            self.batch.rows.entry(row.key.clone()).or_default().push(row.clone());
        }
        self.batch.writes.rows.push(row);
    }
}
