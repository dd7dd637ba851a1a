//! The counters of an account: admitted and charged together.

use std::{ops::Range, sync::Arc};

use super::{Account, Counter, Marks, state::slots_of};
use crate::{
    error::ConfigError,
    policy_name::PolicyName,
    quota::{Amounts, Limit, MOST, Plan},
};

/// Counters of limits that the active plan does not have, and starts of other plans.
///
/// A client may change from one plan to another and back, within a window and more than once. Usage of a limit that
/// only one of the plans has must not be lost meanwhile. Such a counter goes on until its window ends, and refuses no
/// request.
#[derive(Clone, Debug, Default)]
pub(super) struct Retired {
    /// Counters that are kept until their windows are over.
    counters: Vec<(Limit, Counter)>,
    /// The latest version of each plan under which the account has started fresh.
    started: Vec<(PolicyName, u64)>,
}

/// Epoch of a charge that applies to every counter.
pub(super) const PRESENT: u32 = u32::MAX;

impl Account {
    /// Rolls windows that have ended, applies a changed plan, expires grants.
    #[inline]
    pub(super) fn advance_counters(&mut self, plan: &Arc<Plan>, wall: u64) {
        if !self.stable_range.contains(&wall) {
            self.roll(wall);
        }
        if !Arc::ptr_eq(&self.plan, plan) {
            self.change_plan(plan, wall);
        }
        if !self.grants.is_empty() {
            self.grants.expire(wall);
            self.cover();
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

    /// Applies another plan: counters of limits with the same name and kind stay, unless it starts fresh.
    #[cold]
    fn change_plan(&mut self, plan: &Arc<Plan>, wall: u64) {
        if let (Some(leases), Some(limit)) = (&mut self.slots, plan.concurrent()) {
            leases.resize(slots_of(limit));
        }
        let old = std::mem::replace(&mut self.plan, Arc::clone(plan));
        self.epoch += 1;
        let mut retired = self.retired.take().unwrap_or_default();
        retired.counters.extend(old.counted().iter().cloned().zip(std::mem::take(&mut self.counters)));
        if retired.starts_fresh(plan) {
            retired.counters.drain(..).for_each(|(limit, _)| self.grants.close(&limit));
        }
        let resume = |limit: &Limit| retired.resume(limit, wall).unwrap_or_else(|| Counter::in_epoch(self.epoch));
        self.counters = plan.counted().iter().map(resume).collect();
        retired.counters.retain(|(_, counter)| counter.has_begun());
        self.retired = Some(retired).filter(|retired| !retired.counters.is_empty() || !retired.started.is_empty());
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

    /// Adds amounts, for `each` limit where that is known, to the counters that a charge of `epoch` is part of.
    #[inline(never)] // as above
    pub(super) fn add_to(
        &mut self,
        amounts: &Amounts,
        each: &[Option<u64>],
        wall: u64,
        epoch: u32,
        reserve: bool,
    ) -> Marks {
        let mut marks = Marks::default();
        for (index, (counter, limit)) in self.counters.iter_mut().zip(self.plan.counted()).enumerate() {
            let amount = amount_of(index, limit, amounts, each).filter(|_| counter.holds(epoch));
            let Some(amount) = amount else { continue };
            if !counter.has_begun() && counter.may_begin(limit, amount, wall) {
                self.stable_range = both(self.stable_range.clone(), counter.stable_range());
            }
            if amount > 0 {
                counter.take(amount.min(MOST), reserve);
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
        if self.retired.is_some() {
            for (counter, limit) in
                all_mut(&mut [], &self.plan, &mut self.retired).filter(|(counter, _)| counter.holds(epoch))
            {
                counter.take(amounts.counted(limit.kind()), reserve);
                self.grants.cover(limit, counter);
            }
        }
        marks
    }

    /// Releases what a charge of `epoch` reserved. `charged` counts all of it as used, in the window of the charge.
    pub(super) fn settle(&mut self, amounts: &Amounts, epoch: u32, charged: bool) {
        self.each(epoch, |counter, limit| {
            let amount = amounts.counted(limit.kind());
            counter.release(amount);
            if charged {
                counter.take(amount, false);
            }
        });
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
            self.each(PRESENT, |_, _| {});
        }
    }

    /// Changes the counters that a charge of `epoch` is part of.
    pub(super) fn each(&mut self, epoch: u32, mut change: impl FnMut(&mut Counter, &Limit)) {
        for (counter, limit) in all_mut(&mut self.counters, &self.plan, &mut self.retired) {
            if counter.holds(epoch) {
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

    /// Returns all counters, also those of other plans.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Counter, &Limit)> {
        let retired = self.retired.iter().flat_map(|retired| &retired.counters);
        self.counted().chain(retired.map(|(limit, counter)| (counter, limit)))
    }
}

impl Retired {
    /// Whether a plan starts fresh, and this version of it has not done so before.
    fn starts_fresh(&mut self, plan: &Plan) -> bool {
        if !plan.starts_fresh() {
            return false;
        }
        match self.started.iter_mut().find(|(name, _)| name == plan.name()) {
            Some((_, version)) if *version >= plan.version() => return false,
            Some((_, version)) => *version = plan.version(),
            None => self.started.push((plan.name().clone(), plan.version())),
        }
        true
    }

    /// Removes and returns the counter of a limit, so that it can continue.
    fn resume(&mut self, limit: &Limit, wall: u64) -> Option<Counter> {
        let at = self.counters.iter().position(|(known, _)| known.is_like(limit))?;
        let (known, mut counter) = self.counters.swap_remove(at);
        if let (true, Some(period)) = (counter.has_begun(), limit.quota.period())
            && known.quota.period() != Some(period)
        {
            counter.begin(period, wall); // with what was used in the one before
        }
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
