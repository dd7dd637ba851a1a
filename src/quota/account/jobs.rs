//! Jobs of a client that were charged.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{ChargeScope, reservations::STEPS};
use crate::{
    identity::Digest,
    quota::{Amounts, JobOutcome, JobState},
    time::Moment,
};

/// The jobs of one client: a job is remembered from its admission until long after its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    /// A tree, because a table would be moved as a whole when it grows.
    all: BTreeMap<Digest, Known>,
    /// Jobs that have ended, by the time at which they are forgotten.
    ended: BTreeSet<(Moment, Digest)>,
}

/// A job as the request names it. Only digests of it are remembered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    /// Digest of the id.
    pub(crate) id: Digest,
    /// Digest of its content: the same id with other content is a conflict, not a duplicate.
    pub(crate) fingerprint: Digest,
    /// The id as it was sent, without quotes, for stores whose rows operators read.
    pub(crate) text: Box<str>,
}

#[derive(Clone, Debug)]
struct Known {
    fingerprint: Digest,
    stage: JobStage,
    /// Time at which it is forgotten; `None` while it runs.
    forgotten: Option<Moment>,
}

#[derive(Clone, Debug)]
enum JobStage {
    Running,
    Done,
    Interrupted(Box<JobCharge>),
}

/// Everything that an interrupted job is charged.
#[derive(Clone, Debug)]
pub(crate) struct JobCharge {
    pub(crate) amounts: Amounts,
    pub(crate) scope: ChargeScope,
}

/// Reason why a job may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// The same job is under way.
    Running,
    /// The same job was done and charged.
    Done,
    /// The same job is charged, and the outcome of its work is unknown; `may_run` if it may be under way elsewhere.
    Unknown { may_run: bool },
    /// Another job has this id.
    Conflict,
    /// The client has the greatest number of remembered jobs. The oldest finished one is forgotten after this time;
    /// `None` while all are running.
    Full(Option<Duration>),
    /// The job is older than the horizon, or its id carries no time although a horizon is set.
    #[allow(dead_code, reason = "memory forgets without notice")]
    Stale,
}

impl Jobs {
    /// Whether the job may start.
    pub(super) fn check(&self, job: &Job, most: usize, now: Moment) -> Result<(), Duplicate> {
        match self.all.get(&job.id).filter(|known| !known.is_over(now)) {
            Some(known) if known.fingerprint != job.fingerprint => Err(Duplicate::Conflict),
            Some(Known { stage: JobStage::Running, .. }) => Err(Duplicate::Running),
            Some(Known { stage: JobStage::Done, .. }) => Err(Duplicate::Done),
            Some(Known { stage: JobStage::Interrupted(_), .. }) => Err(Duplicate::Unknown { may_run: false }),
            None if self.all.len() >= most => Err(Duplicate::Full(self.ended.first().map(|(due, _)| due.since(now)))),
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, job: &Job) {
        let known = Known { fingerprint: job.fingerprint, stage: JobStage::Running, forgotten: None };
        if let Some(due) = self.all.insert(job.id, known).and_then(|before| before.forgotten) {
            self.ended.remove(&(due, job.id)); // else the new run would be forgotten with the old one
        }
    }

    /// Ends the work of a job: its id is taken until `horizon` from now. `interrupted` has the charge of a job whose
    /// outcome is unknown.
    pub(super) fn end(&mut self, id: Digest, interrupted: Option<JobCharge>, now: Moment, horizon: Duration) {
        if let Some(known) = self.all.get_mut(&id).filter(|known| known.is_running()) {
            known.stage = interrupted.map_or(JobStage::Done, |charge| JobStage::Interrupted(Box::new(charge)));
            known.forgotten = Some(now + horizon);
            self.ended.insert((now + horizon, id));
        }
    }

    /// Settles a job whose outcome is unknown. Returns the state that it had, and the charge to be returned.
    pub(super) fn settle(
        &mut self,
        id: Digest,
        outcome: JobOutcome,
        now: Moment,
    ) -> (Option<JobState>, Option<JobCharge>) {
        let Some(known) = self.all.get_mut(&id).filter(|known| !known.is_over(now)) else { return (None, None) };
        let state = known.state();
        if known.is_running() {
            return (Some(state), None);
        }
        let JobStage::Interrupted(charge) = std::mem::replace(&mut known.stage, JobStage::Done) else {
            return (Some(state), None);
        };
        if outcome == JobOutcome::Done {
            return (Some(state), None);
        }
        if let Some(due) = self.all.remove(&id).and_then(|known| known.forgotten) {
            self.ended.remove(&(due, id));
        }
        (Some(state), Some(*charge))
    }

    /// Frees the id of a job that was not worked on.
    pub(super) fn free(&mut self, id: Digest) {
        if self.all.get(&id).is_some_and(Known::is_running) {
            self.all.remove(&id);
        }
    }

    /// Forgets jobs whose time has come, at most [`STEPS`]. The rest can wait: each of them counts as forgotten, and a
    /// place for a new job is free if at least one was.
    pub(super) fn forget(&mut self, now: Moment) {
        let mut steps = 0..STEPS;
        while self.ended.first().is_some_and(|(due, _)| now >= *due) && steps.next().is_some() {
            if let Some((_, id)) = self.ended.pop_first() {
                self.all.remove(&id);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

impl Known {
    fn is_running(&self) -> bool {
        matches!(self.stage, JobStage::Running)
    }

    /// Whether its time has come, also if it waits for its turn to be forgotten.
    fn is_over(&self, now: Moment) -> bool {
        self.forgotten.is_some_and(|due| now >= due)
    }

    fn state(&self) -> JobState {
        match self.stage {
            JobStage::Running => JobState::Running,
            JobStage::Done => JobState::Done,
            JobStage::Interrupted(_) => JobState::Unknown,
        }
    }
}
