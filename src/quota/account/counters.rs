//! The counters of an account: admitted and charged together.

use std::{
    ops::Range,
    sync::{Arc, Weak},
};

use super::{Account, ChargeScope, Counter, Cut, Marks, state::slots_of};
use crate::{
    error::ConfigError,
    kind::Kind,
    policy_name::PolicyName,
    quota::{Amounts, Limit, Plan},
};

/// Counters of limits that the active plan does not have, and starts of other plans.
///
/// A client may change from one plan to another and back, within a window and more than once. Usage of a limit that
/// only one of the plans has must not be lost meanwhile. Such a counter stays until its window ends, takes no new
/// charge and refuses no request.
#[derive(Clone, Debug, Default)]
pub(super) struct Retired {
    /// Counters that are kept until their windows are over.
    counters: Vec<(Limit, Counter)>,
    /// Plans under which the account has started fresh.
    started: Vec<FreshStart>,
}

/// Plan under which an account has started fresh, at its latest version that did.
#[derive(Clone, Debug)]
struct FreshStart {
    name: PolicyName,
    version: u64,
    /// The plan, as long as it is in force or in use.
    plan: Weak<Plan>,
    /// Epoch of the account when it left the plan last.
    left: u64,
}

impl Account {
    /// Rolls windows that have ended, expires grants, applies a plan if one is given.
    #[inline]
    pub(super) fn advance_counters(&mut self, plan: Option<&Arc<Plan>>, wall: u64) {
        if !self.stable_range.contains(&wall) {
            self.roll(wall);
        }
        // Before the plan changes: a grant that has ended covers nothing more.
        if !self.grants.is_empty() {
            self.grants.expire(wall);
            self.cover();
        }
        if let Some(plan) = plan.filter(|plan| !Arc::ptr_eq(&self.plan, plan)) {
            self.change_plan(plan);
        }
    }

    #[cold]
    fn roll(&mut self, wall: u64) {
        for (counter, limit) in all_mut(&mut self.counters, &self.plan, &mut self.retired) {
            if let (true, Some(period)) = (counter.is_over(wall), limit.quota.period()) {
                self.epoch += 1;
                if counter.roll(period, wall, self.epoch) {
                    self.grants.close(limit);
                }
            }
        }
        if let Some(retired) = &mut self.retired {
            retired.counters.retain(|(_, counter)| counter.has_begun());
        }
        self.find_stable_range();
    }

    fn find_stable_range(&mut self) {
        self.stable_range = self.all().map(|(counter, _)| counter.stable_range()).fold(0..u64::MAX, both);
    }

    /// Applies another plan: counters of limits with the same name, kind and period stay, unless it starts fresh.
    #[cold]
    fn change_plan(&mut self, plan: &Arc<Plan>) {
        if let (Some(leases), Some(limit)) = (&mut self.slots, plan.concurrent()) {
            leases.resize(slots_of(limit));
        }
        let old = std::mem::replace(&mut self.plan, Arc::clone(plan));
        let mut retired = self.retired.take().unwrap_or_default();
        retired.leave(&old, self.epoch);
        retired.counters.extend(old.counted().iter().cloned().zip(std::mem::take(&mut self.counters)));
        if retired.starts_fresh(plan) {
            self.epoch += 1;
            retired.counters.drain(..).for_each(|(limit, _)| self.grants.close(&limit));
        }
        let resume = |limit: &Limit| retired.resume(limit).unwrap_or_else(|| Counter::in_epoch(self.epoch));
        self.counters = plan.counted().iter().map(resume).collect();
        retired.counters.retain(|(_, counter)| counter.has_begun());
        drop(old); // it may be in force nowhere
        retired.forget(&self.counters);
        self.retired = Some(retired).filter(|retired| retired.must_stay());
        self.find_stable_range();
        self.cover();
    }

    /// Whether all limits have room for these amounts, given by kind or, if known, for `each` limit.
    #[inline(never)] // so that its loop has the registers for itself
    pub(super) fn fits(&self, amounts: &Amounts, each: &[Option<u64>]) -> bool {
        self.counted().enumerate().all(|(index, (counter, limit))| match amount_of(index, limit, amounts, each) {
            None => true,
            Some(amount) => fits(amount, self.limit(limit), counter.taken()),
        })
    }

