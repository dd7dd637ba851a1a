//! Active plans, and the amounts that each request asks for under them.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dashmap::{DashMap, Entry};
use http::{HeaderMap, header::CONTENT_LENGTH};

use super::policy::Common;
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Digest},
    kind::{Direction, Kind},
    quota::{Amounts, Limit, Plan},
    refusal::{AdvertisedLimit, Dialect, Fields},
    time::Period,
};

/// Plans of single clients. One is replaced without a copy of the others.
pub(super) struct ClientPlans {
    plans: DashMap<Digest, Arc<ActivePlan>>,
    /// Set with the first plan, so that layers without such plans skip the lookup.
    any: AtomicBool,
}

/// An active plan and the values derived from it: everything that a request under it needs.
pub(super) struct ActivePlan {
    pub(super) common: Arc<Common>,
    pub(super) plan: Arc<Plan>,
    /// Header fields of each limit, the concurrency limit last; empty if no fields are sent.
    pub(super) fields: Vec<Arc<Fields>>,
    /// Amounts that each request asks for, without those that depend on the request.
    pub(super) fixed: Amounts,
    /// The fixed amounts by counted limit, in the order of the plan.
    each: Box<[Option<u64>]>,
    /// Indices of the meters that compute an amount from the request's head.
    metered: Vec<usize>,
    pub(super) request_bytes: bool,
    pub(super) response_bytes: bool,
    /// Whether a charge must be settled after the service was called.
    pub(super) open: bool,
    /// Whether nothing after the head of the response changes a charge that was complete at admission: nothing is held, no
    /// bytes are counted, and neither the handler nor a predicate looks at the end.
    pub(super) ends_at_head: bool,
}

impl ClientPlans {
    pub(super) fn new(common: &Arc<Common>) -> Self {
        let clients = &common.settings.client_plans;
        let plans = clients.iter().map(|(client, plan)| (client.digest(), ActivePlan::new(plan.clone(), common)));
        Self { plans: plans.collect(), any: AtomicBool::new(!clients.is_empty()) }
    }

    /// Returns the plan of a client that has one of its own.
    #[inline]
    pub(super) fn get(&self, client: &Client) -> Option<Arc<ActivePlan>> {
        if self.any.load(Ordering::Acquire) { self.look_up(client.digest()) } else { None }
    }

    #[inline(never)]
    fn look_up(&self, client: Digest) -> Option<Arc<ActivePlan>> {
        self.plans.get(&client).map(|own| Arc::clone(&own))
    }

    /// Sets or replaces the plan of one client.
    pub(super) fn set(&self, client: Digest, plan: Plan, common: &Arc<Common>) -> Result<(), ConfigError> {
        let own = self.plans.entry(client);
        let old = if let Entry::Occupied(own) = &own { Some(Arc::clone(own.get())) } else { None };
        own.insert(ActivePlan::next(old.as_deref(), plan, common)?);
        self.any.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn remove(&self, client: Digest) {
        // Under the lock of the entry: a plan that is set next finds the version of this one.
        self.plans.remove_if(&client, |_, active| {
            active.retire();
            true
        });
    }
}

impl ActivePlan {
    /// Activates a plan in place of `old`, if there was one. A plan without a version gets the one after `old` and after
    /// every plan of its name that was [retired](Self::retire), or 1; a version that is not above the active one is an
    /// error.
    pub(super) fn next(old: Option<&Self>, plan: Plan, common: &Arc<Common>) -> Result<Arc<Self>, ConfigError> {
        let version = Self::check_version(old, &plan)?;
        let plan = if plan.version() == 0 {
            let last = version.max(common.retired_version(&plan));
            plan.numbered(last.saturating_add(1))
        } else {
            plan
        };
        common.add_units(&plan);
        if let Some(old) = old.filter(|old| old.plan.name() != plan.name()) {
            old.retire();
        }
        Ok(Self::new(plan, common))
    }

    /// Checks that a plan may take the place of `old`, and returns the version that is in force.
    pub(super) fn check_version(old: Option<&Self>, plan: &Plan) -> Result<u64, ConfigError> {
        let version = old.map_or(0, |old| old.plan.version());
        if plan.version() == 0 || plan.version() > version {
            return Ok(version);
        }
        let must = format!("be above {version}, which is in force");
        Err(ConfigError::new(&format!("version of plan {:?}", plan.name()), &must, plan.version()))
    }

    /// Stores the version of a plan that has no successor. Accounts remember by name and version which plans they have
    /// started fresh under, so that a version that returned would not start fresh.
    pub(super) fn retire(&self) {
        self.common.retire(&self.plan);
    }

