//! Merges the records of a spool into the ledger.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::spool_queue::{MergeRound, NextRound, RecordEnd, SpoolQueue};
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
            let next = self.spool.next(AT_ONCE);
            if next.commands.is_empty() && next.probes.is_empty() && !next.probes_ledger {
                if self.spool.is_empty() {
                    return;
                }
                tokio::time::sleep(REST).await; // the disk has it next
                continue;
            }
            let many = next.commands.len();
            let round = self.round(next).await;
            let progress = !round.ended.is_empty();
            let whole = round.reached && round.held.is_empty() && round.ended.len() == many;
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

    /// Submits commands, and after them the probes.
    ///
    /// Of each account the commands up to the first that was not decided are merged or set aside, because those after it
    /// may depend on it.
    async fn round(&self, next: NextRound) -> MergeRound {
        let NextRound { commands, probes_ledger, probes } = next;
        let all = commands.iter().cloned().chain(probes.iter().map(probe)).chain(probes_ledger.then(probe_ledger));
        let mut replies = self.writer.submit_all(all.collect()).await;
        let of_probes = replies.split_off(commands.len());
        let mut round =
            MergeRound { reached: replies.iter().chain(&of_probes).any(Reply::is_decided), ..Default::default() };
        for (tenant, reply) in probes.into_iter().zip(of_probes) {
            match reply {
                Reply::Held => _ = round.held.insert(tenant),
                reply if reply.is_decided() => round.free.push(tenant),
                _ => {}
            }
        }
        let (mut stopped, mut aside, mut charges_aside) = (HashSet::new(), Vec::new(), HashSet::new());
        for (command, reply) in commands.into_iter().zip(replies) {
            let tenant = &command.key.tenant;
            if matches!(reply, Reply::Held) {
                round.held.insert(Arc::clone(tenant));
            }
            if !reply.is_decided() {
                stopped.insert(Arc::clone(tenant));
            }
            if stopped.contains(tenant) {
                continue;
            }
            let why = self.spool.lock().aside.reason(&command, &reply, &charges_aside);
            charges_aside.extend(why.as_ref().map(|_| command.id));
            let end = match (&why, reply) {
                (Some(_), _) => RecordEnd::SetAside,
                (None, Reply::Replay(_)) => RecordEnd::Duplicate,
                (None, _) => RecordEnd::Merged,
            };
            aside.extend(why.map(|why| (command.clone(), why)));
            round.ended.push((command, end));
        }
        // A settlement that is set aside leaves its reservation open.
        let lapses: Vec<_> = aside.iter().filter_map(|(command, _)| command.lapse(new_id())).collect();
        if aside.is_empty() || self.set_aside(aside).await {
            lapses.into_iter().for_each(|lapse| self.writer.enqueue(lapse));
        } else {
            let mut stopped = HashSet::new();
            round.ended.retain(|(command, end)| {
                if *end == RecordEnd::SetAside {
                    stopped.insert(Arc::clone(&command.key.tenant));
                }
                !stopped.contains(&command.key.tenant)
            });
        }
        round
    }

    async fn set_aside(&self, records: Vec<(Command, Arc<str>)>) -> bool {
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || spool.set_aside(&records)).await.unwrap_or(false)
    }
}

/// Returns a command that changes nothing and shows that an account can be written.
fn probe(tenant: &Arc<str>) -> Command {
    let key = Key { tenant: Arc::clone(tenant), job: "".into() };
    let kind = CommandKind::Renew { attempt: 0, since: u64::MAX, ttl: 0 };
    Command { key, id: new_id(), own: false, origin: 0, kind }
}

/// Returns a command that shows that the ledger decides. It reads no account, so that none is created.
fn probe_ledger() -> Command {
    let key = Key { tenant: "".into(), job: "".into() };
    Command { key, id: new_id(), own: true, origin: 0, kind: CommandKind::Probe }
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    use super::*;
    use crate::{
        gate::Observers,
        ledger::{Timeouts, sqlite::SqliteDatabase},
        quota::{Amounts, Plan, Quota},
        time::Period,
    };

    /// The probe and the charge are one transaction.
    #[tokio::test]
    async fn probe_of_the_ledger_creates_no_account() {
        let hung = Duration::from_secs(300);
        let database = SqliteDatabase::in_memory().await.unwrap();
        let writer = WriterTask::new(database, Timeouts { reply: hung, step: hung }, Observers::default());
        let plan = Plan::new("paid").limit(Quota::units("tokens", 9).per(Period::month()));
        let kind = CommandKind::Record { plan: Arc::new(plan), amounts: Amounts::from(("tokens", 1)) };
        let key = Key { tenant: "acme".into(), job: "one".into() };
        let charge = Command { key, id: new_id(), own: true, origin: 0, kind };
        let replies = writer.submit_all(vec![probe_ledger(), charge]).await;
        assert!(replies.iter().all(Reply::is_decided), "{replies:?}");
        assert_eq!(writer.database.tenants(None, 9).await.unwrap(), ["acme".into()]);
    }
}
