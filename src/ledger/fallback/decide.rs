//! Decision on a request while the ledger may be away.

use std::{num::NonZeroU32, sync::Arc};

use super::{Spool, merge::start_merging, spool_queue::SpoolQueue};
use crate::{
    error::ConfigError,
    ledger::{
        Database, WriterTask, new_id,
        store::admit_error,
        writer::{AdmitCommand, AdmitReply, AdmittedAt, Command, CommandKind, Reply, SettleCommand},
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
    /// Number of processes that share what remains of a limit; `None` admits without a limit.
    share: Option<NonZeroU32>,
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
            OnFailure::LocalShare { of } => Some(of),
        };
        let spool = spool.cloned().ok_or_else(|| {
            let what = format!("ledger under `OnFailure::{on_failure:?}`");
            ConfigError::new(&what, "have a spool (open it with `.spool_in(path)`)", "none")
        })?;
        if share.is_some() {
            spool.queue().allowances().fit(most);
        }
        Ok(Some(Self { spool, share }))
    }

    pub(super) fn spool(&self) -> &Arc<SpoolQueue> {
        self.spool.queue()
    }

    /// Whether each admission returns the usage of its limits.
    pub(super) fn learns(&self) -> bool {
        self.share.is_some()
    }

    /// Asks the ledger; decides without it if it has not decided. Returns the admission, and whether it passed without
    /// the ledger.
    ///
    /// # Cancel safety
    /// If the call is dropped before its end, nothing is charged.
    pub(super) async fn decide<D: Database>(
        &self,
        writer: &Arc<WriterTask<D>>,
        command: Command,
        wall: u64,
    ) -> Result<(AdmitReply, bool), AdmitError> {
        let CommandKind::Admit(admit) = &command.kind else { return Err(StoreError::Unavailable.into()) };
        let spool = self.spool();
        start_merging(spool, writer);
        if !command.own {
            spool.claim(&command.key, command.id, admit.fingerprint).map_err(duplicate)?;
        }
        let at = wall / 1_000 * 1_000; // databases know microseconds
        let mut passing =
            PassingCharge { writer, spool, command: &command, admit, at, sent: false, spooled: false, passed: false };
        if spool.asks(&command.key.tenant) {
            let merged = self.learns() && spool.is_empty();
            let before = merged.then(|| spool.allowances().get(&command.key.tenant));
            match writer.submit(command.clone()).await {
                Reply::Admitted(admitted) => {
                    if let (true, Some(usage)) = (self.learns(), &admitted.usage)
                        && let Some(local) = spool.allowances().client(&command.key.tenant, wall)
                    {
                        local.update(&admit.plan, usage, before.as_ref(), wall);
                    }
                    if !command.own {
                        spool.remember(&command.key, admit.fingerprint, Duplicate::Unknown { may_run: false });
                    }
                    return Ok((*admitted, false));
                }
                // The ledger is reachable: this request passes, as the layer says, and the ledger still decides all
                // others.
                Reply::Rejected(_) => {}
                Reply::Unavailable(_) if writer.database.refusal().is_some() => {}
                Reply::Unavailable(why) => spool.lost(&why),
                // Only this account's requests pass.
                Reply::Held => spool.hold(&command.key.tenant),
                Reply::Indeterminate => {
                    passing.sent = true;
                    let held = {
                        let mut writer = writer.lock();
                        writer.keep(command.id);
                        writer.is_held(&command.key.tenant)
                    };
                    match held {
                        true => spool.hold(&command.key.tenant),
                        false => spool.lost(&"no reply in time; the charge may have been written".into()),
                    }
                }
                reply => {
                    if let Reply::Replay(known @ (Duplicate::Done | Duplicate::Unknown { .. })) = reply {
                        spool.remember(&command.key, admit.fingerprint, known);
                    }
                    return Err(admit_error(reply));
                }
            }
            start_merging(spool, writer);
        }
        // A database that answers and must not be used is not away: its clients would pass without a limit.
        if writer.database.refusal().is_some() {
            return Err(if passing.sent { StoreError::Indeterminate } else { StoreError::Unavailable }.into());
        }
        passing.pass(self.share, wall).await?;
        start_merging(spool, writer); // no later request may come
        Ok((AdmitReply::spooled(at), true))
    }
}

/// A request that may pass. If it is dropped before it has passed, it releases its claim on the job, and voids the
/// charge in the file or in the ledger.
struct PassingCharge<'a, D: Database> {
    writer: &'a Arc<WriterTask<D>>,
    spool: &'a SpoolQueue,
    command: &'a Command,
    admit: &'a AdmitCommand,
    at: u64,
    /// Whether the ledger may have written it.
    sent: bool,
    /// Whether the record may be in the file.
    spooled: bool,
    passed: bool,
}

impl<D: Database> PassingCharge<'_, D> {
    async fn pass(&mut self, share: Option<NonZeroU32>, wall: u64) -> Result<(), AdmitError> {
        let Command { key, own, .. } = self.command;
        let AdmitCommand { plan, amounts, fingerprint, .. } = self.admit;
        if !own {
            let running = self.writer.lock().is_running(key).then_some(Duplicate::Running);
            if let Some(known) = running.or_else(|| self.spool.knows(key, *fingerprint)) {
                return Err(duplicate(known));
            }
        }
        if let Some(share) = share {
            let mut allowances = self.spool.allowances();
            let local = allowances.client(&key.tenant, wall).ok_or(StoreError::Unavailable)?;
            local
                .pass(plan, amounts, share, wall)
                .map_err(|violations| AdmitError::Denied { denial: Denial::Limits(violations), shared: false })?;
        }
        let kind = CommandKind::Spooled { admit: self.admit.clone(), at: self.at };
        self.spooled = true;
        // The same id: if the ledger has written the admission after all, it charges it once.
        self.passed = self.spool.keep(Command { kind, ..self.command.clone() }).await;
        self.spooled = self.passed;
        match self.passed {
            true => Ok(()),
            false if self.sent => Err(StoreError::Indeterminate.into()),
            false => Err(StoreError::Unavailable.into()),
        }
    }
}

impl<D: Database> Drop for PassingCharge<'_, D> {
    fn drop(&mut self) {
        if self.passed {
            return;
        }
        if !self.command.own {
            self.spool.release(&self.command.key, self.command.id);
        }
        let since = AdmittedAt { at: self.at, epoch: u64::MAX };
        let settle = SettleCommand::void(Arc::clone(&self.admit.plan), 0, since);
        let kind = CommandKind::SettleOf { of: self.command.id, settle };
        let void = Command { id: new_id(), own: false, kind, ..self.command.clone() };
        if self.spooled {
            self.spool.settle(void);
        } else if self.sent {
            self.writer.enqueue(void);
        }
    }
}

fn duplicate(duplicate: Duplicate) -> AdmitError {
    AdmitError::Denied { denial: Denial::Job(duplicate), shared: false }
}
