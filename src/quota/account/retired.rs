//! Counters of limits that the active plan does not have.
//!
//! A client may change from one plan to another and back, within a window and more than once. Usage of a limit that
//! only one of the plans has must not be lost meanwhile. Such a counter goes on until its window ends, and refuses no
//! request.

use std::ops::Range;

use super::{Counter, Grants, counters::both};
use crate::{
    policy_name::PolicyName,
    quota::{Limit, Plan},
};

/// Counters and starts of other plans.
#[derive(Clone, Debug, Default)]
pub(super) struct Retired {
    /// Counters that are kept until their windows are over.
    counters: Vec<(Limit, Counter)>,
    /// The latest version of each plan under which the account has started fresh.
    started: Vec<(PolicyName, u64)>,
}

impl Retired {
    /// Retires the counters of a plan.
    pub(super) fn add(&mut self, plan: &Plan, counters: Box<[Counter]>) {
        self.counters.extend(plan.counted().iter().cloned().zip(counters));
    }

    /// Drops all counters if the plan starts fresh and this version of it has not done so before.
    pub(super) fn start_fresh(&mut self, plan: &Plan, grants: &mut Grants) {
        if !plan.starts_fresh() {
            return;
        }
        match self.started.iter_mut().find(|(name, _)| name == plan.name()) {
            Some((_, version)) if *version >= plan.version() => return,
            Some((_, version)) => *version = plan.version(),
            None => self.started.push((plan.name().clone(), plan.version())),
        }
        self.counters.drain(..).for_each(|(limit, _)| grants.close(&limit));
    }

    /// Removes and returns the counter of a limit, so that it can continue.
    pub(super) fn resume(&mut self, limit: &Limit, wall: u64) -> Option<Counter> {
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

    /// Returns the rest that must stay, if any.
    pub(super) fn remainder(mut self: Box<Self>) -> Option<Box<Self>> {
        self.counters.retain(|(_, counter)| counter.has_begun());
        Some(self).filter(|retired| !retired.counters.is_empty() || !retired.started.is_empty())
    }

    /// Drops counters whose windows are over.
    pub(super) fn roll(&mut self, wall: u64, grants: &mut Grants) {
        self.counters.retain_mut(|(limit, counter)| {
            let Some(period) = limit.quota.period().filter(|_| counter.is_over(wall)) else { return true };
            let over = counter.roll(period, wall, 0);
            if over {
                grants.close(limit);
            }
            !over
        });
    }

    pub(super) fn drop_all(&mut self, is_meant: impl Fn(&Limit) -> bool, grants: &mut Grants) {
        self.counters.extract_if(.., |(limit, _)| is_meant(limit)).for_each(|(limit, _)| grants.close(&limit));
    }

    pub(super) fn each(&mut self, epoch: u32, grants: &mut Grants, mut change: impl FnMut(&mut Counter, &Limit)) {
        for (limit, counter) in self.counters.iter_mut().filter(|(_, counter)| counter.holds(epoch)) {
            change(counter, limit);
            grants.cover(limit, counter);
        }
    }

    pub(super) fn stable_range(&self) -> Range<u64> {
        self.counters.iter().map(|(_, counter)| counter.stable_range()).fold(0..u64::MAX, both)
    }

    pub(super) fn is_blank(&self) -> bool {
        self.counters.iter().all(|(_, counter)| counter.taken() == 0)
    }
}
