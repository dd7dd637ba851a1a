//! What becomes of a request while the ledger is away: it passes, and what it charges waits in a file.

pub(super) mod local_share;
pub(super) mod mode;
mod spool;
mod spool_error;
pub(super) mod spool_format;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use spool::Spool;
pub use spool_error::SpoolError;

use super::writer::{
    AdmitCommand, AdmitReply, AdmittedAt, Command, CommandKind, Key, Local, Reply, Sent, SettleCommand, SettleKind,
    SpooledCharge, after,
};
use super::{Database, WriterTask, new_id, store::refused};
use crate::error::ConfigError;
use crate::quota::{
    Amounts, OnFailure, Plan, Usage,
    account::{Denial, Duplicate},
    store::{AdmitError, StoreError, StoreEvent},
};
use spool::{Heard, Shared};

/// How a layer goes on without its ledger.
pub(super) struct Fallback {
    spool: Spool,
    share: Option<Shares>,
}

/// What this process may let pass of each client's limits.
struct Shares {
    share: u64,
    most: usize,
    clients: Mutex<Clients>,
}

#[derive(Default)]
struct Clients {
    all: HashMap<Arc<str>, Local>,
    /// When those whose periods are over are looked for again.
    swept: u64,
}

/// How an admission came about.
pub(super) enum Passed {
    Written(AdmitReply),
    /// At this time, and nobody was asked.
    Fallback(u64),
}

/// So many records are brought to the ledger at once.
const AT_ONCE: usize = 512;

/// How long is waited after the ledger did not take what was brought, at first and at most.
const REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// How often those whose periods are over are looked for where there is no room, in nanoseconds.
const SWEEP_EVERY: u64 = 1_000_000_000;

impl Fallback {
    /// Returns the fallback that `on_failure` asks for, for at most `most` clients; `None` if it fails closed.
    ///
    /// # Errors
    /// If the ledger has no spool to fall back on.
    pub(super) fn new(spool: Option<&Spool>, on_failure: OnFailure, most: usize) -> Result<Option<Self>, ConfigError> {
        let share = match on_failure {
            OnFailure::FailClosed => return Ok(None),
            OnFailure::FailOpen => None,
            OnFailure::LocalShare { of } => Some(Shares { share: of.get().into(), most, clients: Mutex::default() }),
        };
        let spool = spool.cloned().ok_or_else(|| {
            let what = format!("ledger under `OnFailure::{on_failure:?}`");
            ConfigError::new(&what, "have a spool (open it with `.spool_in(path)`)", "none")
        })?;
        Ok(Some(Self { spool, share }))
    }

    pub(super) fn spool(&self) -> &Arc<Shared> {
        self.spool.shared()
    }

    /// Whether the usage of each limit is to be told with each admission.
    pub(super) fn learns(&self) -> bool {
        self.share.is_some()
    }

    /// Asks the ledger, or does without it.
    ///
    /// # Cancel safety
    /// Dropped before its end, what was to pass comes to nothing.
    pub(super) async fn decide<D: Database>(
        &self,
        writer: &Arc<WriterTask<D>>,
        command: Command,
        wall: u64,
    ) -> Result<Passed, AdmitError> {
        let CommandKind::Admit(admit) = &command.kind else { return Err(StoreError::Unavailable.into()) };
        let (spool, admit) = (self.spool(), admit.clone());
        work(spool, writer);
        let claim = Claimed::of(spool, &command, &admit)?;
        let mut sent = Sent::No;
        if spool.asks() {
            let before = self.share.as_ref().map(|share| share.before(&command.key.tenant, spool.is_empty()));
            let reply = writer.submit_and_keep(command.clone()).await;
            match (after(&reply), reply) {
                (None, Reply::Admitted(admitted)) => {
                    if let (Some(share), Some(before), Some(usage)) = (&self.share, before, &admitted.usage) {
                        share.hear(&command.key.tenant, &admit.plan, usage, before.as_ref(), wall);
                    }
                    if !command.own {
                        spool.remember(&command.key, admit.fingerprint);
                    }
                    return Ok(Passed::Written(*admitted));
                }
                // The ledger is there: this request passes, as the layer says, and all others are still decided by it.
                (None, Reply::Rejected(_)) => {}
                (None, reply) => {
                    if matches!(reply, Reply::Replay { .. }) {
                        spool.remember(&command.key, admit.fingerprint);
                    }
                    return Err(refused(reply));
                }
                (Some(open), reply) => {
                    sent = open;
                    spool.lost(&why(reply));
                }
            }
            work(spool, writer);
        }
        let mut passing =
            Passing { writer, spool, command: &command, admit: &admit, wall, sent, kept: false, done: false };
        let passed = passing.pass(self.share.as_ref()).await;
        if passed.is_ok() {
            claim.keep();
        }
        passed
    }
}

