//! Merges the records of a spool into the ledger.

use std::{sync::Arc, time::Duration};

use super::spool_queue::SpoolQueue;
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
    if spool.asks() && spool.is_empty() {
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
        let idle = self.spool.asks() && self.spool.is_empty();
        self.over = idle || self.stops() || !self.spool.begin_merging();
    }

    async fn run(&self) {
        let mut rest = REST;
        while !self.stops() {
            let (commands, away) = self.spool.next(AT_ONCE);
            if commands.is_empty() && !away {
                if self.spool.is_empty() {
                    return;
                }
                tokio::time::sleep(REST).await; // the disk has it next
                continue;
            }
            let many = commands.len();
            let replies = match commands.is_empty() {
                true => self.writer.submit_all(vec![probe()]).await,
                false => self.writer.submit_all(commands).await,
            };
            let duplicates = replies.iter().filter(|reply| matches!(reply, Reply::Replay { .. })).count();
            if !replies.is_empty() {
                self.spool.merged(replies.len().min(many), duplicates as u64);
                rest = REST;
            } else if many > 0 && !self.writer.submit_all(vec![probe()]).await.is_empty() {
                // The ledger is reachable and rejects this record: it waits, and the others do not.
                self.spool.put_behind();
            }
            if replies.len() < many.max(1) {
                tokio::time::sleep(rest.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }
}

/// Returns a command that changes nothing and shows that the ledger can be written.
fn probe() -> Command {
    let key = Key { tenant: "".into(), job: "".into() };
    Command {
        key,
        id: new_id(),
        own: false,
        origin: 0,
        kind: CommandKind::Renew { attempt: 0, since: u64::MAX, ttl: 0 },
    }
}
