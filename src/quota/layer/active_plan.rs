//! The plans in force, and what they ask of each request.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use http::header::CONTENT_LENGTH;

use super::{policy::Common, settings::QuotaConfig};
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Digest, Tier},
    kind::{Direction, Kind},
    policy_name::PolicyName,
    quota::{Amounts, Limit, Plan},
    refusal::{AdvertisedLimit, Dialect, Fields},
    time::Period,
};

/// Every plan of a layer, replaced as a whole while requests read them.
#[derive(Clone)]
pub(super) struct ActivePlans {
    usual: Arc<ActivePlan>,
    tiers: Vec<(Tier, Arc<ActivePlan>)>,
    clients: HashMap<Digest, Arc<ActivePlan>>,
}

/// Whose plan it is.
#[derive(Clone, Debug)]
pub(super) enum Whose {
    Everyone,
    Tier(Tier),
    Client(Digest),
}

/// A plan in force, and what depends on nothing else: all that a request under it must hold on to.
pub(super) struct ActivePlan {
    pub(super) common: Arc<Common>,
    pub(super) plan: Arc<Plan>,
    /// One for each limit, that of requests at a time last; none where nothing is told.
    pub(super) fields: Vec<Arc<Fields>>,
    /// What each request asks for, where nothing depends on the request.
    pub(super) fixed: Amounts,
    /// The same for each counted limit of the plan.
    each: Box<[Option<u64>]>,
    /// Kinds whose amount the request's head says.
    metered: Vec<usize>,
    pub(super) request_bytes: bool,
    pub(super) response_bytes: bool,
    /// Something is still to be settled when the service has been called.
    pub(super) open: bool,
}

impl ActivePlans {
    pub(super) fn new(common: &Arc<Common>) -> Self {
        let settings = &common.settings;
        let active = |plan: &Plan| Arc::new(ActivePlan::new(plan.clone(), common));
        Self {
            usual: active(&settings.plan),
            tiers: settings.tiers.iter().map(|(tier, plan)| (tier.clone(), active(plan))).collect(),
            clients: settings.clients.iter().map(|(client, plan)| (client.digest(), active(plan))).collect(),
        }
    }

    /// The plan of a client: its own, that of its tier, or the usual one.
    #[inline]
    pub(super) fn of(&self, client: &Client) -> &Arc<ActivePlan> {
        if !self.clients.is_empty()
            && let Some(own) = self.clients.get(&client.digest())
        {
            return own;
        }
        let named = |tier: &Tier| self.tiers.iter().find(|(name, _)| name == tier).map(|(_, active)| active);
        client.tier().and_then(named).unwrap_or(&self.usual)
    }

    /// The same plans but for one. A number that is not above the one in force is refused; without a number it is the next.
    pub(super) fn with(&self, whose: &Whose, plan: Plan, common: &Arc<Common>) -> Result<Self, ConfigError> {
        common.settings.check(&plan)?;
        let before = match whose {
            Whose::Everyone => Some(&self.usual),
            Whose::Tier(tier) => self.tiers.iter().find(|(name, _)| name == tier).map(|(_, active)| active),
            Whose::Client(digest) => self.clients.get(digest),
        };
        let version = before.map_or(0, |active| active.plan.version());
        let plan = match plan.version() {
            0 => plan.numbered(version.saturating_add(1)),
            newer if newer > version || before.is_none() => plan,
            stale => {
                let must = format!("be above {version}, which is in force");
                return Err(ConfigError::new(&format!("version of plan {:?}", plan.name()), &must, stale));
            }
        };
        let (active, mut plans) = (Arc::new(ActivePlan::new(plan, common)), self.clone());
        match whose {
            Whose::Everyone => plans.usual = active,
            Whose::Tier(tier) => match plans.tiers.iter_mut().find(|(name, _)| name == tier) {
                Some((_, old)) => *old = active,
                None => plans.tiers.push((tier.clone(), active)),
            },
            Whose::Client(digest) => {
                plans.clients.insert(*digest, active);
            }
        }
        Ok(plans)
    }

