//! Usage after the fact, renewals, resets and grants.

use std::sync::Arc;

use super::attempt::{Attempt, ExtraColumns};
use crate::{
    ledger::writer::{Detail, EntryKind, JobStatus, Reply, ReservationRow, Since, book::Line},
    quota::{Amounts, GrantId, Plan, account::GrantState},
};

impl Attempt<'_, '_> {
    pub(super) fn record(&mut self, plan: &Arc<Plan>, amounts: &Amounts) -> Reply {
        let (book, now) = self.book();
        let since = Since { at: book.here(plan, now), turn: u32::MAX };
        let (lines, near) = book.record(plan, amounts, since, now);
        self.write(EntryKind::Record, 0, lines);
        Reply::Recorded(near)
    }

    pub(super) fn renew(&mut self, since: u64, ttl: u64) -> Reply {
        if self.status() == JobStatus::Open {
            let (key, until) = (self.command.key.clone(), self.batch.now.saturating_add(ttl));
            let charge = false; // not stored again: the reservation keeps its own
            self.batch.writes.renewed.push(ReservationRow { key, attempt: self.number, until, since, charge });
        }
        Reply::Done
    }

    pub(super) fn reset(&mut self, plan: &Plan, limit: Option<&str>) -> Reply {
        let (book, now) = self.book();
        let mut lines = match book.reset(plan, limit, now) {
            Ok(lines) => lines,
            Err(invalid) => return Reply::Invalid(invalid),
        };
        if lines.is_empty() {
            self.write_marked(EntryKind::Reset, 0, Vec::new(), &ExtraColumns::default());
        }
        // One limit may have a counter in each active epoch, so each row has a part of its own.
        lines.sort_unstable();
        for (part, line) in (0..).zip(lines) {
            self.write(EntryKind::Reset, part, [line]);
        }
        Reply::Done
    }

    pub(super) fn grant(&mut self, plan: &Plan, grant: &GrantState) -> Reply {
        let (book, now) = self.book();
        match book.grant(plan, grant.clone(), now) {
            Ok(line) => {
                self.write_grant(line, grant.amount, grant.until, grant.approver.clone(), grant.reason.clone());
                Reply::Granted(GrantId(grant.id))
            }
            Err(invalid) => Reply::Invalid(invalid),
        }
    }

    pub(super) fn revoke(&mut self, id: u64) -> Reply {
        let (book, now) = self.book();
        let Some(state) = book.revoke(id, now) else { return Reply::Revoked(false) };
        let GrantState { limit, kind, window, epoch, approver, .. } = state.clone();
        let line = Line { limit, kind, window, epoch, amount: 0 };
        self.write_grant(line, 0, now, approver, format!("grant {id} ends"));
        Reply::Revoked(true)
    }

    fn write_grant(&mut self, line: Line, granted: u64, until: u64, approver: String, reason: String) {
        let detail = Some(Box::new(Detail { granted, until, approver, reason }));
        self.push(EntryKind::Grant, 0, line, ExtraColumns { fingerprint: None, detail });
    }
}