    pub(super) fn new(plan: Plan, common: &Arc<Common>) -> Arc<Self> {
        let settings = &common.settings;
        // A request of a newcomer may be charged to an account that it shares, which has another plan.
        let shared = settings.shared_plan();
        let either = |has: &dyn Fn(&Plan) -> bool| has(&plan) || shared.is_some_and(has);
        let mut fixed = Amounts::new();
        for limit in plan.all().chain(shared.into_iter().flat_map(Plan::all)) {
            match limit.kind() {
                Kind::Requests | Kind::Concurrent => fixed.set(limit.kind(), 1),
                kind => fixed.set(kind, 0), // refused if nothing of it remains
            }
        }
        let each = plan.counted().iter().map(|limit| fixed.get(limit.kind())).collect();
        let counts = |kind: &Kind| either(&|plan| plan.counted().iter().any(|limit| limit.kind() == kind));
        let metered: Vec<_> = (0..settings.meters.len()).filter(|&index| counts(&settings.meters[index].0)).collect();
        let counts_bytes = |direction| either(&|plan| plan.counts_bytes(direction));
        let (request_bytes, response_bytes) = (counts_bytes(Direction::Request), counts_bytes(Direction::Response));
        let open = response_bytes
            || either(&|plan| plan.concurrent().is_some())
            || settings.share
            || settings.job_id.is_some();
        let ends_at_head = !open && !request_bytes && settings.charge_when.is_none();
        let fields = fields(&plan, settings.clients.dialect);
        let common = Arc::clone(common);
        let plan = Arc::new(plan);
        Arc::new(Self { common, plan, fields, fixed, each, metered, request_bytes, response_bytes, open, ends_at_head })
    }

    /// Returns the amounts that a request asks for.
    #[inline]
    pub(super) fn asked(&self, request: &RequestHead<'_>) -> Asked {
        let declared = if self.request_bytes { content_length(request.headers) } else { 0 };
        let metered = (!self.metered.is_empty()).then(|| Box::new(self.meter(request)));
        Asked { declared, metered }
    }

    fn meter(&self, request: &RequestHead<'_>) -> Amounts {
        let mut amounts = self.fixed.clone();
        for &index in &self.metered {
            let (kind, meter) = &self.common.settings.meters[index];
            match meter(request) {
                Some(amount) => amounts.set(kind, amount),
                None => amounts.leave_out(kind),
            }
        }
        amounts
    }
}

/// Amounts that one request asks for, in as few bytes as possible.
#[derive(Default)]
pub(super) struct Asked {
    /// Body bytes that the request's head declares; 0 if it declares none.
    pub(super) declared: u64,
    /// All other amounts, if a meter computed one of them.
    metered: Option<Box<Amounts>>,
}

impl Asked {
    /// Returns the amount of each kind, under the plan for which the request was metered.
    #[inline]
    pub(super) fn amounts<'a>(&'a self, active: &'a ActivePlan) -> Cow<'a, Amounts> {
        let undeclared = self.metered.as_deref().unwrap_or(&active.fixed);
        if self.declared == 0 { Cow::Borrowed(undeclared) } else { Cow::Owned(self.declared_and(undeclared)) }
    }

    /// Returns the amount for each counted limit of the plan; empty if an amount depends on the request.
    #[inline]
    pub(super) fn each<'a>(&self, active: &'a ActivePlan) -> &'a [Option<u64>] {
        if self.declared == 0 && self.metered.is_none() { &active.each } else { &[] }
    }

    fn declared_and(&self, amounts: &Amounts) -> Amounts {
        let mut amounts = amounts.clone();
        for direction in [Direction::Both, Direction::Request] {
            let kind = Kind::Bytes(direction);
            if amounts.get(&kind).is_some() {
                amounts.set(&kind, self.declared);
            }
        }
        amounts
    }
}

/// Returns the body bytes that the request's head declares, or 0.
pub(super) fn content_length(headers: &HeaderMap) -> u64 {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// Returns the header fields of each limit. Each lists all limits of the plan, and the remainder of its own.
fn fields(plan: &Plan, dialect: Dialect) -> Vec<Arc<Fields>> {
    if dialect == Dialect::None {
        return Vec::new();
    }
    let advertised = |limit: &Limit| AdvertisedLimit {
        name: limit.name.clone(),
        quota: limit.limit,
        window: limit.quota.period().map(Period::longest),
        unit: limit.kind().field_unit(),
    };
    let all: Vec<_> = plan.all().map(advertised).collect();
    Fields::for_limits(dialect, &all).into_iter().map(Arc::new).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use dashmap::try_result::TryResult;

    use super::*;
    use crate::quota::QuotaLayer;

    #[test]
    fn removed_plan_is_locked_until_its_version_is_stored() {
        let quotas = QuotaLayer::new(Plan::new("free")).handle();
        let alice = Client::named("alice");
        quotas.set_client_plan(&alice, Plan::new("own")).unwrap();
        let policy = &quotas.0;
        let versions = policy.common.retired.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            scope.spawn(|| quotas.remove_client_plan(&alice));
            // The removal cannot end before the versions are free.
            loop {
                match policy.client_plans.plans.try_get(&alice.digest()) {
                    TryResult::Present(_) => std::thread::yield_now(), // it has not begun
                    TryResult::Absent => panic!("a plan that is set now would get version 1 again"),
                    TryResult::Locked => break,
                }
            }
            drop(versions);
        });
        quotas.set_client_plan(&alice, Plan::new("own")).unwrap();
        assert_eq!(quotas.client_plan(&alice).unwrap().version(), 2);
    }
}
