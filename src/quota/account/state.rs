//! One client's account: its counts, its slots, what it has set aside and which jobs it has paid for.

use std::{num::NonZeroU64, sync::Arc};

use super::{
    AccountSettings, ChargeRequest, Denial, Marks, Now, Taken,
    counts::{Counts, PRESENT},
    holds::Reservations,
    jobs::{Job, Jobs},
};
use crate::{
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Plan},
    sync::{Lease, Leases},
    time::Moment,
};

/// One client's account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(super) counts: Counts,
    /// Counts reservations: no id is ever given twice.
    issued: u64,
    /// Charges that are still to be settled.
    in_flight: u32,
    pub(super) slots: Option<Box<Leases>>,
    rare: Option<Box<Rare>>,
}

/// What few accounts have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    pub(super) reservations: Reservations,
    pub(super) jobs: Jobs,
}

impl Account {
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        Self { counts: Counts::new(plan), issued: 0, in_flight: 0, slots: None, rare: None }
    }

    /// Brings the account to the present: the plan in force, periods that are over, reservations and grants that ended.
    ///
    /// To be called before everything else.
    #[inline]
    pub(crate) fn advance(&mut self, plan: &Arc<Plan>, now: Now, settings: &AccountSettings) {
        if !Arc::ptr_eq(&self.counts.plan, plan) {
            self.change_slots(plan);
        }
        self.counts.advance(plan, now.wall);
        self.expire(now, settings);
    }

    /// Brings the account to the present under the plan that it has.
    pub(crate) fn advance_as_is(&mut self, now: Now, settings: &AccountSettings) {
        let plan = Arc::clone(&self.counts.plan);
        self.advance(&plan, now, settings);
    }

    /// Ends the reservations whose time has run out, and forgets what ended long ago.
    #[inline]
    pub(crate) fn expire(&mut self, now: Now, settings: &AccountSettings) {
        if self.rare.is_some() {
            self.expire_rare(now, settings);
        }
    }

    #[cold]
    fn expire_rare(&mut self, now: Now, settings: &AccountSettings) {
        let Some(rare) = &mut self.rare else { return };
        rare.reservations.expire(now.moment, settings.ttl, |hold| self.counts.settle(hold, settings.charge_expired));
        rare.jobs.forget(now.moment);
        if rare.reservations.is_empty() && rare.jobs.is_empty() {
            self.rare = None;
        }
    }

    /// The name of the plan that it has.
    pub(crate) fn plan_name(&self) -> &PolicyName {
        self.counts.plan.name()
    }

    /// Takes everything that is asked for, or nothing.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        ask: &ChargeRequest<'_>,
        now: Now,
        settings: &AccountSettings,
    ) -> Result<Taken, Denial> {
        if let Some(job) = ask.job {
            self.rare().jobs.ask(job, settings.max_jobs).map_err(Denial::Job)?;
        }
        if !self.counts.fits(ask.amounts, ask.each) {
            return Err(Denial::Limits(self.violations(ask.amounts, now)));
        }
        let mut taken = Taken { epoch: self.counts.epoch, ..Taken::default() };
        // The last that can be refused, so that no slot has to be given back.
        if !self.take_slot(ask.amounts, now, settings, &mut taken) {
            return Err(Denial::Limits(self.violations(ask.amounts, now)));
        }
        taken.marks = self.counts.add(ask.amounts, ask.each, now.wall, PRESENT, ask.reserve);
        self.in_flight = self.in_flight.saturating_add(u32::from(ask.open));
        if ask.reserve {
            let (id, epoch) = (NonZeroU64::MIN.saturating_add(self.issued), self.counts.epoch);
            self.issued += 1;
            taken.reservation = Some(id);
            let expires = if ask.lasting { Moment::MAX } else { now.moment + settings.ttl };
            self.rare().reservations.open(id, epoch, ask.amounts.clone(), expires);
        }
        if let Some(job) = ask.job {
            self.rare().jobs.start(job);
        }
        Ok(taken)
    }

    /// Whether everything that is asked for could be taken.
    pub(crate) fn check(&self, amounts: &Amounts, now: Now) -> Result<(), Denial> {
        match self.violations(amounts, now) {
            violations if violations.is_empty() => Ok(()),
            violations => Err(Denial::Limits(violations)),
        }
    }

    /// Notes what was used, whether there was room for it or not; gives the limits at which the client is to be warned, one
    /// bit each.
    ///
    /// What was used for a charge of `epoch` counts in the period of that charge only.
    pub(crate) fn record(&mut self, amounts: &Amounts, epoch: Option<u32>, now: Now) -> u64 {
        let Marks { warned, pending } = self.counts.add(amounts, &[], now.wall, epoch.unwrap_or(PRESENT), false);
        self.counts.tell_later(pending);
        warned
    }

    /// Gives back what was charged at `epoch`.
    pub(crate) fn give_back(&mut self, amounts: &Amounts, epoch: u32) {
        self.counts.give_back(amounts, epoch);
    }

    /// A charge has been settled.
    pub(crate) fn land(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A job was worked on: nobody may do it again.
    pub(crate) fn finish(&mut self, job: &Job, now: Now, settings: &AccountSettings) {
        self.rare().jobs.finish(job.id, now.moment, settings.job_horizon);
    }

    /// A job was not worked on: its id is free.
    pub(crate) fn free(&mut self, job: &Job) {
        self.rare().jobs.free(job.id);
    }

    /// Whether a newcomer would be the same: nothing is used, held, granted or remembered.
    pub(crate) fn is_blank(&self) -> bool {
        let nothing = |rare: &Rare| rare.reservations.is_empty() && rare.jobs.is_empty();
        self.in_flight == 0 && self.held() == 0 && self.rare.as_deref().is_none_or(nothing) && self.counts.is_blank()
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Takes the slot that is asked for, if one is; false where there is none.
    #[inline]
    fn take_slot(&mut self, amounts: &Amounts, now: Now, settings: &AccountSettings, taken: &mut Taken) -> bool {
        let Some(limit) = self.counts.plan.concurrent() else { return true };
        match amounts.get(&Kind::Concurrent) {
            None => true,
            Some(1) => {
                let slots = usize::try_from(limit.limit).unwrap_or(usize::MAX);
                let fresh = || Box::new(Leases::new(slots, settings.max_hold, settings.max_stall));
                match self.slots.get_or_insert_with(fresh).acquire(now.moment) {
                    Some(acquired) => {
                        (taken.lease, taken.reclaimed) = (Some(acquired.lease), acquired.reclaimed);
                        true
                    }
                    None => false,
                }
            }
            Some(asked) => self.has_slots(asked, now),
        }
    }
}

/// Slots of requests at a time.
impl Account {
    /// Gives a slot back; a late one changes nothing.
    pub(crate) fn release(&mut self, lease: Lease) {
        if let Some(slots) = &mut self.slots {
            slots.release(lease);
        }
    }

    /// The holder of a slot has nothing more to do than to send: from now on it has to make progress.
    pub(crate) fn watch(&mut self, lease: Lease, now: Now) {
        if let Some(slots) = &mut self.slots {
            slots.watch(lease, now.moment);
        }
    }

    /// The holder of a slot has made progress.
    pub(crate) fn touch(&mut self, lease: Lease, now: Now) {
        if let Some(slots) = &mut self.slots {
            slots.touch(lease, now.moment);
        }
    }

    /// Whether so many could be had: more than one at once never can.
    pub(super) fn has_slots(&self, asked: u64, now: Now) -> bool {
        asked <= 1 && self.slots.as_ref().is_none_or(|slots| slots.would_lend(now.moment))
    }

    /// How many slots are held.
    pub(super) fn held(&self) -> u64 {
        self.slots.as_ref().map_or(0, |slots| slots.held() as u64)
    }

    #[cold]
    fn change_slots(&mut self, plan: &Plan) {
        if let (Some(slots), Some(limit)) = (&mut self.slots, plan.concurrent()) {
            slots.resize(usize::try_from(limit.limit).unwrap_or(usize::MAX));
        }
    }
}
