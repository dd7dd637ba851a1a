//! Decision of a batch: commands in the order of their arrival, over accounts that are locked.

mod admit;
mod attempt;
mod jobs;
mod records;
mod settle;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use attempt::Attempt;

use super::{
    Command, CommandKind, Decided, Key, Loaded, Queued, Reads, Reply, Row, SettleKind, Writes,
    account_state::AccountState,
};

/// Returns the accounts to lock and the jobs to read. For commands that may have been stored before, all rows of the
/// job are read.
pub(super) fn reads<R>(batch: &[Queued<R>]) -> Reads {
    let mut reads = Reads::default();
    for Queued { command, sent, .. } in batch {
        if !matches!(command.kind, CommandKind::Probe) {
            reads.tenants.push(Arc::clone(&command.key.tenant));
        }
        if *sent || command.reads_job() {
            reads.jobs.push(command.key.clone());
        }
        if let Some(since) = command.since() {
            let earliest = reads.since.entry(Arc::clone(&command.key.tenant)).or_insert(since);
            *earliest = since.min(*earliest);
        }
    }
    reads.tenants.sort_unstable();
    reads.tenants.dedup();
    reads.jobs.sort_unstable();
    reads.jobs.dedup();
    reads
}

impl Command {
    /// Whether the decision depends on rows of the job. It does not if the job id is new, or if the command only adds
    /// to the job.
    fn reads_job(&self) -> bool {
        match &self.kind {
            CommandKind::Admit(_) => !self.own,
            CommandKind::Settle(settle) => settle.end != SettleKind::Add,
            CommandKind::Record { .. } | CommandKind::Reset { .. } => false,
            CommandKind::Grant { .. } | CommandKind::Revoke { .. } | CommandKind::Probe => false,
            _ => true,
        }
    }

    /// Returns the admission time of the charge that the command settles.
    fn since(&self) -> Option<u64> {
        match &self.kind {
            CommandKind::Settle(settle) | CommandKind::SettleOf { settle, .. } => Some(settle.since.at),
            CommandKind::Spooled { at, .. } => Some(*at),
            CommandKind::Expire { since, .. }
            | CommandKind::Renew { since, .. }
            | CommandKind::SettleJob { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// Whether the command brings a charge of the fallback into the ledger, or settles a charge by the id of another
    /// command.
    fn is_spooled(&self) -> bool {
        matches!(self.kind, CommandKind::Spooled { .. } | CommandKind::SettleOf { .. })
    }
}

/// Accounts and rows while a batch is decided, and what the batch writes.
struct Batch {
    now: u64,
    sealed: u64,
    accounts: BTreeMap<Arc<str>, AccountState>,
    rows: HashMap<Key, Vec<Row>>,
    /// Attempts whose work has no recorded end, with the times until which it may be under way.
    unfinished: HashMap<(Key, u32), u64>,
    /// Attempts that the batch begins, or finds begun by a commit whose result was lost. Their callers have no reply yet.
    begun: HashSet<(Key, u32)>,
    /// Jobs of spooled commands: later commands of the batch look up the rows that it writes for them.
    spooled: HashSet<Key>,
    writes: Writes,
    /// Accounts that the transaction created.
    created: Vec<Arc<str>>,
}

/// Decides all commands. The decisions hold once the writes are durable.
pub(super) fn decide<R>(commands: &[Queued<R>], loaded: Loaded) -> (Writes, Vec<Decided>) {
    let Loaded { now, accounts, rows, unfinished, sealed, created, .. } = loaded;
    let accounts = accounts.into_iter().map(|(tenant, stored)| (tenant, AccountState::new(stored))).collect();
    let spooled = commands.iter().map(|queued| &queued.command).filter(|command| command.is_spooled());
    let spooled = spooled.map(|command| command.key.clone()).collect();
    let unfinished = unfinished.into_iter().map(|job| ((job.key, job.attempt), job.until)).collect();
    let (rows_of, begun, writes) = (HashMap::new(), HashSet::new(), Writes::default());
    let mut batch = Batch { now, sealed, accounts, rows: rows_of, unfinished, begun, spooled, writes, created };
    for row in rows {
        batch.rows.entry(row.key.clone()).or_default().push(row);
    }
    let decide = |queued: &Queued<R>| {
        let (batch, command, near) = (&mut batch, &queued.command, Vec::new());
        let attempt = Attempt { batch, command, number: 0, fingerprint: None, detail: None, near };
        let reply = attempt.decide(queued.sent, queued.left);
        // Here, and not where it is cut, so that no command can forget it.
        let account = batch.accounts.get_mut(&command.key.tenant);
        Decided { reply, cut: account.map(AccountState::take_cut).unwrap_or_default() }
    };
    let decided = commands.iter().map(decide).collect();
    for (tenant, account) in batch.accounts {
        account.write(&tenant, batch.now, &mut batch.writes);
    }
    if !batch.created.is_empty() && !batch.writes.is_empty() {
        let used: HashSet<_> = batch.writes.rows.iter().map(|row| &row.key.tenant).collect();
        batch.writes.unused = batch.created.iter().filter(|tenant| !used.contains(tenant)).cloned().collect();
    }
    (batch.writes, decided)
}

impl Attempt<'_, '_> {
    /// Decides one command. `sent`: it may have been stored before; `left`: its caller has left.
    fn decide(mut self, sent: bool, left: bool) -> Reply {
        let looked_for = match self.command.kind {
            CommandKind::Spooled { .. } => false, // recognizes its rows itself
            // A process that has crashed since may have merged it from the spool before.
            CommandKind::SettleOf { .. } => true,
            _ => sent,
        };
        if looked_for && self.rows().written_by(self.command.id) {
            return self.stored_before();
        }
        match &self.command.kind {
            // It was only looked up, in case it had been stored.
            CommandKind::Admit(_) if left => Reply::Unavailable("the caller has left".into()),
            CommandKind::Admit(admit) => self.admit(admit),
            CommandKind::Settle(settle) => self.at(settle.attempt).settle(settle),
            CommandKind::Spooled { admit, at } => self.admit_spooled(admit, *at),
            CommandKind::SettleOf { of, settle } => self.settle_of(*of, settle),
            CommandKind::SettleJob { plan, attempt, outcome, running, .. } => {
                self.at(*attempt).settle_job(plan, *outcome, *running)
            }
            CommandKind::Record { plan, amounts } => self.record(plan, amounts),
            CommandKind::Expire { attempt, charge, .. } => self.at(*attempt).expire(*charge),
            CommandKind::Renew { attempt, since, ttl } => self.at(*attempt).renew(*since, *ttl),
            CommandKind::Lapse { of, attempt, since } => self.lapse(*of, *attempt, *since),
            CommandKind::Reset { plan, limit } => self.reset(plan, limit.as_deref()),
            CommandKind::Credit { plan, request } => self.credit(plan, request),
            CommandKind::Grant { plan, grant } => self.grant(plan, grant),
            CommandKind::Revoke { grant } => self.revoke(*grant),
            CommandKind::Probe => Reply::Done,
        }
    }
}
