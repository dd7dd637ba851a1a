//! Counters of one account under one plan: admitted and charged together.

use std::{ops::Range, sync::Arc};

use super::{Counter, Grants, Marks, retired::Retired};
use crate::{
    error::ConfigError,
    quota::{Amounts, Limit, MOST, Plan},
};

/// The counters of one client for the limits of its plan.
#[derive(Clone, Debug)]
pub(crate) struct Counters {
    pub(super) plan: Arc<Plan>,
    /// One counter for each counted limit, in the order of the plan.
    pub(super) counters: Box<[Counter]>,
    /// Counters of limits that the plan does not have.
    pub(super) retired: Option<Box<Retired>>,
    pub(super) grants: Grants,
    /// Incremented each time a counter restarts. A charge applies only to counters whose first epoch is not later than its
    /// own.
    pub(super) epoch: u32,
    /// Wall-clock range in which no window ends and no clock is found to be wrong, so that nothing rolls.
    stable_range: Range<u64>,
}

/// Epoch of a charge that applies to every counter.
pub(super) const PRESENT: u32 = u32::MAX;

const ALWAYS: Range<u64> = 0..u64::MAX;

impl Counters {
    pub(super) fn new(plan: &Arc<Plan>, counters: Box<[Counter]>, grants: Grants) -> Self {
        Self { plan: Arc::clone(plan), counters, retired: None, grants, epoch: 0, stable_range: ALWAYS }
    }

    /// Brings the counters up to `wall`: rolls windows that have ended, applies a changed plan, expires grants.
    #[inline]
    pub(super) fn advance(&mut self, plan: &Arc<Plan>, wall: u64) {
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
        for (counter, limit) in self.counters.iter_mut().zip(self.plan.counted()) {
            if let (true, Some(period)) = (counter.is_over(wall), limit.quota.period()) {
                self.epoch += 1;
                if counter.roll(period, wall, self.epoch) {
                    self.grants.close(limit);
                }
            }
        }
        if let Some(retired) = &mut self.retired {
            retired.roll(wall, &mut self.grants);
        }
        self.find_stable_range();
    }

    fn find_stable_range(&mut self) {
        let present = self.counters.iter().map(Counter::stable_range).fold(ALWAYS, both);
        self.stable_range = match &self.retired {
            Some(retired) => both(present, retired.stable_range()),
            None => present,
        };
    }

    /// Applies another plan: counters of limits with the same name and kind stay, unless it starts fresh.
    #[cold]
    fn change_plan(&mut self, plan: &Arc<Plan>, wall: u64) {
        let old = std::mem::replace(&mut self.plan, Arc::clone(plan));
        self.epoch += 1;
        let mut retired = self.retired.take().unwrap_or_default();
        retired.add(&old, std::mem::take(&mut self.counters));
        retired.start_fresh(plan, &mut self.grants);
        let epoch = self.epoch;
        let resume = |limit: &Limit| retired.resume(limit, wall).unwrap_or_else(|| Counter::in_epoch(epoch));
        self.counters = plan.counted().iter().map(resume).collect();
        self.retired = retired.remainder();
        self.find_stable_range();
        self.cover();
    }

    /// Whether all limits have room for these amounts, given by kind or, if known, for `each` limit.
    #[inline(never)] // so that its loop has the registers for itself
    pub(super) fn fits(&self, amounts: &Amounts, each: &[Option<u64>]) -> bool {
        let counters = self.counters.iter().zip(self.plan.counted());
        counters.enumerate().all(|(index, (counter, limit))| match amount_of(index, limit, amounts, each) {
            None => true,
            Some(amount) => fits(amount, self.limit(limit), counter.taken()),
        })
    }

    /// Adds amounts, for `each` limit where that is known, to the counters that a charge of `epoch` is part of.
    #[inline(never)] // as above
    pub(super) fn add(
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
        self.each_retired(epoch, |counter, limit| counter.take(amounts.counted(limit.kind()), reserve));
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
    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<(), ConfigError> {
        self.plan.check_name(name)?;
        let is_meant = |limit: &Limit| name.is_none_or(|name| limit.is_called(name));
        self.epoch += 1;
        for (counter, limit) in self.counters.iter_mut().zip(self.plan.counted()).filter(|(_, limit)| is_meant(limit)) {
            counter.reset(self.epoch);
            self.grants.close(limit);
        }
        if let Some(retired) = &mut self.retired {
            retired.drop_all(is_meant, &mut self.grants);
        }
        Ok(())
    }

    /// Returns the size of a limit, grants included.
    #[inline]
    pub(super) fn limit(&self, limit: &Limit) -> u64 {
        limit.limit.saturating_add(self.grants.raise(limit))
    }

    /// Whether nothing is used and no grant has a remainder.
    pub(super) fn is_blank(&self) -> bool {
        self.counters.iter().all(|counter| counter.taken() == 0)
            && self.retired.as_ref().is_none_or(|retired| retired.is_blank())
            && !self.grants.any_left()
    }

    /// Defers the warnings of these limits, one bit each, to a later response.
    pub(super) fn defer_warnings(&mut self, pending: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            counter.warning_pending |= pending & 1 << index != 0;
        }
    }

    /// Covers usage above the limits with grants.
    pub(super) fn cover(&mut self) {
        if !self.grants.is_empty() {
            self.each(PRESENT, |_, _| {});
        }
    }

    /// Changes the counters that a charge of `epoch` is part of.
    pub(super) fn each(&mut self, epoch: u32, mut change: impl FnMut(&mut Counter, &Limit)) {
        let counters = self.counters.iter_mut().zip(self.plan.counted());
        for (counter, limit) in counters.filter(|(counter, _)| counter.holds(epoch)) {
            change(counter, limit);
            self.grants.cover(limit, counter);
        }
        self.each_retired(epoch, change);
    }

    #[inline]
    fn each_retired(&mut self, epoch: u32, change: impl FnMut(&mut Counter, &Limit)) {
        if let Some(retired) = &mut self.retired {
            retired.each(epoch, &mut self.grants, change);
        }
    }
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
pub(super) fn both(one: Range<u64>, other: Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}
