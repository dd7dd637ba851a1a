//! The life of a charge in a layer's store: its command, its receipt and its settlement.

use std::sync::Arc;

use super::{
    Database, LedgerReceipt, LedgerReservation, LedgerStore,
    slots::{self, SlotGuard},
    store::{new_job, tenant},
    writer::{AdmitCommand, AdmitReply, Command, CommandKind, JobEnd, Key, ReservationTerms, SettleKind, is_within},
};
use crate::{
    kind::Kind,
    quota::{
        Amounts,
        account::{Denial, Duplicate, Now},
        store::{
            AdmissionDetails, AdmitError, AdmitRequest, AdmittedCharge, NearLimits, QuotaBackend, Receipt, Settlement,
        },
    },
};

impl<D: Database> LedgerStore<D> {
    /// Acquires a slot, and makes the command of an admission; its reply has the usage if `learns`. Also returns the
    /// function that makes the receipt of the reply, which is told whether the charge passed without the ledger. If it
    /// is dropped, the slot is released.
    pub(super) fn prepare(
        &self,
        request: &AdmitRequest<'_>,
        learns: bool,
    ) -> Result<(Command, impl FnOnce(AdmitReply, bool) -> AdmittedCharge + Send + use<D>), AdmitError> {
        let (tenant, now) = (tenant(request.account.client)?, request.account.now);
        self.inner.upkeep.start();
        let charge = &request.charge;
        if let (Some(job), Some(horizon)) = (charge.job, self.inner.horizon())
            && !is_within(&job.text, now.wall, horizon)
        {
            return Err(AdmitError::Denied { denial: Denial::Job(Duplicate::Stale), shared: false });
        }
        let slot = slots::acquire(&self.slots, request)?;
        let mut amounts = charge.amounts.clone();
        amounts.leave_out(&Kind::Concurrent);
        let (job, fingerprint) = match charge.job {
            Some(job) => (job.text.as_ref().into(), Some(job.fingerprint.0)),
            None => (new_job(), None),
        };
        let key = Key { tenant, job };
        let (ttl, plan, client) = (self.settings.ttl, Arc::clone(request.account.plan), request.account.client);
        let terms = ReservationTerms { ttl: crate::time::nanos(ttl), charge: self.settings.charge_expired };
        let admit = AdmitCommand {
            plan: Arc::clone(&plan),
            amounts,
            fingerprint,
            tier: client.has_known_tier().then(|| client.tier().map_or_else(Arc::default, |tier| tier.as_str().into())),
            reserve: charge.reserve.then_some(terms),
            job_lease: charge.job.map(|_| crate::time::nanos(self.settings.max_hold)),
            wants_nearest: request.wants_nearest,
            usage: request.wants_usage || learns,
        };
        let command = self.command(key.clone(), charge.job.is_none(), CommandKind::Admit(admit));
        let (id, job, client) = (command.id, charge.job.cloned(), request.account.client.clone());
        let (reserved, active) = (charge.reserve, charge.reserve && charge.lasting);
        let (open, wants_usage) = (charge.open || reserved, request.wants_usage);
        let (inner, slots) = (Arc::clone(&self.inner), Arc::clone(&self.slots));
        let admitted = move |reply: AdmitReply, passed: bool| {
            let AdmitReply { attempt, since, nearest, near, pending, usage } = reply;
            let slot = slot.and_then(SlotGuard::keep);
            if active && !passed {
                inner.upkeep.add(id, &key, attempt, since, ttl);
            }
            let usage =
                usage.filter(|_| wants_usage).map(|usage| slots::merge_usage(&slots, &client, &plan, now, usage));
            let near = NearLimits::of(Some(&client), near);
            let quiet = near.limits.is_empty() && pending.is_empty() && usage.is_none();
            let details = AdmissionDetails { reclaimed: false, near, pending, usage };
            let id = LedgerReservation { key, command: id, since, passed };
            let receipt = Receipt {
                address: slot.as_ref().map_or_else(Default::default, |slot| slot.address),
                lease: slot.and_then(|slot| slot.lease),
                job,
                open,
                store_part: Some(Box::new(LedgerReceipt::new(id, attempt, plan, reserved, now.moment))),
                ..Receipt::default()
            };
            AdmittedCharge { receipt, nearest, details: (!quiet).then(|| Box::new(details)) }
        };
        Ok((command, admitted))
    }

    /// Releases the slot and returns the command that settles a charge, if one must be written.
    pub(super) fn settlement(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> Option<Command> {
        if receipt.lease.is_some() {
            self.slots.settle(receipt, &Settlement::Detached, now);
        }
        let written = LedgerReceipt::of(receipt)?;
        self.inner.upkeep.remove(written.id.command);
        let job = match end {
            Settlement::Served { .. } => receipt.job.as_ref().map(|_| JobEnd::Done),
            Settlement::Interrupted { .. } => receipt.job.as_ref().map(|_| JobEnd::Interrupted),
            Settlement::Void(_) | Settlement::Detached => None,
        };
        let (end, used) = match end {
            // Work that has begun stays charged: only its slot is returned.
            Settlement::Void(charged)
                if charged.is_none_or(|charged| charged.amounts.is_empty() && !written.has_added())
                    && !written.reserved
                    && receipt.job.is_none() =>
            {
                (SettleKind::Add, Amounts::new())
            }
            Settlement::Void(_) => (SettleKind::Void, Amounts::new()),
            Settlement::Served { used, actual } | Settlement::Interrupted { used, actual, .. } if written.reserved => {
                (SettleKind::Commit((*actual).clone()), (*used).clone())
            }
            Settlement::Served { used, .. } | Settlement::Interrupted { used, .. } => {
                (SettleKind::Add, (*used).clone())
            }
            Settlement::Detached => return None,
        };
        let (used, part) = written.take(used);
        let writes = end != SettleKind::Add || job.is_some() || !used.is_empty();
        writes.then(|| self.command(written.id.key.clone(), false, written.settle(end, job, used, part)))
    }

    /// Reports progress to the slot and returns the command that adds usage to a charge, once it is due.
    pub(super) fn addition(&self, receipt: &mut Receipt, used: &Amounts, now: Now) -> Option<Command> {
        if receipt.lease.is_some() {
            self.slots.progress(receipt, &Amounts::new(), now);
        }
        let written = LedgerReceipt::of(receipt)?;
        let (used, part) = written.add(used, now.moment)?;
        Some(self.command(written.id.key.clone(), false, written.settle(SettleKind::Add, None, used, part)))
    }
}
