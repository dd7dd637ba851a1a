//! Implementation of the store port by accounts in memory, which answer at once.

use std::{hash::BuildHasher, sync::Arc};

use super::{Accounts, CROWD, reported_usage::ReportedUsage, room::NoRoom};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::{Client, Tier},
    quota::{
        ActiveGrant, Amounts, CreditRequest, Credited, Grant, GrantId, JobOutcome, JobState, Usage,
        account::{
            Account, Changed, ChargeRequest, ChargeScope, CloseResult, ClosedBy, Denial, Job, JobCharge, Now, Taken,
        },
        store::{
            AccountAddress, AccountContext, AdmissionDetails, AdmitError, AdmitRequest, AdmittedCharge, Bookmark,
            NearLimits, Page, PlanCharge, PlanLookup, QuotaBackend, Receipt, ReservationKey, Settlement, StoreDecision,
            StoreError, StoreListener,
        },
    },
    sync::Ordering,
};

impl QuotaBackend for Accounts {
    fn admit(&self, request: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>> {
        let mut admitted = AdmittedCharge::default();
        match self.admit_in_place(request, &mut admitted) {
            StoreDecision::Admitted => MaybeFuture::Ready(Ok(admitted)),
            StoreDecision::Refused(refused) => MaybeFuture::Ready(Err(refused)),
            StoreDecision::Pending(decision) => MaybeFuture::Future(decision),
        }
    }

    #[inline]
    fn admit_in_place(&self, request: &AdmitRequest<'_>, admitted: &mut AdmittedCharge) -> StoreDecision {
        let admit = |account: &mut Account, now, address: AccountAddress, charge: &_, admitted: &mut AdmittedCharge| {
            let shared = address.shard == CROWD;
            let taken = match account.admit(charge, now, &self.settings) {
                Ok(taken) => taken,
                Err(denial) => return StoreDecision::Refused(AdmitError::Denied { denial, shared }),
            };
            if shared && charge.job.is_some() {
                self.shared.has_jobs.store(true, Ordering::Relaxed);
            }
            let Taken { epoch, lease, reservation, .. } = taken;
            // Part by part: a complete receipt would be built first and then copied.
            let receipt = &mut admitted.receipt;
            (receipt.address, receipt.epoch) = (address, epoch);
            (receipt.lease, receipt.reservation) = (lease, reservation);
            receipt.job = request.charge.job.cloned();
            (receipt.open, receipt.shared) = (request.charge.open, shared);
            let plain = !request.wants_usage && !taken.reclaimed && taken.marks.are_none();
            if !plain {
                admitted.details = Some(details_of(account, &taken, request, now, shared));
            }
            // The remainder of a shared account would show the traffic of others.
            if request.wants_nearest && !shared {
                admitted.nearest = account.nearest(now.wall);
            }
            StoreDecision::Admitted
        };
        let account = &request.account;
        // A shared account follows the limits of the plan for overflow, if there is one.
        let charge_of_crowd = || match self.overflow {
            Some(_) => ChargeRequest { each: &[], ..request.charge },
            None => request.charge,
        };
        match request.charge.job {
            None => {
                let own = |account: &mut Account, now, address, admitted: &mut AdmittedCharge| {
                    admit(account, now, address, &request.charge, admitted)
                };
                self.with(account, admitted, own, |no_room, admitted| {
                    let charge = charge_of_crowd();
                    self.with_shared(account, no_room, |account, now, at| admit(account, now, at, &charge, admitted))
                })
            }
            Some(job) => {
                let begun = self.begin(account, job, |account, now, address| {
                    let charge = if address.shard == CROWD { charge_of_crowd() } else { request.charge };
                    admit(account, now, address, &charge, admitted)
                });
                begun.unwrap_or_else(|begun| {
                    StoreDecision::Refused(AdmitError::Denied { denial: Denial::Job(begun), shared: false })
                })
            }
        }
    }

    fn settle(&self, receipt: &Receipt, settlement: &Settlement<'_>, now: Now) -> NearLimits {
        let overflow = self.overflow.as_ref().filter(|_| receipt.shared);
        let scope = |charged: &PlanCharge<'_>| {
            let plan = Arc::clone(overflow.unwrap_or(charged.plan));
            ChargeScope { epoch: receipt.epoch, plan }
        };
        self.at(receipt.address, |_, account| {
            let mut changed = Changed::default();
            account.land(receipt.open, receipt.lease);
            match settlement {
                Settlement::Void(charged) => {
                    if let Some(reservation) = receipt.reservation {
                        changed = account.close(reservation, None, ClosedBy::Holder, now, &self.settings).1;
                    }
                    if let Some(charged) = charged {
                        account.give_back(charged.amounts, &scope(charged));
                        let reported = ReportedUsage::of(receipt);
                        reported.iter().for_each(|(amounts, scope)| account.give_back(amounts, scope));
                    }
                    if let Some(job) = &receipt.job {
                        account.free(job);
                    }
                }
                Settlement::Served { used, actual } | Settlement::Interrupted { used, actual, .. } => {
                    let reserved = receipt.reservation.filter(|_| matches!(settlement, Settlement::Interrupted { .. }));
                    let committed = reserved.map(|id| account.committed(id, actual)).unwrap_or_default();
                    if let Some(reservation) = receipt.reservation {
                        changed = account.close(reservation, Some(actual), ClosedBy::Holder, now, &self.settings).1;
                    }
                    if !used.is_empty() {
                        changed.add(account.record(used, now));
                    }
                    if let Some(job) = &receipt.job {
                        let interrupted = match settlement {
                            Settlement::Interrupted { charged, .. } => {
                                let (mut within, mut beyond) = committed;
                                charged.amounts.iter().for_each(|(kind, amount)| within.add(kind, amount));
                                used.iter().for_each(|(kind, amount)| beyond.add(kind, amount));
                                let beyond = changed.cut.rest_of(beyond);
                                let mut parts = vec![(within, scope(charged)), (beyond, account.scope())];
                                parts.extend_from_slice(ReportedUsage::of(receipt));
                                Some(JobCharge(parts))
                            }
                            _ => None,
                        };
                        account.end_job(job, interrupted, now, &self.settings);
                    }
                }
                Settlement::Detached => {
                    if let Some(reservation) = receipt.reservation {
                        account.detach(reservation, &self.settings);
                    }
                }
            }
            changed
        })
    }

