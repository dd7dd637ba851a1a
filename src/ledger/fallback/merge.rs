//! Merges the records of a spool into the ledger.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::spool_queue::{MergeRound, SpoolQueue};
use crate::ledger::{
    Database, WriterTask, new_id,
    writer::{Command, CommandKind, Key, Reply},
};

/// Number of records that are submitted at once.
const AT_ONCE: usize = 512;

/// First rest after the ledger did not accept records; it grows to a cap.
const REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// Starts the merging task, unless it runs or no record waits. A runtime that ends drops the task.
pub(super) fn start_merging<D: Database>(spool: &Arc<SpoolQueue>, writer: &Arc<WriterTask<D>>) {
    if !spool.lock().needs_merging() {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if spool.begin_merging() {
        let mut merging = Merging { spool: Arc::clone(spool), writer: Arc::clone(writer), over: false };
        runtime.spawn(async move {
            while !merging.over {
                merging.run().await;
                merging.rest();
            }
        });
    }
}

/// The task. When it ends, another may start.
struct Merging<D: Database> {
    spool: Arc<SpoolQueue>,
    writer: Arc<WriterTask<D>>,
    over: bool,
}

impl<D: Database> Drop for Merging<D> {
    fn drop(&mut self) {
        if !self.over {
            self.spool.end_merging();
        }
    }
}

impl<D: Database> Merging<D> {
    fn stops(&self) -> bool {
        self.spool.lock().closed || self.writer.lock().is_closed()
    }

    /// Ends the task, unless a record was added since whose caller saw the task at work.
    fn rest(&mut self) {
        self.spool.end_merging();
        let idle = !self.spool.lock().needs_merging();
        self.over = idle || self.stops() || !self.spool.begin_merging();
    }

    async fn run(&self) {
        let mut rest = REST;
        while !self.stops() {
            let (commands, probes) = self.spool.next(AT_ONCE);
            if commands.is_empty() && probes.is_empty() {
                if self.spool.is_empty() {
                    return;
                }
                tokio::time::sleep(REST).await; // the disk has it next
                continue;
            }
            let round = self.round(commands, probes).await;
            let (progress, whole) = (round.merged.contains(&true), round.is_whole());
            self.spool.end_round(round);
            if progress {
                rest = REST;
            }
            if !whole {
                tokio::time::sleep(rest.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }

    /// Submits commands, and after them a probe of each of these accounts.
    ///
    /// Of each account the commands up to the first that was not decided or was rejected are merged, because those after
    /// it may depend on it.
    async fn round(&self, commands: Vec<Command>, probes: Vec<Arc<str>>) -> MergeRound {
        let tenants: Vec<_> = commands.iter().map(|command| Arc::clone(&command.key.tenant)).chain(probes).collect();
        let many = commands.len();
        let probes = tenants[many..].iter().map(|tenant| probe(Arc::clone(tenant)));
        let replies = self.writer.submit_all(commands.into_iter().chain(probes).collect()).await;
        let mut round = MergeRound { merged: vec![false; many], ..MergeRound::default() };
        let (mut stopped, mut stale) = (HashSet::new(), Vec::new());
        for (at, (tenant, reply)) in tenants.iter().zip(&replies).enumerate() {
            round.reached |= reply.is_decided();
            if matches!(reply, Reply::Held) {
                round.held.insert(Arc::clone(tenant));
            }
            if !reply.is_decided() || matches!(reply, Reply::Rejected(_)) {
                stopped.insert(tenant);
            } else if at >= many {
                round.free.push(Arc::clone(tenant));
            } else if !stopped.contains(tenant) {
                round.merged[at] = true;
                round.duplicates += u64::from(matches!(reply, Reply::Replay(_)));
                stale.extend(matches!(reply, Reply::Stale).then_some(at));
            }
        }
        if !stale.is_empty() {
            let (spool, these) = (Arc::clone(&self.spool), stale.clone());
            let kept = tokio::task::spawn_blocking(move || spool.keep_aside(&these)).await.unwrap_or(false);
            stale.into_iter().for_each(|at| round.merged[at] = kept);
        }
        round
    }
}

/// Returns a command that changes nothing and shows that an account can be written.
fn probe(tenant: Arc<str>) -> Command {
    let key = Key { tenant, job: "".into() };
    let kind = CommandKind::Renew { attempt: 0, since: u64::MAX, ttl: 0 };
    Command { key, id: new_id(), own: false, origin: 0, kind }
}
