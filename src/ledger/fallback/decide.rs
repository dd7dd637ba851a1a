//! Decision on a request while the ledger may be away.

use std::sync::Arc;

use super::{Spool, local_share::LocalShares, merge::start_merging, spool_queue::SpoolQueue};
use crate::{
    error::ConfigError,
    ledger::{
        Database, WriterTask, new_id,
        store::admit_error,
        writer::{AdmitCommand, AdmitReply, AdmittedAt, Command, CommandKind, Key, Reply, Sent, SettleCommand, after},
    },
    quota::{
        OnFailure,
        account::{Denial, Duplicate},
        store::{AdmitError, StoreError},
    },
};

/// Admits charges of a layer while its ledger is away.
pub(super) struct Fallback {
    spool: Spool,
    share: Option<LocalShares>,
}

/// An admission by the ledger or without it.
pub(super) enum Admitted {
    Written(AdmitReply),
    /// Without the ledger, at this time in nanoseconds since 1970.
    Passed(u64),
}

impl Fallback {
    /// Returns the fallback that `on_failure` asks for, for at most `most` clients; `None` if it fails closed.
    ///
    /// # Errors
    /// If the ledger has no spool to fall back on.
    pub(super) fn new(spool: Option<&Spool>, on_failure: OnFailure, most: usize) -> Result<Option<Self>, ConfigError> {
        let share = match on_failure {
            OnFailure::FailClosed => return Ok(None),
            OnFailure::FailOpen => None,
            OnFailure::LocalShare { of } => Some((of, most)),
        };
        let spool = spool.cloned().ok_or_else(|| {
            let what = format!("ledger under `OnFailure::{on_failure:?}`");
            ConfigError::new(&what, "have a spool (open it with `.spool_in(path)`)", "none")
        })?;
        let share = share.map(|(of, most)| LocalShares::new(of, most, spool.allowances()));
        Ok(Some(Self { spool, share }))
    }

    pub(super) fn spool(&self) -> &Arc<SpoolQueue> {
        self.spool.queue()
    }

    /// Whether each admission returns the usage of its limits.
    pub(super) fn learns(&self) -> bool {
        self.share.is_some()
    }

    /// Asks the ledger; decides without it if it has not decided.
    ///
    /// # Cancel safety
    /// If the call is dropped before its end, nothing is charged.
    pub(super) async fn decide<D: Database>(
        &self,
        writer: &Arc<WriterTask<D>>,
        command: Command,
        wall: u64,
    ) -> Result<Admitted, AdmitError> {
        let CommandKind::Admit(admit) = &command.kind else { return Err(StoreError::Unavailable.into()) };
        let (spool, admit) = (self.spool(), admit.clone());
        start_merging(spool, writer);
        let claim = ClaimGuard::of(spool, &command, &admit)?;
        let mut sent = Sent::No;
        if spool.asks() {
            let before = self.share.as_ref().map(|share| share.before(&command.key.tenant, spool.is_empty()));
            let reply = writer.submit_and_keep(command.clone()).await;
            match (after(&reply), reply) {
                (None, Reply::Admitted(admitted)) => {
                    if let (Some(share), Some(before), Some(usage)) = (&self.share, before, &admitted.usage) {
                        share.update(&command.key.tenant, &admit.plan, usage, before.as_ref(), wall);
                    }
                    if !command.own {
                        spool.remember(&command.key, admit.fingerprint);
                    }
                    return Ok(Admitted::Written(*admitted));
                }
                // The ledger is reachable: this request passes, as the layer says, and the ledger still decides all
                // others.
                (None, Reply::Rejected(_)) => {}
                (None, reply) => {
                    if matches!(reply, Reply::Replay { .. }) {
                        spool.remember(&command.key, admit.fingerprint);
                    }
                    return Err(admit_error(reply));
                }
                (Some(open), reply) => {
                    sent = open;
                    spool.lost(&why(reply));
                }
            }
            start_merging(spool, writer);
        }
        let mut passing =
            PassingCharge { writer, spool, command: &command, admit: &admit, wall, sent, kept: false, done: false };
        let passed = passing.pass(self.share.as_ref()).await;
        if passed.is_ok() {
            claim.keep();
        }
        passed
    }
}

/// Claim on a job until the ledger has decided or the job has passed; duplicates are refused meanwhile.
struct ClaimGuard<'a> {
    spool: &'a SpoolQueue,
    of: Option<(Key, u128)>,
}

impl<'a> ClaimGuard<'a> {
    fn of(spool: &'a SpoolQueue, command: &Command, admit: &AdmitCommand) -> Result<Self, AdmitError> {
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

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        if let Some((key, command)) = self.of.take() {
            self.spool.release(&key, command);
        }
    }
}

/// A request that is about to pass. If it is dropped before its end, it voids the charge in the file or in the ledger.
struct PassingCharge<'a, D: Database> {
    writer: &'a Arc<WriterTask<D>>,
    spool: &'a SpoolQueue,
    command: &'a Command,
    admit: &'a AdmitCommand,
    wall: u64,
    sent: Sent,
    /// Whether the record may be in the file.
    kept: bool,
    done: bool,
}

impl<D: Database> PassingCharge<'_, D> {
    async fn pass(&mut self, share: Option<&LocalShares>) -> Result<Admitted, AdmitError> {
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
        let kind = CommandKind::Spooled { admit: self.admit.clone(), at };
        self.kept = true;
        // The same id: if the ledger has written the admission after all, it charges it once.
        if self.spool.keep(Command { kind, ..self.command.clone() }).await {
            self.done = true;
            return Ok(Admitted::Passed(at));
        }
        self.kept = false;
        let trouble = if self.sent == Sent::Perhaps { StoreError::Indeterminate } else { StoreError::Unavailable };
        Err(trouble.into())
    }
}

impl<D: Database> Drop for PassingCharge<'_, D> {
    fn drop(&mut self) {
        if self.done || (!self.kept && self.sent == Sent::No) {
            return;
        }
        let since = AdmittedAt { at: self.wall / 1_000 * 1_000, epoch: u64::MAX };
        let settle = SettleCommand::void(Arc::clone(&self.admit.plan), 0, since);
        let kind = CommandKind::SettleOf { of: self.command.id, settle };
        let command = Command { id: new_id(), own: false, kind, ..self.command.clone() };
        if self.kept {
            self.spool.settle(command);
        } else {
            self.writer.enqueue(command);
        }
    }
}

/// Returns the reason why the ledger has not decided.
fn why(reply: Reply) -> Arc<str> {
    match reply {
        Reply::Unavailable(why) => why,
        _ => "no reply in time; the charge may have been written".into(),
    }
}