    /// The same plans, without one of a client's own.
    pub(super) fn without(&self, client: Digest) -> Self {
        let mut plans = self.clone();
        plans.clients.remove(&client);
        plans
    }
}

impl ActivePlan {
    fn new(plan: Plan, common: &Arc<Common>) -> Self {
        let settings = &common.settings;
        let mut fixed = Amounts::new();
        for limit in plan.all() {
            match limit.kind() {
                Kind::Requests | Kind::Concurrent => fixed.set(limit.kind(), 1),
                kind => fixed.set(kind, 0), // nothing of it may be left already
            }
        }
        let each = plan.counted().iter().map(|limit| fixed.get(limit.kind())).collect();
        let counts = |kind: &Kind| plan.counted().iter().any(|limit| limit.kind() == kind);
        let metered: Vec<_> = (0..settings.meters.len()).filter(|&index| counts(&settings.meters[index].0)).collect();
        let (request_bytes, response_bytes) =
            (plan.counts_bytes(Direction::Request), plan.counts_bytes(Direction::Response));
        let open = response_bytes || plan.concurrent().is_some() || settings.share || settings.job_id.is_some();
        let fields = fields(&plan, settings.dialect);
        let common = Arc::clone(common);
        Self { common, plan: Arc::new(plan), fields, fixed, each, metered, request_bytes, response_bytes, open }
    }

    /// What a request asks for.
    #[inline]
    pub(super) fn asked(&self, request: &RequestHead<'_>, settings: &QuotaConfig) -> Asked {
        let declared = if self.request_bytes { content_length(request) } else { 0 };
        let metered = (!self.metered.is_empty()).then(|| Box::new(self.meter(request, settings)));
        Asked { declared, metered }
    }

    fn meter(&self, request: &RequestHead<'_>, settings: &QuotaConfig) -> Amounts {
        let mut amounts = self.fixed.clone();
        for &index in &self.metered {
            let (kind, meter) = &settings.meters[index];
            match meter(request) {
                Some(amount) => amounts.set(kind, amount),
                None => amounts.leave_out(kind),
            }
        }
        amounts
    }

    /// The name of a limit, that of requests at a time last.
    pub(super) fn limit(&self, name: &PolicyName) -> Option<(usize, &Limit)> {
        self.plan.all().enumerate().find(|(_, limit)| limit.name == *name)
    }
}

/// What one request asks for, kept as small as it can be.
#[derive(Default)]
pub(super) struct Asked {
    /// Bytes of its body, as far as its head says so.
    declared: u64,
    /// All but those, where meters looked at the request.
    metered: Option<Box<Amounts>>,
}

impl Asked {
    /// How much of each kind; under `active`, by which it was asked.
    pub(super) fn amounts<'a>(&'a self, active: &'a ActivePlan) -> Cow<'a, Amounts> {
        self.with_declared(active).map_or_else(|| Cow::Borrowed(self.undeclared(active)), Cow::Owned)
    }

    /// How much of each kind, but for bytes that the request's head has declared.
    #[inline]
    pub(super) fn undeclared<'a>(&'a self, active: &'a ActivePlan) -> &'a Amounts {
        self.metered.as_deref().unwrap_or(&active.fixed)
    }

    /// How much of each kind, where bytes were declared.
    #[inline]
    pub(super) fn with_declared(&self, active: &ActivePlan) -> Option<Amounts> {
        if self.declared == 0 { None } else { Some(self.declared_and(self.undeclared(active))) }
    }

    /// The same for each counted limit of the plan, where nothing depends on the request.
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

/// How many bytes the request's body has, as far as its head says so.
fn content_length(request: &RequestHead<'_>) -> u64 {
    let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    length.and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// The fields of each limit; every one of them tells of all the plan's limits, and of itself what is left.
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
