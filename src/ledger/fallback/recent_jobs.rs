//! Jobs that this process last saw charged; they are known while the ledger is away.

use std::collections::{HashMap, VecDeque};

use crate::{
    identity::{Digest, Digester},
    ledger::writer::Key,
    quota::account::Duplicate,
};

/// The last 65,536 jobs in the order of their charges, each as a digest.
#[derive(Debug, Default)]
pub(super) struct RecentJobs {
    all: HashMap<Digest, RecentJob>,
    order: VecDeque<Digest>,
}

/// A job that is not running in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecentJob {
    fingerprint: Option<u128>,
    /// Reply to a duplicate: done, or of unknown outcome.
    known: Duplicate,
}

impl RecentJob {
    /// Returns the reply to a duplicate with this fingerprint.
    pub(super) fn reply(self, fingerprint: Option<u128>) -> Duplicate {
        match (self.fingerprint, fingerprint) {
            (Some(known), Some(asked)) if known != asked => Duplicate::Conflict,
            _ => self.known,
        }
    }
}

/// Greatest number of jobs; they take about 5 MB.
const MOST: usize = 1 << 16;

impl RecentJobs {
    /// Adds a job, or replaces its state.
    pub(super) fn add(&mut self, key: &Key, fingerprint: Option<u128>, known: Duplicate) {
        let id = id(key);
        if self.all.insert(id, RecentJob { fingerprint, known }).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.all.remove(&oldest);
        }
    }

    /// Forgets a job that was voided: its id is free.
    pub(super) fn forget(&mut self, key: &Key) {
        self.all.remove(&id(key)); // its place stays, so that the same job added again is forgotten a little early
    }

    /// Records that the work of a job was done.
    pub(super) fn finish(&mut self, key: &Key) {
        if let Some(job) = self.all.get_mut(&id(key)) {
            job.known = Duplicate::Done;
        }
    }

    /// Returns a job, if it is known.
    pub(super) fn get(&self, key: &Key) -> Option<RecentJob> {
        self.all.get(&id(key)).copied()
    }
}

fn id(key: &Key) -> Digest {
    Digester::process().digest("recent job", [key.tenant.as_bytes(), key.job.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(job: usize) -> Key {
        Key { tenant: "acme".into(), job: job.to_string().into() }
    }

    #[test]
    fn latest_jobs_are_known_and_no_more() {
        let mut recent = RecentJobs::default();
        let unknown = Duplicate::Unknown { may_run: false };
        (0..MOST + 2).for_each(|job| recent.add(&key(job), Some(job as u128), unknown));
        recent.add(&key(5), None, unknown);
        recent.finish(&key(5));
        recent.forget(&key(7));
        assert_eq!((recent.get(&key(1)), recent.get(&key(7))), (None, None));
        let reply = |job: usize, of| recent.get(&key(job)).map(|job| job.reply(of));
        assert_eq!([reply(2, Some(2)), reply(2, Some(3))], [Some(unknown), Some(Duplicate::Conflict)]);
        assert_eq!(reply(5, Some(2)), Some(Duplicate::Done));
        assert_eq!((recent.all.len(), recent.order.len()), (MOST - 1, MOST));
    }
}
