//! One client's account: counters, slots, reservations and jobs.

use std::{num::NonZeroU64, sync::Arc};

use super::{
    AccountSettings, ChargeRequest, CloseResult, Counter, Denial, GrantState, Grants, Job, Marks, Now, Slots, Stage,
    Taken,
    counters::{Counters, PRESENT},
    jobs::Jobs,
    reservations::Reservations,
};
use crate::{
    error::ConfigError,
    kind::Kind,
    policy_name::PolicyName,
    quota::{ActiveGrant, Amounts, Grant, GrantId, Plan},
    sync::Lease,
    time::Moment,
};

/// One client's account.
///
/// [`advance`](Self::advance) comes before every other call.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(super) counters: Counters,
    /// Number of reservations so far, so that no id is used twice.
    issued: u64,
    /// Number of charges that are not settled yet.
    in_flight: u32,
    pub(crate) slots: Slots,
    rare: Option<Box<Rare>>,
}

/// State that few accounts have.
#[derive(Clone, Debug, Default)]
struct Rare {
    reservations: Reservations,
    jobs: Jobs,
}

impl Account {
    /// Creates an account in which nothing is used.
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        Self::with_counters(plan, plan.counted().iter().map(|_| Counter::default()), Grants::default())
    }

    /// Creates an account with a counter for each counted limit of the plan, in its order.
    pub(crate) fn with_counters(plan: &Arc<Plan>, counters: impl IntoIterator<Item = Counter>, grants: Grants) -> Self {
        let counters = Counters::new(plan, counters.into_iter().collect(), grants);
        Self { counters, issued: 0, in_flight: 0, slots: Slots::default(), rare: None }
    }

    /// Brings the account up to `now`: applies the active plan, rolls windows, expires reservations and grants.
    #[inline]
    pub(crate) fn advance(&mut self, plan: &Arc<Plan>, now: Now, settings: &AccountSettings) {
        if !Arc::ptr_eq(&self.counters.plan, plan) {
            self.slots.resize(plan.concurrent());
        }
        self.counters.advance(plan, now.wall);
        self.expire(now, settings);
    }

    /// Brings the account up to `now` under its present plan.
    pub(crate) fn advance_as_is(&mut self, now: Now, settings: &AccountSettings) {
        let plan = Arc::clone(&self.counters.plan);
        self.advance(&plan, now, settings);
    }

    /// Expires reservations, and forgets those that were closed and jobs that were finished long ago.
    #[inline]
    pub(crate) fn expire(&mut self, now: Now, settings: &AccountSettings) {
        if self.rare.is_some() {
            self.expire_rare(now, settings);
        }
    }

    #[cold]
    fn expire_rare(&mut self, now: Now, settings: &AccountSettings) {
        let Some(rare) = &mut self.rare else { return };
        rare.reservations.expire(now.moment, settings.ttl, |reserved| {
            self.counters.settle(&reserved.amounts, reserved.epoch, settings.charge_expired);
        });
        rare.jobs.forget(now.moment);
        if rare.reservations.is_empty() && rare.jobs.is_empty() {
            self.rare = None;
        }
    }

    /// Returns the name of its plan.
    pub(crate) fn plan_name(&self) -> &PolicyName {
        self.counters.plan.name()
    }

    /// Admits all requested amounts, or none.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        request: &ChargeRequest<'_>,
        now: Now,
        settings: &AccountSettings,
    ) -> Result<Taken, Denial> {
        if let Some(job) = request.job {
            self.rare().jobs.check(job, settings.max_jobs).map_err(Denial::Job)?;
        }
        if !self.counters.fits(request.amounts, request.each) {
            return Err(Denial::Limits(self.violations(request.amounts, now)));
        }
        let mut taken = Taken { epoch: self.counters.epoch, ..Taken::default() };
        // The last step that can refuse, so that no slot must be returned.
        if !self.take_slot(request.amounts, now, settings, &mut taken) {
            return Err(Denial::Limits(self.violations(request.amounts, now)));
        }
        taken.marks = self.counters.add(request.amounts, request.each, now.wall, PRESENT, request.reserve);
        self.in_flight = self.in_flight.saturating_add(u32::from(request.open));
        if request.reserve {
            let (id, epoch) = (NonZeroU64::MIN.saturating_add(self.issued), self.counters.epoch);
            self.issued += 1;
            taken.reservation = Some(id);
            let expires = if request.lasting { Moment::MAX } else { now.moment + settings.ttl };
            self.rare().reservations.open(id, epoch, request.amounts.clone(), expires);
        }
        if let Some(job) = request.job {
            self.rare().jobs.start(job);
        }
        Ok(taken)
    }

    /// Acquires a slot if one is requested; returns false if none is free.
    #[inline]
    fn take_slot(&mut self, amounts: &Amounts, now: Now, settings: &AccountSettings, taken: &mut Taken) -> bool {
        let Some(limit) = self.counters.plan.concurrent() else { return true };
        match amounts.get(&Kind::Concurrent) {
            None => true,
            Some(1) => match self.slots.acquire(limit, now.moment, settings) {
                Some(acquired) => {
                    (taken.lease, taken.reclaimed) = (Some(acquired.lease), acquired.reclaimed);
                    true
                }
                None => false,
            },
            Some(asked) => self.slots.has(asked, now.moment),
        }
    }

    /// Adds amounts, even beyond a limit: to all counters, or to those that a charge of `epoch` is part of.
    pub(crate) fn add(&mut self, amounts: &Amounts, epoch: Option<u32>, reserve: bool, now: Now) -> Marks {
        self.counters.add(amounts, &[], now.wall, epoch.unwrap_or(PRESENT), reserve)
    }

    /// Records used amounts, even beyond a limit; returns the limits with a new warning, one bit each.
    ///
    /// Usage of a charge of `epoch` counts in the windows of that charge only.
    pub(crate) fn record(&mut self, amounts: &Amounts, epoch: Option<u32>, now: Now) -> u64 {
        let Marks { warned, pending } = self.add(amounts, epoch, false, now);
        self.counters.defer_warnings(pending);
        warned
    }

    /// Returns amounts that a charge of `epoch` used.
    pub(crate) fn give_back(&mut self, amounts: &Amounts, epoch: u32) {
        self.counters.each(epoch, |counter, limit| {
            counter.give_back(amounts.counted(limit.kind()));
        });
    }

    /// Ends an open charge and releases its slot.
    pub(crate) fn land(&mut self, open: bool, lease: Option<Lease>) {
        self.in_flight = self.in_flight.saturating_sub(u32::from(open));
        if let Some(lease) = lease {
            self.slots.release(lease);
        }
    }

    /// Closes a reservation, once: commits the `actual` amounts (for a kind that they do not name, the reserved
    /// amount), or rolls back. Returns the limits with a new warning, one bit each. With `forget` the id is unknown
    /// afterwards.
    pub(crate) fn close(
        &mut self,
        reservation: NonZeroU64,
        actual: Option<&Amounts>,
        forget: bool,
        now: Now,
        settings: &AccountSettings,
    ) -> (CloseResult, u64) {
        let stage = if actual.is_some() { Stage::Committed } else { Stage::RolledBack };
        let (result, closed) = self.rare().reservations.close(reservation, stage, forget);
        let Some(reserved) = closed else { return (result, 0) };
        match result {
            CloseResult::Expired if settings.charge_expired => self.give_back(&reserved.amounts, reserved.epoch),
            CloseResult::Expired => {}
            _ => self.counters.settle(&reserved.amounts, reserved.epoch, false),
        }
        let record = |actual| self.record(&reserved.amounts.overridden_by(actual), Some(reserved.epoch), now);
        (result, actual.map_or(0, record))
    }

    /// Extends a reservation.
    pub(crate) fn renew(&mut self, reservation: NonZeroU64, now: Now, settings: &AccountSettings) {
        self.rare().reservations.renew(reservation, now.moment, settings.ttl);
    }

    /// Finishes a job that was worked on: its id is taken until the horizon.
    pub(crate) fn finish(&mut self, job: &Job, now: Now, settings: &AccountSettings) {
        self.rare().jobs.finish(job.id, now.moment, settings.job_horizon);
    }

    /// Frees the id of a job that was not worked on.
    pub(crate) fn free(&mut self, job: &Job) {
        self.rare().jobs.free(job.id);
    }

    /// Resets the counters of this limit name or kind, or all, to zero.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), ConfigError> {
        self.counters.reset(name)
    }

    /// Raises a limit.
    pub(crate) fn grant(&mut self, id: GrantId, grant: &Grant, now: Now) -> Result<(), ConfigError> {
        let counters = &mut self.counters;
        let limit = counters.plan.grantable(grant.limit(), grant.until(), now.wall)?;
        counters.grants.add(GrantState::new(id, grant, limit.kind().into()));
        counters.cover();
        Ok(())
    }

    /// Ends a grant early; returns whether there was one.
    pub(crate) fn revoke(&mut self, id: GrantId, now: Now) -> bool {
        self.counters.grants.revoke(id, now.wall).is_some()
    }

    /// Returns the grants that have not ended.
    pub(crate) fn active_grants(&self, now: Now) -> Vec<ActiveGrant> {
        self.counters.grants.active(now.wall)
    }

    /// Whether the account equals a new one: nothing is used, reserved, in flight, granted or remembered.
    pub(crate) fn is_blank(&self) -> bool {
        let is_empty = |rare: &Rare| rare.reservations.is_empty() && rare.jobs.is_empty();
        self.in_flight == 0
            && self.slots.held() == 0
            && self.rare.as_deref().is_none_or(is_empty)
            && self.counters.is_blank()
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}