/// A job that nobody else may ask for, until the ledger has decided or it has passed.
struct Claimed<'a> {
    spool: &'a Shared,
    of: Option<(Key, u128)>,
}

impl<'a> Claimed<'a> {
    fn of(spool: &'a Shared, command: &Command, admit: &AdmitCommand) -> Result<Self, AdmitError> {
        if command.own {
            return Ok(Self { spool, of: None });
        }
        let claimed = spool.claim(&command.key, command.id, admit.fingerprint);
        claimed.map_err(|duplicate| AdmitError::Denied { denial: Denial::Job(duplicate), shared: false })?;
        Ok(Self { spool, of: Some((command.key.clone(), command.id)) })
    }

    fn keep(mut self) {
        self.of = None;
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        if let Some((key, command)) = self.of.take() {
            self.spool.let_go(&key, command);
        }
    }
}

/// A request that is about to pass.
struct Passing<'a, D: Database> {
    writer: &'a Arc<WriterTask<D>>,
    spool: &'a Shared,
    command: &'a Command,
    admit: &'a AdmitCommand,
    wall: u64,
    sent: Sent,
    /// It may be in the file.
    kept: bool,
    done: bool,
}

impl<D: Database> Passing<'_, D> {
    async fn pass(&mut self, share: Option<&Shares>) -> Result<Passed, AdmitError> {
        if !self.command.own {
            let running = self.writer.is_running(&self.command.key).then_some(Duplicate::Running);
            if let Some(duplicate) = running.or_else(|| self.spool.knows(&self.command.key, self.admit.fingerprint)) {
                return Err(AdmitError::Denied { denial: Denial::Job(duplicate), shared: false });
            }
        }
        if let Some(share) = share {
            share.pass(&self.command.key.tenant, self.admit, self.wall)?;
        }
        let at = self.wall / 1_000 * 1_000; // databases know microseconds
        let AdmitCommand { plan, amounts, fingerprint, reserve, .. } = self.admit;
        let (plan, amounts) = (Arc::clone(plan), amounts.clone());
        let pass = SpooledCharge { plan, amounts, fingerprint: *fingerprint, reserve: *reserve, at };
        self.kept = true;
        // The same id: where its admission was written after all, the ledger has it once.
        if self.spool.keep(Command { kind: CommandKind::Spooled(pass), ..self.command.clone() }).await {
            self.done = true;
            return Ok(Passed::Fallback(at));
        }
        self.kept = false;
        let trouble = if self.sent == Sent::Perhaps { StoreError::Indeterminate } else { StoreError::Unavailable };
        Err(trouble.into())
    }
}