    fn watch(&self, receipt: &Receipt, now: Now) {
        let Some(lease) = receipt.lease else { return };
        self.at(receipt.address, |_, account| {
            if let Some(leases) = &mut account.slots {
                leases.watch(lease, now.moment);
            }
            Changed::default()
        });
    }

    fn unwatch(&self, receipt: &Receipt) {
        let Some(lease) = receipt.lease else { return };
        self.at(receipt.address, |_, account| {
            if let Some(leases) = &mut account.slots {
                leases.unwatch(lease);
            }
            Changed::default()
        });
    }

    fn progress(&self, receipt: &mut Receipt, used: &Amounts, now: Now) -> NearLimits {
        self.at(receipt.address, |_, account| {
            if let (Some(lease), Some(leases)) = (receipt.lease, &mut account.slots) {
                leases.touch(lease, now.moment);
            }
            if used.is_empty() {
                return Changed::default();
            }
            let changed = account.record(used, now);
            let part = receipt.store_part.get_or_insert_with(|| Box::new(ReportedUsage::default()));
            if let Some(reported) = part.downcast_mut::<ReportedUsage>() {
                reported.add(changed.cut.rest_of(used.clone()), account);
            }
            changed
        })
    }

    fn reservation_key(&self, receipt: &Receipt) -> ReservationKey {
        let reservation = receipt.reservation.expect("it was reserved");
        let (address, proof) = (receipt.address, self.proofs.hash_one((receipt.address, reservation)));
        ReservationKey::Memory { accounts: self.number, address, reservation, proof }
    }

    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>> {
        let mut result = CloseResult::Unknown;
        let near = match *reserved {
            ReservationKey::Memory { accounts, address, reservation, proof }
                if accounts == self.number && proof == self.proofs.hash_one((address, reservation)) =>
            {
                self.at(address, |client, account| {
                    // The end of one reservation does not depend on others that are still overdue.
                    let _ = match client {
                        Some(client) => account.advance(&plan_of(client), now, &self.settings),
                        None => account.expire(now, &self.settings),
                    };
                    let changed;
                    (result, changed) = account.close(reservation, actual, ClosedBy::Id, now, &self.settings);
                    changed
                })
            }
            _ => NearLimits::default(),
        };
        MaybeFuture::Ready(Ok((result, near)))
    }