    /// Adds amounts, for `each` limit where that is known, to the counters of the plan by `take`.
    #[inline(never)] // as above
    pub(super) fn add_to(
        &mut self,
        amounts: &Amounts,
        each: &[Option<u64>],
        wall: u64,
        mut take: impl FnMut(&mut Counter, &Limit, u64),
    ) -> Marks {
        let mut marks = Marks::default();
        for (index, (counter, limit)) in self.counters.iter_mut().zip(self.plan.counted()).enumerate() {
            let Some(amount) = amount_of(index, limit, amounts, each) else { continue };
            if !counter.has_begun() && counter.may_begin(limit, amount, wall) {
                self.stable_range = both(self.stable_range.clone(), counter.stable_range());
            }
            if amount > 0 {
                take(counter, limit, amount);
                self.grants.cover(limit, counter);
                if counter.warns(limit) {
                    marks.warned |= 1 << index;
                }
            }
            if counter.warning_pending {
                counter.warning_pending = false;
                marks.pending |= 1 << index;
            }
        }
        marks
    }

    /// Releases what a charge reserved, and counts the used part of it. No warning follows: the reservation gave it.
    pub(super) fn settle(&mut self, reserved: &Amounts, used: &Amounts, of: &ChargeScope) -> Cut {
        let mut cut = Cut::default();
        self.each(Some(of), |counter, limit| {
            counter.release(reserved.counted(limit.kind()));
            cut.note(limit.kind(), counter.take(used.get(limit.kind()).unwrap_or(0), false));
        });
        cut
    }

    /// Returns the counters that are open, for amounts that were just counted.
    pub(crate) fn scope(&self) -> ChargeScope {
        ChargeScope { epoch: self.epoch, plan: Arc::clone(&self.plan) }
    }

    /// Returns amounts that a charge used.
    pub(crate) fn give_back(&mut self, amounts: &Amounts, of: &ChargeScope) {
        self.each(Some(of), |counter, limit| {
            counter.give_back(amounts.counted(limit.kind()));
        });
    }

    /// Returns at most `amount` of the used amount of each counter of a kind, also of those that the active plan does not
    /// have; returns the most that one of them gave back.
    pub(super) fn take_back(&mut self, kind: &Kind, amount: u64) -> u64 {
        let mut most = 0;
        self.each(None, |counter, limit| {
            if limit.kind() == kind {
                most = counter.give_back(amount).max(most);
            }
        });
        most
    }

    /// Resets the counters of this limit name or kind, or all, to zero.
    pub(crate) fn reset(&mut self, name: Option<&str>) -> Result<(), ConfigError> {
        self.plan.check_name(name)?;
        let is_meant = |limit: &Limit| name.is_none_or(|name| limit.is_called(name));
        self.epoch += 1;
        for (counter, limit) in all_mut(&mut self.counters, &self.plan, &mut self.retired) {
            if is_meant(limit) {
                counter.reset(self.epoch);
                self.grants.close(limit);
            }
        }
        if let Some(retired) = &mut self.retired {
            retired.counters.retain(|(limit, _)| !is_meant(limit));
        }
        Ok(())
    }

    /// Returns the size of a limit, grants included.
    #[inline]
    pub(super) fn limit(&self, limit: &Limit) -> u64 {
        limit.limit.saturating_add(self.grants.raise(limit))
    }

    /// Covers usage above the limits with grants.
    pub(super) fn cover(&mut self) {
        if !self.grants.is_empty() {
            self.each(None, |_, _| {});
        }
    }

    /// Whether two charges are part of the same of the counters that are left.
    pub(crate) fn has_one_part_of(&self, one: &ChargeScope, other: &ChargeScope) -> bool {
        let is_in =
            |scope: &ChargeScope, counter: &Counter, limit| counter.holds(scope.epoch) && scope.plan.counts(limit);
        self.all().all(|(counter, limit)| is_in(one, counter, limit) == is_in(other, counter, limit))
    }

    /// Changes the counters that a charge is part of, or all.
    fn each(&mut self, of: Option<&ChargeScope>, mut change: impl FnMut(&mut Counter, &Limit)) {
        for (counter, limit) in all_mut(&mut self.counters, &self.plan, &mut self.retired) {
            if of.is_none_or(|of| counter.holds(of.epoch) && of.plan.counts(limit)) {
                change(counter, limit);
                self.grants.cover(limit, counter);
            }
        }
    }

