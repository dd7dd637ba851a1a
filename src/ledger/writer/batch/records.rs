//! Usage after the fact, renewals, resets and grants.

use std::sync::Arc;

use super::Attempt;
use crate::{
    kind::Kind,
    ledger::writer::{Detail, EntryKind, JobStatus, Reply, ReservationRow, counter::Posting},
    quota::{Amounts, CreditRequest, Credited, GrantId, Plan, account::GrantState},
};

impl Attempt<'_, '_> {
    pub(super) fn record(&mut self, plan: &Arc<Plan>, amounts: &Amounts) -> Reply {
        let (account, now) = self.account();
        if let Err(invalid) = account.check_record(plan, amounts, now) {
            return Reply::Invalid(invalid);
        }
        let (postings, near) = account.record(plan, amounts, now);
        self.write(EntryKind::Record, 0, postings);
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

    /// Makes a reservation due now. Its row has the terms by which the upkeep of the ledger then expires it.
    pub(super) fn lapse(&mut self, of: Option<u128>, attempt: u32, since: u64) -> Reply {
        let attempt = of.map_or(Some(attempt), |of| self.rows().attempt_of(of));
        attempt.map_or(Reply::Done, |attempt| self.at(attempt).renew(since, 0))
    }

    pub(super) fn reset(&mut self, plan: &Plan, limit: Option<&str>) -> Reply {
        if self.is_unknown() {
            return plan.check_name(limit).map_or_else(Reply::Invalid, |()| Reply::UnknownAccount);
        }
        let (account, now) = self.account();
        let mut postings = match account.reset(plan, limit, now) {
            Ok(postings) => postings,
            Err(invalid) => return Reply::Invalid(invalid),
        };
        if postings.is_empty() {
            self.write_marked(EntryKind::Reset, 0, Vec::new());
        }
        // One limit may have a counter in each active epoch, so each row has a part of its own.
        postings.sort_unstable();
        for (part, posting) in (0..).zip(postings) {
            self.write(EntryKind::Reset, part, [posting]);
        }
        Reply::Done
    }

    pub(super) fn credit(&mut self, plan: &Plan, request: &CreditRequest) -> Reply {
        if let Some(stands) = self.credited(true) {
            return Reply::Credited(stands);
        }
        if self.is_unknown() {
            return Reply::UnknownAccount;
        }
        let CreditRequest { kind, amount, reason, .. } = request;
        let (account, now) = self.account();
        let mut postings = account.take_back(plan, kind, *amount, now);
        if postings.is_empty() {
            let kind = kind.as_str().into();
            postings.push(Posting { limit: "".into(), kind, period: "".into(), window: 0, epoch: 0, amount: 0 });
        }
        let most = postings.iter().map(|posting| posting.amount.unsigned_abs()).max().unwrap_or(0);
        let (mut credits, mut others) = (Vec::<Posting>::new(), Vec::new());
        for posting in postings {
            let is_first = !credits.iter().any(|credit| credit.limit == posting.limit);
            if is_first { credits.push(posting) } else { others.push(posting) }
        }
        self.detail = Some(Box::new(Detail { reason: reason.to_string(), ..Detail::default() }));
        self.write(EntryKind::Adjust, 0, credits);
        // A limit has one row of an entry and part, and all rows of a credit must be of one part to be billed once. Limits of
        // one name and another period, which no plan has together, write a row that bills nothing.
        self.detail = None;
        for (part, posting) in (0..).zip(others) {
            self.write(EntryKind::Reset, part, [posting]);
        }
        Reply::Credited(Credited { kind: kind.clone(), amount: most, already: false })
    }

    /// Returns the credit that stands under the id of the command. It has one row for each name of a limit: the largest
    /// amount is billed.
    pub(super) fn credited(&self, already: bool) -> Option<Credited> {
        let rows = || self.rows().0.iter().filter(|row| row.credit_id().is_some());
        let kind = Kind::try_units(&rows().next()?.kind).ok()?;
        let amount = rows().map(|row| row.amount.unsigned_abs()).max().unwrap_or(0);
        Some(Credited { kind, amount, already })
    }

    pub(super) fn grant(&mut self, plan: &Plan, grant: &GrantState) -> Reply {
        let (account, now) = self.account();
        match account.grant(plan, grant.clone(), now) {
            Ok(posting) => {
                self.write_grant(posting, grant.amount, grant.until, grant.approver.clone(), grant.reason.clone());
                Reply::Granted(GrantId(grant.id))
            }
            Err(invalid) => Reply::Invalid(invalid),
        }
    }

    pub(super) fn revoke(&mut self, id: u64) -> Reply {
        let (account, now) = self.account();
        let Some(state) = account.revoke(id, now) else { return Reply::Revoked(false) };
        let GrantState { limit, kind, period, window, epoch, approver, .. } = state.clone();
        let posting = Posting { limit, kind, period, window, epoch, amount: 0 };
        self.write_grant(posting, 0, now, approver, format!("grant {id} ends"));
        Reply::Revoked(true)
    }

    fn write_grant(&mut self, posting: Posting, granted: u64, until: u64, approver: String, reason: String) {
        self.detail = Some(Box::new(Detail { granted, until, approver, reason }));
        self.write(EntryKind::Grant, 0, [posting]);
    }
}
