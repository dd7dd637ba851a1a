//! Named jobs: the begin and the end of their work, and duplicates.

use super::Attempt;
use crate::{
    ledger::writer::{EntryKind, JobEnd, JobStatus, Reply, UnfinishedJob},
    quota::{JobOutcome, JobState, Plan, account::Duplicate},
};

impl Attempt<'_, '_> {
    /// Records that the work of a named job begins. Until its end is recorded, the outcome of the job is unknown.
    pub(super) fn begin_job(&mut self, lease: Option<u64>) {
        let Some(lease) = lease else { return };
        let (key, attempt, until) = (self.command.key.clone(), self.number, self.batch.now.saturating_add(lease));
        // As in `open`: an earlier command of the batch ended this number before the attempt existed.
        self.batch.writes.finished.retain(|(finished, number)| *finished != key || *number != attempt);
        self.batch.unfinished.insert((key.clone(), attempt), until);
        self.batch.begun.insert((key.clone(), attempt));
        self.batch.writes.begun.push(UnfinishedJob { key, attempt, until });
    }

    /// Records the end of the work of the attempt. Its rows need not have been read.
    pub(super) fn end_job(&mut self, end: JobEnd) {
        let (key, attempt, now) = (self.command.key.clone(), self.number, self.batch.now);
        match end {
            JobEnd::Done => {
                self.batch.unfinished.remove(&(key.clone(), attempt));
                self.batch.writes.finished.push((key, attempt));
            }
            JobEnd::Interrupted => {
                if let Some(until) = self.batch.unfinished.get_mut(&(key.clone(), attempt)) {
                    *until = now;
                }
                self.batch.writes.interrupted.push(UnfinishedJob { key, attempt, until: now });
            }
        }
    }

    /// Returns the time until which the work of the attempt may be under way; `None` if its end is recorded.
    pub(super) fn is_unfinished(&self) -> Option<u64> {
        self.batch.unfinished.get(&(self.command.key.clone(), self.number)).copied()
    }

    /// Returns what a duplicate of the attempt is told, as far as the rows show it.
    pub(super) fn duplicate(&self) -> Duplicate {
        match self.is_unfinished() {
            Some(until) => Duplicate::Unknown { may_run: until > self.batch.now },
            None => Duplicate::Done,
        }
    }

    /// Settles the attempt if its outcome is unknown; `running` if its work is under way in this process.
    pub(super) fn settle_job(&mut self, plan: &Plan, outcome: JobOutcome, running: bool) -> Reply {
        let begins = self.batch.begun.contains(&(self.command.key.clone(), self.number));
        let state = match self.status() {
            JobStatus::Unknown | JobStatus::Voided => return Reply::Job(None),
            _ if running || begins => JobState::Running,
            _ if self.is_unfinished().is_none() => JobState::Done,
            _ => JobState::Unknown,
        };
        match (state, outcome) {
            (JobState::Unknown, JobOutcome::Free) => self.void(plan),
            (JobState::Unknown, JobOutcome::Done) => {
                self.end_job(JobEnd::Done);
                if self.status() == JobStatus::Open {
                    self.settle_reserved(EntryKind::Commit, Some(plan), |_, estimate| estimate);
                    self.close();
                }
            }
            _ => {}
        }
        Reply::Job(Some(state))
    }
}
