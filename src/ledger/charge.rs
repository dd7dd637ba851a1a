//! The life of a charge in a layer's store: its command, its receipt and its settlement.

use std::{sync::Arc, time::Duration};

use super::{
    Database, LedgerInner, LedgerReceipt, LedgerReservation, LedgerStore,
    slots::{LedgerSlots, SlotGuard},
    store::{new_job, tenant},
    writer::{AdmitCommand, AdmitReply, Command, CommandKind, Key, ReservationTerms, SettleKind, is_within},
};
use crate::{
    identity::Client,
    kind::Kind,
    quota::{
        Amounts, Plan,
        account::{Denial, Duplicate, Job, Now},
        store::{AdmissionDetails, AdmitError, AdmitRequest, AdmittedCharge, NearLimits, Receipt, Settlement},
    },
};

/// An admission between its command and its reply.
pub(super) struct PendingAdmission<D: Database> {
    pub(super) inner: Arc<LedgerInner<D>>,
    slots: Arc<LedgerSlots>,
    slot: Option<SlotGuard>,
    key: Key,
    /// Id of the command.
    id: u128,
    client: Client,
    plan: Arc<Plan>,
    pub(super) now: Now,
    job: Option<Arc<Job>>,
    ttl: Duration,
    reserved: bool,
    /// Whether a handler works on the reservation.
    active: bool,
    open: bool,
    wants_usage: bool,
}

impl<D: Database> LedgerStore<D> {
    /// Acquires a slot and makes the command of an admission; its reply has the usage if `learns`.
    pub(super) fn prepare(
        &self,
        request: &AdmitRequest<'_>,
        learns: bool,
    ) -> Result<(Command, PendingAdmission<D>), AdmitError> {
        let (tenant, now) = (tenant(request.account.client)?, request.account.now);
        self.inner.upkeep.start();
        let charge = &request.charge;
        if let (Some(job), Some(horizon)) = (charge.job, self.inner.horizon())
            && !is_within(&job.text, now.wall, horizon)
        {
            return Err(AdmitError::Denied { denial: Denial::Job(Duplicate::Stale), shared: false });
        }
        let slot = self.slots.acquire(request)?;
        let plan = Arc::clone(request.account.plan);
        let mut amounts = charge.amounts.clone();
        amounts.leave_out(&Kind::Concurrent);
        let (job, fingerprint) = match charge.job {
            Some(job) => (job.text.as_ref().into(), Some(job.fingerprint.0)),
            None => (new_job(), None),
        };
        let key = Key { tenant, job };
        let ttl = crate::time::nanos(self.settings.ttl);
        let reserve = charge.reserve.then_some(ReservationTerms { ttl, charge: self.settings.charge_expired });
        let (wants_nearest, usage) = (request.wants_nearest, request.wants_usage || learns);
        let admit = AdmitCommand { plan: Arc::clone(&plan), amounts, fingerprint, reserve, wants_nearest, usage };
        let command = self.command(key.clone(), charge.job.is_none(), CommandKind::Admit(admit));
        let pending = PendingAdmission {
            inner: Arc::clone(&self.inner),
            slots: Arc::clone(&self.slots),
            slot,
            key,
            id: command.id,
            client: request.account.client.clone(),
            plan,
            now,
            job: charge.job.cloned(),
            ttl: self.settings.ttl,
            reserved: charge.reserve,
            active: charge.reserve && charge.lasting,
            open: charge.open,
            wants_usage: request.wants_usage,
        };
        Ok((command, pending))
    }

    /// Releases the slot and returns the command that settles a charge, if one must be written.
    pub(super) fn settlement(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> Option<Command> {
        self.slots.release(receipt, now);
        let written = LedgerReceipt::of(receipt)?;
        self.inner.upkeep.remove(written.id.command);
        let (end, used) = match end {
            // Work that has begun stays charged: only its slot is returned.
            Settlement::Void(nothing) if nothing.is_empty() && !written.reserved && receipt.job.is_none() => {
                (SettleKind::Add, Amounts::new())
            }
            Settlement::Void(_) => (SettleKind::Void, Amounts::new()),
            Settlement::Served { used, actual } if written.reserved => {
                (SettleKind::Commit((*actual).clone()), (*used).clone())
            }
            Settlement::Served { used, .. } => (SettleKind::Add, (*used).clone()),
            Settlement::Detached => return None,
        };
        // A voided job counts as running until its id is free: a duplicate must not be answered meanwhile as if the
        // job were done.
        if receipt.job.is_some() && end != SettleKind::Void {
            self.inner.writer.lock().finish(&written.id.key, written.id.command);
        }
        let (used, part) = written.take(used);
        let writes = end != SettleKind::Add || !used.is_empty();
        writes.then(|| self.command(written.id.key.clone(), false, written.settle(end, used, part)))
    }

    /// Reports progress to the slot and returns the command that adds usage to a charge, once it is due.
    pub(super) fn addition(&self, receipt: &Receipt, used: &Amounts, now: Now) -> Option<Command> {
        self.slots.progress(receipt, now);
        let written = LedgerReceipt::of(receipt)?;
        let (used, part) = written.add(used, now.moment)?;
        Some(self.command(written.id.key.clone(), false, written.settle(SettleKind::Add, used, part)))
    }
}

impl<D: Database> PendingAdmission<D> {
    /// Makes the receipt of an admission; `passed` if it passed without the ledger.
    pub(super) fn admitted(self, reply: AdmitReply, passed: bool) -> AdmittedCharge {
        let AdmitReply { attempt, since, nearest, near, pending, usage } = reply;
        let slot = self.slot.and_then(SlotGuard::keep);
        if self.active && !passed {
            self.inner.upkeep.add(self.id, &self.key, attempt, since, self.ttl);
        }
        let usage = usage.filter(|_| self.wants_usage);
        let usage = usage.map(|usage| self.slots.merge_usage(&self.client, &self.plan, self.now, usage));
        let details =
            AdmissionDetails { reclaimed: false, near: NearLimits::of(Some(&self.client), near), pending, usage };
        let quiet = details.near.limits.is_empty() && details.pending.is_empty() && details.usage.is_none();
        let id = LedgerReservation { key: self.key, command: self.id, since, passed };
        let receipt = Receipt {
            address: slot.as_ref().map_or_else(Default::default, |slot| slot.address),
            scope: Default::default(),
            lease: slot.and_then(|slot| slot.lease),
            reservation: None,
            job: self.job,
            open: self.open || self.reserved,
            shared: false,
            store_part: Some(Box::new(LedgerReceipt::new(id, attempt, self.plan, self.reserved, self.now.moment))),
        };
        AdmittedCharge { receipt, nearest, details: (!quiet).then(|| Box::new(details)) }
    }
}
