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
pub(crate) struct Past {
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
        self.turn += 1;
        let mut past = self.past.take().unwrap_or_default();
        let counters = std::mem::take(&mut self.counters);
        past.counts.extend(old.counted().iter().cloned().zip(counters));
        if plan.starts_fresh() && past.starts(plan) {
            past.counts.drain(..).for_each(|(limit, _)| self.grants.close(&limit));
        }
        let count_of = |limit: &Limit| past.take(limit, wall).unwrap_or_else(|| Counter::born_at(self.turn));
        self.counters = plan.counted().iter().map(count_of).collect();
        past.counts.retain(|(_, counter)| counter.has_begun());
        self.past = Some(past).filter(|past| !past.counts.is_empty() || !past.started.is_empty());
        self.settle_down();
        self.cover();
    }
}

impl Past {
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

    pub(super) fn each_of(&mut self, turn: u32, grants: &mut Grants, mut change: impl FnMut(&mut Counter, &Limit)) {
        for (limit, counter) in self.counts.iter_mut().filter(|(_, counter)| counter.holds(turn)) {
            change(counter, limit);
            grants.cover(limit, counter.taken());
        }
    }

    pub(super) fn quiet(&self) -> Range<u64> {
        self.counts.iter().map(|(_, counter)| counter.quiet()).fold(0..u64::MAX, both)
    }

    pub(super) fn is_blank(&self) -> bool {
        self.counts.iter().all(|(_, counter)| counter.taken() == 0)
    }
}