    fn settle_job(
        &self,
        context: &AccountContext<'_>,
        job: &Job,
        outcome: JobOutcome,
    ) -> MaybeFuture<Result<Option<JobState>, StoreError>> {
        let settled = self.change(context, |account| account.settle_job(job, outcome, context.now));
        // Charged while there was no room for the client, under whichever plan.
        let shared = || {
            let mut accounts = self.shared.accounts.lock();
            accounts.iter_mut().find_map(|account| account.settle_job(job, outcome, context.now))
        };
        MaybeFuture::Ready(Ok(settled.flatten().or_else(shared)))
    }

    fn record(&self, context: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>> {
        let record = |account: &mut Account, now: Now, address: AccountAddress| {
            if let Err(invalid) = account.check_record(amounts) {
                return MaybeFuture::Ready(Err(StoreError::Invalid(invalid)));
            }
            let changed = account.record(amounts, now);
            let client = (address.shard != CROWD).then_some(context.client);
            MaybeFuture::Ready(Ok(NearLimits::after(client, account, changed)))
        };
        let own = |account: &mut Account, now, address, ()| record(account, now, address);
        self.with(context, (), own, |no_room, ()| self.with_shared(context, no_room, record))
    }

    fn usage(&self, context: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>> {
        MaybeFuture::Ready(Ok(self.look(context, |account, _| account.usage(context.now.wall))))
    }

    fn last_tier(&self, client: &Client) -> MaybeFuture<Result<Option<Tier>, StoreError>> {
        let (_, mut shard) = self.shard(client);
        let slot = shard.find(client.digest());
        let entry = slot.and_then(|slot| shard.entry(slot as usize));
        MaybeFuture::Ready(Ok(entry.and_then(|(client, _)| client.tier().cloned())))
    }

    fn check(&self, context: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>> {
        let (violations, shared) = match self.lacks_room(context) {
            None => (self.look(context, |account, stored| account.violations(amounts, stored, context.now)), false),
            Some(no_room) => (
                self.with_shared(context, no_room, |account, now, _| account.violations(amounts, &account.grants, now)),
                true,
            ),
        };
        MaybeFuture::Ready(AdmitError::unless_none(violations, shared))
    }

    fn page(
        &self,
        from: Option<&Bookmark>,
        most: usize,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<Page, StoreError>> {
        let from = match from {
            None => 0,
            Some(Bookmark::At(number)) => *number,
            Some(Bookmark::After(_)) => return MaybeFuture::Ready(Ok((Vec::new(), None))), // of another store
        };
        let (mut page, most, mut left) = (Vec::new(), most.min(super::CLIENTS_PER_STEP), super::ACCOUNTS_PER_STEP);
        let (mut number, mut slot) = ((from >> 32) as usize, (from & u64::from(u32::MAX)) as usize);
        while let Some(shard) = self.shards.get(number) {
            let mut shard = shard.0.lock();
            // A few accounts per lock, so that no decision waits long.
            let end = shard.len().min(slot + super::ACCOUNTS_PER_LOCK_OF_PAGE);
            while slot < end && page.len() < most {
                if let Some((client, account)) = shard.entry(slot) {
                    if !account.expire(now, &self.settings) {
                        break; // the same account again, under the lock's next turn
                    }
                    let usage = account.look(&plan_of(client), now, |account, _| account.usage(now.wall));
                    page.push((client.clone(), usage));
                }
                slot += 1;
            }
            if slot >= shard.len() {
                (number, slot) = (number + 1, 0);
            }
            left = left.saturating_sub(super::ACCOUNTS_PER_LOCK_OF_PAGE);
            if page.len() >= most || left == 0 {
                break;
            }
        }
        let next = (number < self.shards.len()).then_some(Bookmark::At((number as u64) << 32 | slot as u64));
        MaybeFuture::Ready(Ok((page, next)))
    }

    fn reset(&self, context: &AccountContext<'_>, limit: Option<&str>) -> MaybeFuture<Result<(), StoreError>> {
        let unknown =
            || Err(context.plan.check_name(limit).map_or_else(StoreError::Invalid, |()| StoreError::UnknownAccount));
        let reset = self.change(context, |account| account.reset(limit).map_err(StoreError::Invalid));
        MaybeFuture::Ready(reset.unwrap_or_else(unknown))
    }

    fn credit(
        &self,
        context: &AccountContext<'_>,
        request: &CreditRequest,
    ) -> MaybeFuture<Result<Credited, StoreError>> {
        let id = self.digester().digest("credit", [request.id.as_bytes()]);
        let credit = |account: &mut Account| account.credit(id, request, context.now, &self.settings);
        let credited = self.change(context, credit).ok_or(StoreError::UnknownAccount);
        MaybeFuture::Ready(credited.and_then(|credited| credited.map_err(StoreError::Invalid)))
    }

    fn grant(&self, context: &AccountContext<'_>, grant: Grant) -> MaybeFuture<Result<GrantId, StoreError>> {
        let id = GrantId(self.shared.granted.fetch_add(1, Ordering::Relaxed));
        let full = |no_room, ()| {
            Err(ConfigError::message(match no_room {
                NoRoom::InAll => format!(
                    "no room for the account of the grant, all {} are taken; raise .max_clients()",
                    self.room.most
                ),
                NoRoom::InCohort(_) => format!(
                    "no room for the account of the grant, its network has the {} that one may have; \
                     raise .max_clients_per_network()",
                    self.room.most_of_cohort
                ),
            }))
        };
        let granted = self.with(context, (), |account, now, _, ()| account.grant(id, &grant, now), full);
        MaybeFuture::Ready(granted.map(|()| id).map_err(StoreError::Invalid))
    }

    fn revoke(&self, context: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>> {
        let revoked = self.change(context, |account| account.grants.revoke(id, context.now.wall).is_some());
        MaybeFuture::Ready(Ok(revoked.unwrap_or(false)))
    }

    fn grants(&self, context: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>> {
        MaybeFuture::Ready(Ok(self.look(context, |account, _| account.grants.active(context.now.wall))))
    }

    fn forget_idle(&self, from: u64, now: Now) -> Option<u64> {
        let (number, visited) = ((from >> 32) as usize, (from & u64::from(u32::MAX)) as usize);
        let (mut left, mut seen) = (super::ACCOUNTS_PER_STEP, visited);
        while left > 0 {
            let mut shard = self.shards.get(number)?.0.lock();
            let some = shard.len().saturating_sub(seen).min(super::CHUNK);
            if some == 0 {
                return Some((number as u64 + 1) << 32);
            }
            for _ in 0..some {
                shard.sweep_one(now, &self.settings, None);
            }
            (seen, left) = (seen + some, left.saturating_sub(some));
        }
        Some((number as u64) << 32 | seen as u64)
    }

    fn population(&self) -> (usize, usize) {
        (self.room.live(), self.room.most)
    }

    fn listen(&self, listener: StoreListener) {
        let _ = self.listener.set(listener); // a store has one listener
    }
}

/// Returns the details of an admission. Those of a shared account show neither a client nor a remainder.
#[cold]
fn details_of(
    account: &Account,
    taken: &Taken,
    request: &AdmitRequest<'_>,
    now: Now,
    shared: bool,
) -> Box<AdmissionDetails> {
    let client = (!shared).then_some(request.account.client);
    let near = NearLimits::of(client, account.warnings(taken.marks.warned));
    let mut details = AdmissionDetails { reclaimed: taken.reclaimed, near, ..AdmissionDetails::default() };
    if !shared {
        details.pending = account.warnings(taken.marks.pending);
        details.usage = request.wants_usage.then(|| account.usage(now.wall));
    }
    Box::new(details)
}