impl<D: Database> Drop for Passing<'_, D> {
    /// Nothing was worked on: what may be in the file goes back, and what may be in the ledger.
    fn drop(&mut self) {
        if self.done || (!self.kept && self.sent == Sent::No) {
            return;
        }
        let settle = SettleCommand {
            plan: Arc::clone(&self.admit.plan),
            attempt: 0,
            since: AdmittedAt { at: self.wall / 1_000 * 1_000, epoch: u32::MAX },
            end: SettleKind::Void,
            used: Amounts::new(),
            part: 0,
        };
        let kind = CommandKind::SettleOf { of: self.command.id, settle };
        let command = Command { id: new_id(), own: false, kind, ..self.command.clone() };
        if self.kept {
            self.spool.settle(command);
        } else {
            self.writer.enqueue(command);
        }
    }
}

impl Shares {
    /// What has passed here of a client's limits, where all of it is in the ledger already.
    fn before(&self, tenant: &str, merged: bool) -> Option<Local> {
        let clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        merged.then(|| clients.all.get(tenant).cloned().unwrap_or_default())
    }

    fn hear(&self, tenant: &Arc<str>, plan: &Plan, usage: &Usage, before: Option<&Local>, wall: u64) {
        self.with(tenant, wall, |local| local.hear(plan, usage, before, wall));
    }

    fn pass(&self, tenant: &Arc<str>, admit: &AdmitCommand, wall: u64) -> Result<(), AdmitError> {
        let passed = self.with(tenant, wall, |local| local.pass(&admit.plan, &admit.amounts, self.share, wall));
        passed
            .ok_or(StoreError::Unavailable)?
            .map_err(|violations| AdmitError::Denied { denial: Denial::Limits(violations), shared: false })
    }

    /// Something of a client; `None` where there is no room for another.
    fn with<T>(&self, tenant: &Arc<str>, wall: u64, work: impl FnOnce(&mut Local) -> T) -> Option<T> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if !clients.all.contains_key(tenant) && clients.all.len() >= self.most {
            if clients.swept <= wall {
                clients.swept = wall.saturating_add(SWEEP_EVERY);
                clients.all.retain(|_, local| !local.is_over(wall));
            }
            if clients.all.len() >= self.most {
                return None;
            }
        }
        Some(work(clients.all.entry(Arc::clone(tenant)).or_default()))
    }
}

/// Sees to it that somebody brings to the ledger what waits for it: a task of its own, which a runtime that ends takes with it.
pub(super) fn work<D: Database>(spool: &Arc<Shared>, writer: &Arc<WriterTask<D>>) {
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

/// Whoever brings it; when it ends, another may.
struct Merging<D: Database> {
    spool: Arc<Shared>,
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
        self.spool.is_closed() || self.writer.is_closed()
    }

    /// There is nothing to do, unless something has come just now, whose owner saw somebody at work.
    fn rest(&mut self) {
        self.spool.end_merging();
        let idle = self.spool.asks() && self.spool.is_empty();
        self.over = idle || self.stops() || !self.spool.begin_merging();
    }

    async fn run(&self) {
        let mut rest = REST;
        while !self.stops() {
            let (commands, blind) = self.spool.next(AT_ONCE);
            if commands.is_empty() && !blind {
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
                // The ledger is there, and refuses this one: it waits, but nobody else does.
                self.spool.put_behind();
            }
            if replies.len() < many.max(1) {
                tokio::time::sleep(rest.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
                rest = (rest * 2).min(LONGEST_REST);
            }
        }
    }
}

/// Why the ledger has not decided.
fn why(reply: Reply) -> Arc<str> {
    match reply {
        Reply::Unavailable(why) => why,
        _ => "it did not say in time whether it has charged".into(),
    }
}

/// Changes nothing, and shows that the ledger can be written.
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

/// What a layer tells of its spool.
pub(super) fn told(heard: &Heard) -> StoreEvent {
    match heard {
        Heard::Lost(why) => StoreEvent::Lost(Arc::clone(why)),
        Heard::Back => StoreEvent::Back,
        Heard::Full => StoreEvent::Full,
        Heard::Merged { records, duplicates } => StoreEvent::Merged { records: *records, duplicates: *duplicates },
    }
}
