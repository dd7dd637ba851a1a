//! Amounts under each plan, added up over all accounts, some accounts at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{idle::let_others_run, policy::QuotaPolicy};
use crate::{
    gate::{MaybeFuture, Sample, Sampled},
    identity::Client,
    policy_name::PolicyName,
    quota::{Usage, store::Bookmark},
};

/// Number of clients that a page costs at least, so that a call reads few pages of accounts that are mostly empty.
const LEAST_OF_PAGE: usize = 64;

/// Pass over all accounts of a layer, and the sums of the last one that is complete.
#[derive(Default)]
pub(super) struct PlanTotals(Mutex<TotalsState>);

#[derive(Default)]
struct TotalsState {
    /// Sums of the last complete pass.
    complete: Totals,
    /// Sums of the pass under way, of the accounts before `next`.
    partial: Totals,
    /// Start of the next page; `None` at the begin of a pass.
    next: Option<Bookmark>,
    /// Number of pages that were added up. A page that was read beside another caller is added up by one of them.
    pages: u64,
}

/// Sums by plan and limit: there may be a plan for each of many tiers.
type Totals = BTreeMap<(PolicyName, PolicyName), PlanTotal>;

/// Sum of one limit over the clients of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PlanTotal {
    used: u64,
    of: u64,
}

impl TotalsState {
    fn add(&mut self, usage: &Usage) {
        for limit in &usage.limits {
            if let Some(total) = self.partial.get_mut(&(usage.plan.clone(), limit.name.clone())) {
                total.used = total.used.saturating_add(limit.used).saturating_add(limit.reserved);
                total.of = total.of.saturating_add(limit.limit);
            }
        }
    }
}

impl PlanTotals {
    fn lock(&self) -> MutexGuard<'_, TotalsState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QuotaPolicy {
    /// Returns a sum of nothing for each limit of the usual plan and of those of tiers.
    ///
    /// A plan that one client has is left out, unless a tier has one of its name: its name may be the client's, and there
    /// may be as many as clients.
    fn no_totals(&self) -> Totals {
        let plans = self.plans.present();
        let limits = plans.values().flat_map(|active| active.plan.all().map(|limit| (active.plan.name(), &limit.name)));
        limits.map(|(plan, limit)| ((plan.clone(), limit.clone()), PlanTotal::default())).collect()
    }

    /// Adds a page up that was read from `from` after `pages` others. Returns false if the pass is complete, or if another
    /// caller has added this page up.
    fn merge(&self, from: Option<&Bookmark>, pages: u64, clients: &[(Client, Usage)], next: Option<Bookmark>) -> bool {
        let none = from.is_none().then(|| self.no_totals());
        let mut state = self.totals.lock();
        if state.pages != pages {
            return false;
        }
        if let Some(none) = none {
            state.partial = none;
        }
        clients.iter().for_each(|(_, usage)| state.add(usage));
        (state.pages, state.next) = (pages + 1, next);
        if state.next.is_none() {
            state.complete = std::mem::take(&mut state.partial);
        }
        state.next.is_some()
    }

    /// Adds up the usage of about `most` further clients.
    async fn add_up(self: Arc<Self>, most: usize) {
        let (common, mut left) = (&self.common, most);
        while left > 0 {
            let (from, pages) = {
                let state = self.totals.lock();
                (state.next.clone(), state.pages)
            };
            let page = common.store.page(from.as_ref(), left, self.plan_of(), common.now()).await;
            let Ok((clients, next)) = page else { return };
            let read = clients.len();
            if !self.merge(from.as_ref(), pages, &clients, next) {
                return;
            }
            left = left.saturating_sub(read.max(LEAST_OF_PAGE));
            let_others_run().await;
        }
    }
}

impl Sampled for QuotaPolicy {
    fn sample(&self, report: &mut dyn FnMut(&Sample<'_>)) {
        let policy = &self.common.context.name;
        let (live, most) = self.common.store.population();
        report(&Sample::Clients { policy, live, most });
        let complete = self.totals.lock().complete.clone(); // no lock is held while an observer runs
        for ((plan, limit), &PlanTotal { used, of }) in &complete {
            report(&Sample::PlanUsage { policy, plan, limit, used, of });
        }
    }

    fn read_usage(self: Arc<Self>, most: usize) -> MaybeFuture<()> {
        MaybeFuture::future(self.add_up(most))
    }
}
