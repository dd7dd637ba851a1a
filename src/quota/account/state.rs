//! One client's account: counters, slots, reservations and jobs.

use std::{num::NonZeroU64, ops::Range, sync::Arc, time::Duration};

use super::{
    AccountSettings, Changed, ChargeRequest, Counter, Cut, Denial, Duplicate, GrantState, Grants, Job, JobCharge,
    MAX_CLOCK_STEP, Marks, Now, Retired, Taken, credits::Credits, jobs::Jobs, reservations::Reservations,
};
use crate::{
    error::ConfigError,
    identity::Digest,
    kind::Kind,
    quota::{Amounts, CreditRequest, Credited, Grant, GrantId, JobOutcome, JobState, Limit, Plan},
    sync::{Lease, Leases},
    time::Moment,
};

/// One client's account.
///
/// [`advance`](Self::advance) comes before every other call.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) plan: Arc<Plan>,
    /// One counter for each counted limit, in the order of the plan.
    pub(super) counters: Box<[Counter]>,
    /// Counters of limits that the plan does not have.
    pub(super) retired: Option<Box<Retired>>,
    pub(crate) grants: Grants,
    /// Incremented each time a counter restarts. A charge applies only to counters whose first epoch is not later than its
    /// own.
    pub(super) epoch: u64,
    /// Wall-clock range in which no window ends and no clock is found to be wrong, so that nothing rolls.
    pub(super) stable_range: Range<u64>,
    /// Time of the last call under a plan, or of the last record.
    seen: Moment,
    /// Number of reservations so far, so that no id is used twice.
    issued: u64,
    /// Number of charges that are not settled yet.
    in_flight: u32,
    /// The slots; allocated when the first is taken.
    pub(crate) slots: Option<Box<Leases>>,
    pub(super) rare: Option<Box<Rare>>,
}

/// State that few accounts have.
#[derive(Clone, Debug, Default)]
pub(super) struct Rare {
    pub(super) reservations: Reservations,
    jobs: Jobs,
    credits: Credits,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.reservations.is_empty() && self.jobs.is_empty() && self.credits.is_empty()
    }
}

impl Account {
    /// Creates an account in which nothing is used.
    pub(crate) fn new(plan: &Arc<Plan>) -> Self {
        let mut account =
            Self::with_counters(plan, plan.counted().iter().map(|_| Counter::default()), Grants::default());
        let mut retired = Retired::default();
        if retired.starts_fresh(plan) {
            account.retired = Some(Box::new(retired)); // it has just begun, and does not again
        }
        account
    }

    /// Creates an account with a counter for each counted limit of the plan, in its order.
    pub(crate) fn with_counters(plan: &Arc<Plan>, counters: impl IntoIterator<Item = Counter>, grants: Grants) -> Self {
        Self {
            plan: Arc::clone(plan),
            counters: counters.into_iter().collect(),
            retired: None,
            grants,
            epoch: 0,
            stable_range: 0..u64::MAX,
            seen: Moment::default(),
            issued: 0,
            in_flight: 0,
            slots: None,
            rare: None,
        }
    }

    /// Brings the account up to `now`: applies the active plan, rolls windows, expires reservations and grants. Returns
    /// false if it must be called again, as [`expire`](Self::expire) does.
    #[inline]
    #[must_use]
    pub(crate) fn advance(&mut self, plan: &Arc<Plan>, now: Now, settings: &AccountSettings) -> bool {
        self.seen = now.moment;
        self.advance_counters(Some(plan), now.wall);
        self.expire(now, settings)
    }

    /// Runs `work` on the account as a plan sees it at `now`, and on the grants as they are stored. Nothing changes but
    /// what time alone changes.
    ///
    /// [`expire`](Self::expire) comes before it.
    pub(crate) fn look<T>(&mut self, plan: &Arc<Plan>, now: Now, work: impl FnOnce(&Self, &Grants) -> T) -> T {
        // Both may be large. No plan changes the one, and of the other only the number of slots.
        let (rare, slots) = (self.rare.take(), self.slots.take());
        let number = slots.as_ref().map_or(0, |slots| slots.limit());
        let mut copy = self.clone();
        copy.slots = slots;
        copy.advance_counters(Some(plan), now.wall);
        let result = work(&copy, &self.grants);
        (self.rare, self.slots) = (rare, copy.slots);
        if let Some(slots) = &mut self.slots {
            slots.resize(number);
        }
        result
    }

    /// Expires reservations, and forgets those that were closed and jobs that were finished long ago; a bounded number
    /// of each.
    ///
    /// Returns false if overdue reservations are left. The caller then releases the lock and calls again before it
    /// decides: so each decision is the one that it would be if each reservation had expired at its time, and no lock
    /// is held for more than a bounded number of them.
    #[inline]
    #[must_use]
    pub(crate) fn expire(&mut self, now: Now, settings: &AccountSettings) -> bool {
        self.rare.is_none() || self.expire_rare(now, settings)
    }

