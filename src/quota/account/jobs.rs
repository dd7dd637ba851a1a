//! Jobs of a client that were charged.

use std::time::Duration;

use super::{
    ChargeScope,
    due_map::{DueMap, STEPS},
};
use crate::{
    identity::Digest,
    quota::{Amounts, JobOutcome, JobState},
    time::Moment,
};

/// The jobs of one client: a job is remembered from its admission until long after its end. One that has ended is due
/// when it is forgotten; one that runs is never due.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs(DueMap<Digest, KnownJob>);

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
struct KnownJob {
    fingerprint: Digest,
    stage: JobStage,
}

#[derive(Clone, Debug)]
enum JobStage {
    Running,
    Done,
    Interrupted(Box<JobCharge>),
}

/// Everything that an interrupted job is charged: amounts, each with the counters in which they were counted.
#[derive(Clone, Debug)]
pub(crate) struct JobCharge(pub(crate) Vec<(Amounts, ChargeScope)>);

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
        match self.0.get_at(job.id, now) {
            Some(known) if known.fingerprint != job.fingerprint => Err(Duplicate::Conflict),
            Some(KnownJob { stage: JobStage::Running, .. }) => Err(Duplicate::Running),
            Some(KnownJob { stage: JobStage::Done, .. }) => Err(Duplicate::Done),
            Some(KnownJob { stage: JobStage::Interrupted(_), .. }) => Err(Duplicate::Unknown { may_run: false }),
            None if self.0.len() >= most => Err(Duplicate::Full(self.0.next_due().map(|due| due.since(now)))),
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, job: &Job) {
        self.0.insert(job.id, None, KnownJob { fingerprint: job.fingerprint, stage: JobStage::Running });
    }

    /// Ends the work of a job: its id is taken until `horizon` from now. `interrupted` has the charge of a job whose
    /// outcome is unknown.
    pub(super) fn end(&mut self, id: Digest, interrupted: Option<JobCharge>, now: Moment, horizon: Duration) {
        if let Some(known) = self.0.get_mut(id).filter(|known| known.is_running()) {
            known.stage = interrupted.map_or(JobStage::Done, |charge| JobStage::Interrupted(Box::new(charge)));
            self.0.set_due(id, Some(now + horizon));
        }
    }

    /// Settles a job whose outcome is unknown. Returns the state that it had, and the charge to be returned.
    pub(super) fn settle(
        &mut self,
        id: Digest,
        outcome: JobOutcome,
        now: Moment,
    ) -> (Option<JobState>, Option<JobCharge>) {
        let Some(state) = self.0.get_at(id, now).map(KnownJob::state) else { return (None, None) };
        if state != JobState::Unknown {
            return (Some(state), None);
        }
        let charge = match outcome {
            JobOutcome::Done => {
                if let Some(known) = self.0.get_mut(id) {
                    known.stage = JobStage::Done;
                }
                None
            }
            JobOutcome::Free => self.0.remove(id).and_then(KnownJob::charge),
        };
        (Some(state), charge)
    }

    /// Frees the id of a job that was not worked on.
    pub(super) fn free(&mut self, id: Digest) {
        if self.0.get(id).is_some_and(KnownJob::is_running) {
            self.0.remove(id);
        }
    }

    /// Forgets jobs whose time has come, at most [`STEPS`]. The rest can wait: each of them counts as forgotten, and a
    /// place for a new job is free if at least one was.
    pub(super) fn forget(&mut self, now: Moment) {
        self.0.expire(now, STEPS, |_, _| {});
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl KnownJob {
    fn is_running(&self) -> bool {
        matches!(self.stage, JobStage::Running)
    }

    fn state(&self) -> JobState {
        match self.stage {
            JobStage::Running => JobState::Running,
            JobStage::Done => JobState::Done,
            JobStage::Interrupted(_) => JobState::Unknown,
        }
    }

    /// Returns the charge of a job whose outcome is unknown.
    fn charge(self) -> Option<JobCharge> {
        match self.stage {
            JobStage::Running | JobStage::Done => None,
            JobStage::Interrupted(charge) => Some(*charge),
        }
    }
}
