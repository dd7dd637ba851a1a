//! What remains of the plans that an account has had.
//!
//! A client may go from one plan to another and back, within a period and more than once: what it used of a limit that
//! only one of them has must not be forgotten on the way. Such a limit goes on counting until its period is over, and
//! keeps nobody out.

use std::{ops::Range, sync::Arc};

use super::{
    counter::Counter,
    counts::{Counts, both},
    grants::Grants,
};
use crate::{
    policy_name::PolicyName,
    quota::{Limit, Plan},
};

/// What remains of other plans.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retired {
    /// Counts of limits that the plan in force does not have, until their periods are over.
    counts: Vec<(Limit, Counter)>,
    /// The latest version of each plan under which the account has started fresh.
    started: Vec<(PolicyName, u64)>,
}

impl Counts {
    /// Another plan: limits of the same name and kind go on counting, unless it starts fresh.
    #[cold]
    pub(super) fn change_plan(&mut self, plan: &Arc<Plan>, wall: u64) {
        let old = std::mem::replace(&mut self.plan, Arc::clone(plan));
        self.epoch += 1;
        let mut retired = self.retired.take().unwrap_or_default();
        let counters = std::mem::take(&mut self.counters);
        retired.counts.extend(old.counted().iter().cloned().zip(counters));
        if plan.starts_fresh() && retired.starts(plan) {
            retired.counts.drain(..).for_each(|(limit, _)| self.grants.close(&limit));
        }
        let count_of = |limit: &Limit| retired.take(limit, wall).unwrap_or_else(|| Counter::first_at(self.epoch));
        self.counters = plan.counted().iter().map(count_of).collect();
        retired.counts.retain(|(_, counter)| counter.has_begun());
        self.retired = Some(retired).filter(|retired| !retired.counts.is_empty() || !retired.started.is_empty());
        self.settle_down();
        self.cover();
    }
}

impl Retired {
    /// Whether the account has not started fresh under this version before; from now on it has.
    fn starts(&mut self, plan: &Plan) -> bool {
        match self.started.iter_mut().find(|(name, _)| name == plan.name()) {
            Some((_, version)) if *version >= plan.version() => false,
            Some((_, version)) => {
                *version = plan.version();
                true
            }
            None => {
                self.started.push((plan.name().clone(), plan.version()));
                true
            }
        }
    }

    /// What was counted for a limit, to go on with.
    fn take(&mut self, limit: &Limit, wall: u64) -> Option<Counter> {
        let at = self.counts.iter().position(|(known, _)| known.is_like(limit))?;
        let (known, mut counter) = self.counts.swap_remove(at);
        if let (true, Some(period)) = (counter.has_begun(), limit.quota.period())
            && known.quota.period() != Some(period)
        {
            counter.begin(period, wall); // with what was used in the one before
        }
        counter.rearm(limit);
        Some(counter)
    }

    /// Forgets counts whose periods are over.
    pub(super) fn roll(&mut self, wall: u64, grants: &mut Grants) {
        self.counts.retain_mut(|(limit, counter)| {
            let Some(period) = limit.quota.period().filter(|_| counter.is_over(wall)) else { return true };
            let over = counter.roll(period, wall, 0);
            if over {
                grants.close(limit);
            }
            !over
        });
    }

    pub(super) fn reset(&mut self, meant: impl Fn(&Limit) -> bool, grants: &mut Grants) {
        self.counts.retain(|(limit, _)| {
            if meant(limit) {
                grants.close(limit);
            }
            !meant(limit)
        });
    }

    pub(super) fn each_of(&mut self, epoch: u32, grants: &mut Grants, mut change: impl FnMut(&mut Counter, &Limit)) {
        for (limit, counter) in self.counts.iter_mut().filter(|(_, counter)| counter.holds(epoch)) {
            change(counter, limit);
            grants.cover(limit, counter.taken());
        }
    }

    pub(super) fn stable_range(&self) -> Range<u64> {
        self.counts.iter().map(|(_, counter)| counter.stable_range()).fold(0..u64::MAX, both)
    }

    pub(super) fn is_blank(&self) -> bool {
        self.counts.iter().all(|(_, counter)| counter.taken() == 0)
    }
}
