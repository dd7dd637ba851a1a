//! What is used of each limit of a plan: decided together, charged together.

use std::{ops::Range, sync::Arc};

use super::{Marks, counter::Counter, grants::Grants, holds::OpenReservation, retired::Retired};
use crate::{
    error::ConfigError,
    quota::{Amounts, Limit, MOST, Plan, no_such_limit},
};

/// One client's counts, and the plan that they are for.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    pub(super) plan: Arc<Plan>,
    /// One for each counted limit of the plan, in its order.
    pub(super) counters: Box<[Counter]>,
    /// What there is of other plans.
    pub(super) retired: Option<Box<Retired>>,
    pub(super) grants: Grants,
    /// Counts the beginnings of counts: who was charged at an earlier epoch than a count's first is no part of it.
    pub(super) epoch: u32,
    /// On the wall, while no period ends and no clock turns out to have been wrong.
    pub(super) stable_range: Range<u64>,
}

/// The epoch of what belongs to every count that is under way.
pub(super) const PRESENT: u32 = u32::MAX;

const ALWAYS: Range<u64> = 0..u64::MAX;

impl Counts {
    pub(super) fn new(plan: &Arc<Plan>) -> Self {
        let counters = plan.counted().iter().map(|_| Counter::default()).collect();
        Self {
            plan: Arc::clone(plan),
            counters,
            retired: None,
            grants: Grants::default(),
            epoch: 0,
            stable_range: ALWAYS,
        }
    }

    /// Brings them to the present: the plan in force, periods and grants that are over.
    #[inline]
    pub(super) fn advance(&mut self, plan: &Arc<Plan>, wall: u64) {
        if !self.stable_range.contains(&wall) {
            self.roll(wall);
        }
        if !Arc::ptr_eq(&self.plan, plan) {
            self.change_plan(plan, wall);
        }
        if !self.grants.is_empty() {
            self.grants.end(wall);
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
        self.settle_down();
    }

    /// Finds out for how long no period ends.
    pub(super) fn settle_down(&mut self) {
        let stable_range = self.counters.iter().map(Counter::stable_range).fold(ALWAYS, both);
        self.stable_range =
            self.retired.as_ref().map_or(stable_range.clone(), |retired| both(stable_range, retired.stable_range()));
    }

    /// Whether all limits have room for these amounts; for `each` limit, where that is known.
    #[inline(never)] // so that its loop has the registers for itself
    pub(super) fn fits(&self, amounts: &Amounts, each: &[Option<u64>]) -> bool {
        let counts = self.counters.iter().zip(self.plan.counted());
        counts.enumerate().all(|(index, (counter, limit))| match amount_of(index, limit, amounts, each) {
            None => true,
            Some(amount) => fits(amount, self.limit(limit), counter.taken()),
        })
    }

    /// Adds amounts, for `each` limit where that is known, to the counts that what was charged at `epoch` is part of.
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
                self.grants.cover(limit, counter.taken());
                if counter.warns(limit) {
                    marks.warned |= 1 << index;
                    counter.warning_pending = true;
                }
            }
            if counter.warning_pending {
                counter.warning_pending = false;
                marks.pending |= 1 << index;
            }
        }
        self.each_of_past(epoch, |counter, limit| counter.take(amounts.counted(limit.kind()), reserve));
        marks
    }

    /// Gives back what was charged at `epoch`.
    pub(super) fn give_back(&mut self, amounts: &Amounts, epoch: u32) {
        self.each_of(epoch, |counter, limit| {
            counter.used = counter.used.saturating_sub(amounts.counted(limit.kind()));
        });
    }

    /// What was set aside is set aside no more; all of it is used if it is to be `charged`, in the period in which it was
    /// set aside.
    pub(super) fn settle(&mut self, hold: &OpenReservation, charged: bool) {
        self.each_of(hold.epoch, |counter, limit| {
            let amount = hold.amounts.counted(limit.kind());
            counter.reserved = counter.reserved.saturating_sub(amount);
            if charged {
                counter.take(amount, false);
            }
        });
    }

    /// Counts the limits of this name or kind, or all, from zero.
    pub(super) fn reset(&mut self, name: Option<&str>) -> Result<(), ConfigError> {
        let named = |limit: &Limit, name| limit.name.as_str() == name || limit.kind().as_str() == name;
        let meant = |limit: &Limit| name.is_none_or(|name| named(limit, name));
        if let Some(name) = name.filter(|_| !self.plan.counted().iter().any(meant)) {
            return Err(self.no_such_limit(name));
        }
        self.epoch += 1;
        for (counter, limit) in self.counters.iter_mut().zip(self.plan.counted()).filter(|(_, limit)| meant(limit)) {
            counter.reset(self.epoch);
            self.grants.close(limit);
        }
        if let Some(retired) = &mut self.retired {
            retired.reset(meant, &mut self.grants);
        }
        Ok(())
    }

    pub(super) fn no_such_limit(&self, name: &str) -> ConfigError {
        no_such_limit(name, self.plan.counted().iter().map(|limit| limit.name.clone()))
    }

    /// How much there is of a limit, grants included.
    #[inline]
    pub(super) fn limit(&self, limit: &Limit) -> u64 {
        limit.limit.saturating_add(self.grants.raise(limit))
    }

    /// Whether nothing is used, and nothing granted that is left.
    pub(super) fn is_blank(&self) -> bool {
        let nothing = |counter: &Counter| counter.taken() == 0;
        self.counters.iter().all(nothing)
            && self.retired.as_ref().is_none_or(|retired| retired.is_blank())
            && !self.grants.any_left()
    }

    /// A response will tell of these limits, one bit each, after all.
    pub(super) fn tell_later(&mut self, pending: u64) {
        for (index, counter) in self.counters.iter_mut().enumerate() {
            counter.warning_pending |= pending & 1 << index != 0;
        }
    }

    /// Uses grants up by what is retired the limits.
    pub(super) fn cover(&mut self) {
        if !self.grants.is_empty() {
            self.each_of(PRESENT, |_, _| {});
        }
    }

    /// Changes the counts that what was charged at `epoch` is part of.
    fn each_of(&mut self, epoch: u32, mut change: impl FnMut(&mut Counter, &Limit)) {
        for (counter, limit) in
            self.counters.iter_mut().zip(self.plan.counted()).filter(|(counter, _)| counter.holds(epoch))
        {
            change(counter, limit);
            self.grants.cover(limit, counter.taken());
        }
        self.each_of_past(epoch, change);
    }

    #[inline]
    fn each_of_past(&mut self, epoch: u32, change: impl FnMut(&mut Counter, &Limit)) {
        if let Some(retired) = &mut self.retired {
            retired.each_of(epoch, &mut self.grants, change);
        }
    }
}

/// How much is asked for of what a limit counts.
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

/// Whether there is room for an amount where so much is taken; for nothing there is room while anything is left.
#[inline]
pub(super) fn fits(amount: u64, limit: u64, taken: u64) -> bool {
    amount.max(1) <= limit.saturating_sub(taken)
}

/// While both are stable_range.
pub(super) fn both(one: Range<u64>, other: Range<u64>) -> Range<u64> {
    one.start.max(other.start)..one.end.min(other.end)
}