    /// Returns the counters of the plan's limits.
    #[inline]
    pub(crate) fn counted(&self) -> impl Iterator<Item = (&Counter, &Limit)> {
        self.counters.iter().zip(self.plan.counted())
    }

    /// Returns the numbers of counters and of fresh starts that are kept beside those of the active plan.
    #[cfg(test)]
    pub(super) fn traces(&self) -> (usize, usize) {
        self.retired.as_ref().map_or((0, 0), |retired| (retired.counters.len(), retired.started.len()))
    }

    /// Returns all counters, also those of other plans.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Counter, &Limit)> {
        let retired = self.retired.iter().flat_map(|retired| &retired.counters);
        self.counted().chain(retired.map(|(limit, counter)| (counter, limit)))
    }
}

impl Retired {
    /// Whether a later change of plans, or the end of a charge, needs any of it.
    fn must_stay(&self) -> bool {
        !self.counters.is_empty() || !self.started.is_empty()
    }

    /// Records that the account leaves a plan in this epoch.
    fn leave(&mut self, plan: &Plan, epoch: u64) {
        if let Some(start) = self.started.iter_mut().find(|start| start.name == *plan.name()) {
            start.left = epoch;
        }
    }

    /// Forgets starts under plans that are neither in force nor in use, once all that was counted before the account left
    /// them is over. `counters` are those of the active plan. Otherwise each replaced plan would leave its start for ever.
    fn forget(&mut self, counters: &[Counter]) {
        let retired = &self.counters;
        let counted = |start: &FreshStart| {
            let mut all = counters.iter().chain(retired.iter().map(|(_, counter)| counter));
            all.any(|counter| counter.has_begun() && counter.holds(start.left))
        };
        self.started.retain(|start| start.plan.strong_count() > 0 || counted(start));
    }

    /// Whether a plan starts fresh, and this version of it has not done so before.
    pub(super) fn starts_fresh(&mut self, plan: &Arc<Plan>) -> bool {
        if !plan.starts_fresh() {
            return false;
        }
        let (name, version, left) = (plan.name(), plan.version(), 0);
        let known = self.started.iter_mut().find(|start| start.name == *name);
        let is_new = known.as_ref().is_none_or(|start| start.version < version);
        match known {
            Some(start) => (start.version, start.plan) = (version.max(start.version), Arc::downgrade(plan)),
            None => self.started.push(FreshStart { name: name.clone(), version, plan: Arc::downgrade(plan), left }),
        }
        is_new
    }

    /// Removes and returns the counter of a limit, so that it can continue.
    fn resume(&mut self, limit: &Limit) -> Option<Counter> {
        let at = self.counters.iter().position(|(known, _)| known.is_like(limit))?;
        let (_, mut counter) = self.counters.swap_remove(at);
        counter.rearm(limit);
        Some(counter)
    }
}

/// Returns all counters to change, also those of other plans.
fn all_mut<'a>(
    counters: &'a mut [Counter],
    plan: &'a Plan,
    retired: &'a mut Option<Box<Retired>>,
) -> impl Iterator<Item = (&'a mut Counter, &'a Limit)> {
    let retired = retired.iter_mut().flat_map(|retired| &mut retired.counters);
    counters.iter_mut().zip(plan.counted()).chain(retired.map(|(limit, counter)| (counter, &*limit)))
}

/// Returns the requested amount of the kind that a limit counts.
#[inline]
fn amount_of(index: usize, limit: &Limit, amounts: &Amounts, each: &[Option<u64>]) -> Option<u64> {
    match each.get(index) {
        Some(amount) => *amount,
        None => look_up(limit, amounts),
    }
}

#[inline(never)] // so that it leaves the registers alone where nothing is looked up
fn look_up(limit: &Limit, amounts: &Amounts) -> Option<u64> {
    amounts.get(limit.kind())
}

/// Whether an amount fits beside `taken`. An amount of 0 fits while anything remains.
#[inline]
pub(super) fn fits(amount: u64, limit: u64, taken: u64) -> bool {
    amount.max(1) <= limit.saturating_sub(taken)
}

/// Returns the intersection of two ranges.
fn both(one: Range<u64>, other: Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}
