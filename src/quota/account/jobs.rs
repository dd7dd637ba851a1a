//! Jobs of a client that were charged.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::reservations::STEPS;
use crate::{identity::Digest, time::Moment};

/// The jobs of one client: a job is remembered from its admission until long after its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    /// A tree, because a table would be moved as a whole when it grows.
    all: BTreeMap<Digest, Known>,
    /// Finished jobs, by the time at which they are forgotten.
    finished: BTreeSet<(Moment, Digest)>,
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

#[derive(Clone, Copy, Debug)]
struct Known {
    fingerprint: Digest,
    /// Time at which it is forgotten; `None` while it runs.
    forgotten: Option<Moment>,
}

impl Known {
    fn is_running(&self) -> bool {
        self.forgotten.is_none()
    }

    /// Whether its time has come, also if it waits for its turn to be forgotten.
    fn is_over(&self, now: Moment) -> bool {
        self.forgotten.is_some_and(|due| now >= due)
    }
}

/// Reason why a job may not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duplicate {
    /// The same job is under way.
    Running,
    /// The same job was done and charged.
    Done,
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
            Some(known) if known.is_running() => Err(Duplicate::Running),
            Some(_) => Err(Duplicate::Done),
            None if self.all.len() >= most => {
                Err(Duplicate::Full(self.finished.first().map(|(due, _)| due.since(now))))
            }
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, job: &Job) {
        let before = self.all.insert(job.id, Known { fingerprint: job.fingerprint, forgotten: None });
        if let Some(due) = before.and_then(|known| known.forgotten) {
            self.finished.remove(&(due, job.id)); // else the new run would be forgotten with the old one
        }
    }

    /// Finishes a job: its id is taken until `horizon` from now.
    pub(super) fn finish(&mut self, id: Digest, now: Moment, horizon: Duration) {
        if let Some(known) = self.all.get_mut(&id).filter(|known| known.is_running()) {
            known.forgotten = Some(now + horizon);
            self.finished.insert((now + horizon, id));
        }
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
        while self.finished.first().is_some_and(|(due, _)| now >= *due) && steps.next().is_some() {
            if let Some((_, id)) = self.finished.pop_first() {
                self.all.remove(&id);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