    #[cold]
    fn expire_rare(&mut self, now: Now, settings: &AccountSettings) -> bool {
        let Some(mut rare) = self.rare.take() else { return true };
        let done = rare.reservations.expire(now.moment, settings.ttl, |reserved| self.lapse(reserved, settings));
        rare.jobs.forget(now.moment);
        rare.credits.forget(now.moment);
        self.rare = Some(rare).filter(|rare| !rare.is_empty());
        done
    }

    /// Admits all requested amounts, or none.
    #[inline]
    pub(crate) fn admit(
        &mut self,
        request: &ChargeRequest<'_>,
        now: Now,
        settings: &AccountSettings,
    ) -> Result<Taken, Denial> {
        if let Some(job) = request.job
            && let Err(duplicate) = self.rare().jobs.check(job, settings.max_jobs, now.moment)
        {
            return Err(self.denial_of_job(duplicate, request, now, settings));
        }
        if let Some(place) = self.place_of_reservation(request, now, settings) {
            return Err(self.denial_until(place, request.amounts, now, Denial::Reservations));
        }
        if !self.fits(request.amounts, request.each) {
            return Err(Denial::Limits(self.violations(request.amounts, &self.grants, now)));
        }
        let mut taken = Taken { epoch: self.epoch, ..Taken::default() };
        // The last step that can refuse, so that no slot must be returned.
        if !self.take_slot(request.amounts, now, settings, &mut taken) {
            return Err(Denial::Limits(self.violations(request.amounts, &self.grants, now)));
        }
        taken.marks = self.add_to(request.amounts, request.each, now.wall, fitting(request.reserve));
        self.in_flight = self.in_flight.saturating_add(u32::from(request.open));
        if request.reserve {
            let id = NonZeroU64::MIN.saturating_add(self.issued);
            self.issued += 1;
            taken.reservation = Some(id);
            let expires = (!request.lasting).then(|| now.moment + settings.ttl);
            let mut estimate = request.amounts.clone();
            estimate.retain(|kind| self.plan.counted().iter().any(|limit| limit.kind() == kind));
            let scope = self.scope();
            self.rare().reservations.open(id, scope, estimate, expires);
        }
        if let Some(job) = request.job {
            self.rare().jobs.start(job);
        }
        Ok(taken)
    }

    /// Returns the time after which there is a place for the reservation that a request asks for; `None` if there is one.
    #[inline]
    pub(super) fn place_of_reservation(
        &self,
        request: &ChargeRequest<'_>,
        now: Now,
        settings: &AccountSettings,
    ) -> Option<Duration> {
        let reservations = &self.rare.as_ref().filter(|_| request.reserve && !request.lasting)?.reservations;
        let next = reservations.next_expiry().filter(|_| reservations.expiring() >= settings.max_reservations)?;
        Some(next.since(now.moment))
    }

    /// Acquires a slot if one is requested; returns false if none is free.
    #[inline]
    fn take_slot(&mut self, amounts: &Amounts, now: Now, settings: &AccountSettings, taken: &mut Taken) -> bool {
        let Some(limit) = self.plan.concurrent() else { return true };
        match amounts.get(&Kind::Concurrent) {
            None => true,
            Some(1) => {
                let fresh = || Box::new(Leases::new(slots_of(limit), settings.max_hold, settings.max_stall));
                let acquired = self.slots.get_or_insert_with(fresh).acquire(now.moment);
                taken.reclaimed = acquired.is_some_and(|acquired| acquired.reclaimed);
                taken.lease = acquired.map(|acquired| acquired.lease);
                acquired.is_some()
            }
            Some(asked) => self.has_slots(asked, now.moment),
        }
    }

    /// Whether `asked` slots are available. More than one at once never are.
    pub(super) fn has_slots(&self, asked: u64, now: Moment) -> bool {
        asked <= 1 && self.slots.as_ref().is_none_or(|leases| leases.would_lend(now))
    }

    /// Returns the number of slots that are held.
    pub(super) fn slots_held(&self) -> u64 {
        self.slots.as_ref().map_or(0, |leases| leases.held() as u64)
    }

    /// Adds amounts that [fit](Self::violations) to the counters that are open.
    #[allow(dead_code, reason = "only a ledger decides beside its counters")]
    pub(crate) fn add(&mut self, amounts: &Amounts, reserve: bool, now: Now) -> Marks {
        self.add_to(amounts, &[], now.wall, fitting(reserve))
    }

    /// Records used amounts in the counters that are open, even beyond a limit.
    pub(crate) fn record(&mut self, amounts: &Amounts, now: Now) -> Changed {
        self.advance_counters(None, now.wall);
        self.seen = self.seen.max(now.moment); // it may count in a window that no call under a plan has seen
        let mut cut = Cut::default();
        let take = |counter: &mut Counter, limit: &Limit, amount| cut.note(limit.kind(), counter.take(amount, false));
        let Marks { warned, pending } = self.add_to(amounts, &[], now.wall, take);
        // A later response reports them.
        for (index, counter) in self.counters.iter_mut().enumerate() {
            counter.warning_pending |= pending & 1 << index != 0;
        }
        Changed { warned, cut }
    }

