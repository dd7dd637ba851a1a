//! Jobs of a client that were charged.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use crate::{identity::Digest, time::Moment};

/// The jobs of one client: a job is remembered from its admission until long after its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs {
    all: HashMap<Digest, Known>,
    /// Finished jobs and the times at which they are forgotten, in that order.
    finished: VecDeque<(Moment, Digest)>,
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
    running: bool,
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
        match self.all.get(&job.id) {
            Some(known) if known.fingerprint != job.fingerprint => Err(Duplicate::Conflict),
            Some(known) if known.running => Err(Duplicate::Running),
            Some(_) => Err(Duplicate::Done),
            None if self.all.len() >= most => {
                Err(Duplicate::Full(self.finished.front().map(|(due, _)| due.since(now))))
            }
            None => Ok(()),
        }
    }

    pub(super) fn start(&mut self, job: &Job) {
        self.all.insert(job.id, Known { fingerprint: job.fingerprint, running: true });
    }

    /// Finishes a job: its id is taken until `horizon` from now.
    pub(super) fn finish(&mut self, id: Digest, now: Moment, horizon: Duration) {
        if let Some(known) = self.all.get_mut(&id).filter(|known| known.running) {
            known.running = false;
            self.finished.push_back((now + horizon, id));
        }
    }

    /// Frees the id of a job that was not worked on.
    pub(super) fn free(&mut self, id: Digest) {
        if self.all.get(&id).is_some_and(|known| known.running) {
            self.all.remove(&id);
        }
    }

    /// Forgets jobs whose time has come.
    pub(super) fn forget(&mut self, now: Moment) {
        while let Some((due, id)) = self.finished.front().copied().filter(|(due, _)| now >= *due) {
            debug_assert!(due <= now);
            self.finished.pop_front();
            self.all.remove(&id);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
