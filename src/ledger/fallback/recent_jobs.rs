//! Jobs that this process last saw charged; they are known while the ledger is away.

use std::collections::{HashMap, VecDeque};

use crate::{
    identity::{Digest, Digester},
    ledger::writer::Key,
};

/// The last 65,536 jobs in the order of their charges, each as a digest.
#[derive(Debug, Default)]
pub(super) struct RecentJobs {
    all: HashMap<Digest, Option<u128>>,
    order: VecDeque<Digest>,
}

/// Greatest number of jobs; they take about 5 MB.
const MOST: usize = 1 << 16;

impl RecentJobs {
    pub(super) fn add(&mut self, key: &Key, fingerprint: Option<u128>) {
        let id = id(key);
        if self.all.insert(id, fingerprint).is_some() {
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

    /// Returns the fingerprint of a job, if the job is known.
    pub(super) fn get(&self, key: &Key) -> Option<Option<u128>> {
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
        (0..MOST + 2).for_each(|job| recent.add(&key(job), Some(job as u128)));
        recent.add(&key(5), None);
        recent.forget(&key(7));
        assert_eq!((recent.get(&key(1)), recent.get(&key(7))), (None, None));
        assert_eq!((recent.get(&key(2)), recent.get(&key(5))), (Some(Some(2)), Some(None)));
        assert_eq!((recent.all.len(), recent.order.len()), (MOST - 1, MOST));
    }
}