    /// Checks that used amounts can be recorded: no counter exceeds 2^53 - 1.
    pub(crate) fn check_record(&self, amounts: &Amounts) -> Result<(), ConfigError> {
        self.counted().try_for_each(|(counter, limit)| match amounts.get(limit.kind()) {
            None | Some(0) => Ok(()),
            Some(amount) => limit.check_sum(counter.taken(), amount),
        })
    }

    /// Ends an open charge and releases its slot.
    pub(crate) fn land(&mut self, open: bool, lease: Option<Lease>) {
        self.in_flight = self.in_flight.saturating_sub(u32::from(open));
        if let (Some(lease), Some(leases)) = (lease, &mut self.slots) {
            leases.release(lease);
        }
    }

    /// Ends a job that was worked on: its id is taken until the horizon. `interrupted` has the charge of a job whose
    /// outcome is unknown.
    pub(crate) fn end_job(&mut self, job: &Job, interrupted: Option<JobCharge>, now: Now, settings: &AccountSettings) {
        self.rare().jobs.end(job.id, interrupted, now.moment, settings.job_horizon);
    }

    /// Settles a job whose outcome is unknown, and returns the state that it had; `None` if no job has the id.
    pub(crate) fn settle_job(&mut self, job: &Job, outcome: JobOutcome, now: Now) -> Option<JobState> {
        let (state, freed) = self.rare.as_mut()?.jobs.settle(job.id, outcome, now.moment);
        if let Some(JobCharge(parts)) = freed {
            parts.iter().for_each(|(amounts, scope)| self.give_back(amounts, scope));
        }
        state
    }

    /// Returns the reason why a job that was begun here may not begin again.
    pub(crate) fn begun_job(&self, job: &Job, now: Now) -> Option<Duplicate> {
        self.rare.as_ref()?.jobs.check(job, usize::MAX, now.moment).err()
    }

    pub(crate) fn has_jobs(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.jobs.is_empty())
    }

    /// Frees the id of a job that was not worked on.
    pub(crate) fn free(&mut self, job: &Job) {
        self.rare().jobs.free(job.id);
    }

    /// Gives back an amount that was used, once for each id.
    pub(crate) fn credit(
        &mut self,
        id: Digest,
        request: &CreditRequest,
        now: Now,
        settings: &AccountSettings,
    ) -> Result<Credited, ConfigError> {
        let credits = &self.rare().credits;
        if let Some(stands) = credits.get(id, now.moment) {
            return Ok(stands);
        }
        credits.check(settings, now.moment)?;
        let amount = self.take_back(&request.kind, request.amount);
        self.rare().credits.add(id, &request.kind, amount, now.moment + settings.job_horizon);
        Ok(Credited { kind: request.kind.clone(), amount, already: false })
    }

    /// Raises a limit.
    pub(crate) fn grant(&mut self, id: GrantId, grant: &Grant, now: Now) -> Result<(), ConfigError> {
        let limit = self.plan.grantable(grant.limit(), grant.until(), now.wall)?;
        self.grants.add(GrantState::new(id, grant, limit.kind().into(), Arc::clone(&limit.period_key)));
        self.cover();
        Ok(())
    }

    /// Whether the account equals a new one: nothing is used, reserved, in flight, granted or remembered.
    pub(crate) fn is_blank(&mut self, wall: u64) -> bool {
        if self.all().any(|(counter, _)| counter.is_ahead(wall)) {
            self.advance_counters(None, wall); // else its windows would not be over for years
        }
        self.in_flight == 0
            && self.slots_held() == 0
            && self.rare.as_deref().is_none_or(Rare::is_empty)
            && self.all().all(|(counter, _)| counter.is_blank(wall))
            && !self.grants.any_active(wall)
    }

    /// Whether the windows in which something is counted have passed by the monotonic clock too since the last call. A
    /// wall clock that is set back may not open them again before.
    pub(crate) fn is_stale(&self, now: Moment) -> bool {
        let longest = self.all().map(|(counter, _)| counter.counted_for()).max().unwrap_or(0);
        now.since(self.seen) >= Duration::from_nanos(longest.min(MAX_CLOCK_STEP))
    }

    pub(super) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

/// Returns the function that adds amounts that fit to counters.
fn fitting(reserve: bool) -> impl Fn(&mut Counter, &Limit, u64) {
    move |counter, _, amount| counter.take_fitting(amount, reserve)
}

/// Returns the number of slots that a concurrency limit allows.
pub(super) fn slots_of(limit: &Limit) -> usize {
    usize::try_from(limit.limit).unwrap_or(usize::MAX)
}
