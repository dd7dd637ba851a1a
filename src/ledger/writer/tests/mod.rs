//! Batches, the writer, and the explorer of two writers, their callers and a database.

pub(crate) mod against;
mod batch;
pub(crate) mod bills;
mod explorer;
mod model;
mod passing;
mod writer;

use std::sync::Arc;

use super::{
    AdmitCommand, AdmittedAt, Command, CommandKind, JobEnd, Key, Loaded, Queued, Reply, SettleCommand, SettleKind,
    Writes,
};
use crate::{
    quota::{Amounts, Plan, Quota},
    time::Period,
};

const HOUR: u64 = 3_600_000_000_000;

/// Half past ten of some day.
const START: u64 = 20_000 * 24 * HOUR + 10 * HOUR + HOUR / 2;

fn hourly(limit: u64) -> Arc<Plan> {
    Arc::new(Plan::new("hourly").limit(Quota::requests(limit).per(Period::hour())))
}

fn key(tenant: &str, job: &str) -> Key {
    Key { tenant: tenant.into(), job: job.into() }
}

fn admit(plan: &Arc<Plan>, amounts: impl Into<Amounts>) -> AdmitCommand {
    AdmitCommand {
        plan: Arc::clone(plan),
        amounts: amounts.into(),
        fingerprint: None,
        tier: None,
        reserve: None,
        job_lease: None,
        wants_nearest: false,
        usage: false,
    }
}

fn settle(plan: &Arc<Plan>, attempt: u32, since: AdmittedAt, end: SettleKind) -> CommandKind {
    let (plan, used) = (Arc::clone(plan), Amounts::new());
    CommandKind::Settle(SettleCommand { plan, attempt, since, end, job: None, used, part: 0, whole: false })
}

/// A settlement that ends the work of a named job.
fn ends(kind: CommandKind, end: JobEnd) -> CommandKind {
    match kind {
        CommandKind::Settle(settle) => CommandKind::Settle(SettleCommand { job: Some(end), ..settle }),
        CommandKind::SettleOf { of, settle } => {
            CommandKind::SettleOf { of, settle: SettleCommand { job: Some(end), ..settle } }
        }
        other => panic!("{other:?}"),
    }
}

/// A command in the queue; `sent` if it may have been stored before.
fn queued(command: &Command, sent: bool) -> Queued<()> {
    Queued { sent, ..Queued::new(0, command.clone(), None) }
}

/// Decides a batch, and returns its writes and the replies.
fn replies_to(queue: &[Queued<()>], loaded: Loaded) -> (Writes, Vec<Reply>) {
    let (writes, decided) = super::batch::decide(queue, loaded);
    (writes, decided.into_iter().map(|decided| decided.reply).collect())
}

fn command(id: u128, key: Key, kind: CommandKind) -> Command {
    Command { key, id, own: false, origin: 0, kind }
}
