//! Admissions: by the ledger, and by the fallback while the ledger was away.

use super::Attempt;
use crate::{
    ledger::writer::{
        AdmitCommand, AdmitReply, AdmittedAt, CommandKind, Detail, EntryKind, JobRows, JobStatus, Reply, SettleKind,
    },
    quota::{GrantId, JobState},
};

/// Reason in the rows of charges that the fallback admitted; their `until` is the time of the admission.
const SPOOLED: &str = "let pass while the ledger was away";

impl Attempt<'_, '_> {
    pub(super) fn admit(&mut self, admit: &AdmitCommand) -> Reply {
        let rows = self.rows();
        let attempt = match rows.next_attempt() {
            Ok(next) => next,
            Err(latest) if rows.conflicts(latest, admit.fingerprint) => return Reply::Conflict,
            Err(latest) => return Reply::Replay(self.at(latest).duplicate()),
        };
        if self.is_stale() {
            return Reply::Stale;
        }
        let (account, now) = self.at(attempt).account();
        let taken = match account.take(&admit.plan, &admit.amounts, admit.reserve.is_some(), now) {
            Ok(taken) => taken,
            Err(violations) => return Reply::Refused(violations),
        };
        account.see(admit.tier.as_ref());
        let since = AdmittedAt { at: account.here(&admit.plan, now), epoch: account.epoch() };
        let admitted = AdmitReply {
            attempt,
            since,
            nearest: if admit.wants_nearest { taken.view.nearest(now) } else { None },
            near: taken.near,
            pending: taken.pending,
            usage: admit.usage.then(|| taken.view.usage(now)),
        };
        let entry = if admit.reserve.is_some() { EntryKind::Reserve } else { EntryKind::Charge };
        self.fingerprint = admit.fingerprint;
        self.write_marked(entry, 0, taken.postings);
        self.open(admit.reserve, since.at);
        self.begin_job(admit.job_lease);
        Reply::Admitted(Box::new(admitted))
    }

    /// Charges once the amounts that the fallback admitted at `at`, even if the same command was stored as an admission
    /// whose reply was lost.
    pub(super) fn admit_spooled(&mut self, admit: &AdmitCommand, at: u64) -> Reply {
        let (rows, id) = (self.rows(), self.command.id);
        if let Some(attempt) = rows.attempt_of(id)
            && !rows.was_taken_back(attempt, id)
        {
            return Reply::Done;
        }
        if rows.next_attempt().is_ok() && self.is_stale() {
            return Reply::Stale;
        }
        let (attempt, part, reserve, entry) = match (rows.next_attempt(), admit.reserve) {
            (Ok(next), None) => (next, 0, None, EntryKind::Charge),
            (Ok(next), terms) => (next, 0, terms, EntryKind::Reserve),
            // Other work under the same job id: no store was there to refuse it, and it was done. It has an attempt of
            // its own, which a void of the job does not return.
            (Err(latest), _) if rows.conflicts(latest, admit.fingerprint) => {
                (rows.attempt_beside(), 0, None, EntryKind::Record)
            }
            (Err(latest), _) => return Reply::Replay(self.at(latest).duplicate()),
        };
        let (account, now) = self.at(attempt).account();
        let (postings, _) = account.admit_past(&admit.plan, &admit.amounts, reserve.is_some(), at, now);
        self.fingerprint = admit.fingerprint;
        self.detail = Some(Box::new(Detail { until: at, reason: SPOOLED.into(), ..Detail::default() }));
        self.write_marked(entry, part, postings);
        self.open(reserve, at.min(now));
        if entry != EntryKind::Record {
            self.begin_job(admit.job_lease);
        }
        Reply::Done
    }

    /// Returns the reply to a command that was stored by a commit whose result was lost.
    pub(super) fn stored_before(&mut self) -> Reply {
        match &self.command.kind {
            CommandKind::Admit(_) => {
                let id = self.command.id;
                let own = || self.rows().0.iter().filter(move |row| row.command == id);
                let attempt = own().next().map_or(0, |row| row.attempt);
                // As of the time of that commit: the start of the latest of its windows lies in all of them.
                let counted = || own().filter(|row| !row.limit.is_empty());
                let (at, epoch) = (counted().map(|row| row.window).max(), counted().map(|row| row.epoch).max());
                self.batch.begun.insert((self.command.key.clone(), attempt));
                let (account, now) = self.account();
                let since = AdmittedAt { at: at.unwrap_or(now), epoch: epoch.unwrap_or_else(|| account.epoch()) };
                Reply::Admitted(Box::new(AdmitReply::new(attempt, since)))
            }
            CommandKind::Settle(settle) => self.settled_before(Some(settle.attempt), &settle.end),
            CommandKind::SettleOf { of, settle } => self.settled_before(self.rows().attempt_of(*of), &settle.end),
            CommandKind::Record { .. } => Reply::Recorded(Vec::new()),
            CommandKind::Credit { .. } => self.credited(false).map_or(Reply::UnknownAccount, Reply::Credited),
            CommandKind::Grant { grant, .. } => Reply::Granted(GrantId(grant.id)),
            CommandKind::Revoke { .. } => Reply::Revoked(true),
            CommandKind::SettleJob { .. } => Reply::Job(Some(JobState::Unknown)),
            CommandKind::Spooled { .. } | CommandKind::Expire { .. } | CommandKind::Renew { .. } => Reply::Done,
            CommandKind::Lapse { .. } | CommandKind::Reset { .. } | CommandKind::Probe => Reply::Done,
        }
    }

    /// Returns the status of an attempt before this command settled it.
    fn settled_before(&self, attempt: Option<u32>, end: &SettleKind) -> Reply {
        let status = match (attempt, end) {
            (None, _) => JobStatus::Unknown,
            (Some(_), SettleKind::Add) => JobStatus::Charged,
            (Some(attempt), _) => {
                let others = self.rows().0.iter().filter(|row| row.command != self.command.id);
                JobRows(&others.cloned().collect::<Vec<_>>()).status(attempt)
            }
        };
        Reply::Settled(status, Vec::new())
    }
}
