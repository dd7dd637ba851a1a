//! Decision on a request: finds its client, computes its amounts, asks the store, and explains a refusal.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Extensions, Method};

use super::{
    active_plan::{ActivePlan, ClientPlans},
    builder::QuotaLayer,
    bytes::Bytes,
    charge::{self, Charge},
    jobs::{Duplicates, InvalidJob},
    permit::{Open, QuotaPermit},
    report::{emit, warn},
    retired_versions::RetiredVersions,
    settings::{OnExpiry, QuotaConfig},
    totals::PlanTotals,
};
use crate::{
    error::ConfigError,
    gate::{Admit, AskPolicy, ClientResolver, Event, MaybeFuture, MemberDecision, PolicyContext, RequestTimes, Tiered},
    head::RequestHead,
    identity::{Client, Identify},
    kind::Kind,
    quota::{
        Amounts, Limit, Plan,
        account::{AccountSettings, ChargeRequest, Denial, Duplicate, Now},
        store::{
            AccountContext, AdmitError, AdmitRequest, AdmittedCharge, PlanLookup, QuotaBackend, Receipt, Settlement,
            StoreDecision, StoreError,
        },
    },
    refusal::{Dialect, Reason, Refusal, Violation},
    sync::HotSwap,
    time::{Clock, Moment},
};

/// Retry delay while the job is running; its end is unknown.
const JOB_WAIT: Duration = Duration::from_secs(1);

/// Retry delay when the store did not answer: about the shortest time of a failover or of a full queue.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// Upper bound of the spread after the start of a window.
const MOST_SPREAD: Duration = Duration::from_secs(300);

/// Accounts of a layer, and the plans of its clients.
pub struct QuotaPolicy {
    pub(super) common: Arc<Common>,
    pub(super) plans: HotSwap<Tiered<Arc<ActivePlan>>>,
    pub(super) client_plans: ClientPlans,
    pub(super) clients: ClientResolver,
    pub(super) totals: PlanTotals,
}

/// State that all plans of a layer share.
pub(super) struct Common {
    pub(super) context: PolicyContext,
    pub(super) settings: QuotaConfig,
    pub(super) store: Arc<dyn QuotaBackend>,
    /// Units that the plans of the layer count or have counted: work may be under way under an old plan.
    units: HotSwap<Vec<Kind>>,
    pub(super) retired: Mutex<RetiredVersions>,
}

impl QuotaPolicy {
    pub(super) fn new(settings: QuotaConfig, context: PolicyContext) -> Result<Self, ConfigError> {
        let charge_expired = match settings.on_expiry {
            Some(on_expiry) => on_expiry == OnExpiry::ChargeEstimate,
            None => settings.store.0.bills(),
        };
        let account = AccountSettings { charge_expired, ..settings.account.clone() };
        let store = settings.store.0.open(settings.room(), account, settings.on_failure)?;
        let late = context.clone();
        store.listen(Arc::new(move |event| emit(&late, event)));
        let clients = ClientResolver::new(&settings.clients, &context);
        let units = HotSwap::new(settings.units());
        let common = Arc::new(Common { store, settings, context, units, retired: Mutex::default() });
        let plans = HotSwap::new(common.settings.plans.map(|plan| ActivePlan::new(plan.clone(), &common)));
        Ok(Self { plans, client_plans: ClientPlans::new(&common), clients, totals: PlanTotals::default(), common })
    }

    pub(super) fn bad_job_id(&self) -> Refusal {
        self.common.context.refusal(Reason::InvalidJobId)
    }

    /// Returns the refusal of a call that names a unit which no plan of the layer counts.
    pub(super) fn unknown_unit(&self, amounts: &Amounts) -> Option<Refusal> {
        let unit = amounts.iter().map(|(kind, _)| kind).find(|kind| !self.common.counts(kind))?;
        let name = self.common.context.name.clone();
        let violation = Violation { name, kind: unit.clone(), limit: 0, current: 0, wait: None, free_at: None };
        Some(self.common.context.refusal(Reason::UnknownUnit).with_violations(vec![violation]))
    }

    /// Returns a function that finds the plan of a client, for later calls.
    pub(super) fn plan_of(self: &Arc<Self>) -> PlanLookup {
        let me = Arc::clone(self);
        Arc::new(move |client: &Client| Arc::clone(&me.active_plan(client).plan))
    }

    /// Returns the plan of a client: its own, that of its tier, or the usual plan.
    pub(super) fn active_plan(&self, client: &Client) -> Arc<ActivePlan> {
        self.client_plans.get(client).unwrap_or_else(|| Arc::clone(self.plans.present().of(client.tier())))
    }

    /// Decides on a request of `client`, at the time that `now` returns.
    #[inline]
    fn ask(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
        now: impl FnOnce() -> Moment,
    ) -> MaybeFuture<Result<QuotaPermit, Refusal>> {
        let decided = self.clients.resolve(client, &self.common.context, |client| match client {
            Some(client) => self.decide(request, client, now),
            None => Ok(MaybeFuture::Ready(Ok(QuotaPermit::nothing(self.common.settings.share)))),
        });
        decided.unwrap_or_else(|refusal| MaybeFuture::Ready(Err(refusal)))
    }

    #[inline]
    fn decide(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: &Client,
        now: impl FnOnce() -> Moment,
    ) -> Result<MaybeFuture<Result<QuotaPermit, Refusal>>, Refusal> {
        if self.common.settings.share && self.charges_already(request, client) {
            return Ok(MaybeFuture::Ready(Ok(QuotaPermit::nothing(true))));
        }
        let now = self.common.at(now());
        let (mut held, own) = (None, self.client_plans.get(client));
        let active = own.as_ref().unwrap_or_else(|| self.plans.present_in(&mut held).of(client.tier()));
        let (asked, connect) = (active.asked(request), request.method == Method::CONNECT);
        let (bytes, amounts) = (Bytes::new(active, asked.declared, request), asked.amounts(active));
        let ids = self.common.settings.job_id.as_ref();
        let job = ids.map(|ids| ids.read(request, client, &amounts, self.common.store.digester()));
        let job = job.transpose().map_err(|InvalidJob| self.bad_job_id())?.flatten();
        let open = active.open || bytes.counts_request();
        let request = AdmitRequest {
            account: AccountContext { client, plan: &active.plan, now },
            charge: ChargeRequest {
                amounts: &amounts,
                each: asked.each(active),
                reserve: self.common.settings.share || bytes.may_be_returned(),
                lasting: true,
                open,
                job: job.as_ref(),
            },
            wants_nearest: self.common.settings.clients.dialect != Dialect::None,
            wants_usage: self.common.settings.share,
        };
        let mut open = Open::blank();
        Ok(match self.common.store.admit_in_place(&request, &mut open.admitted) {
            StoreDecision::Admitted => {
                MaybeFuture::Ready(Ok(QuotaPermit::new(open, active, client, asked, bytes, connect, now)))
            }
            StoreDecision::Refused(refused) => {
                open.recycle();
                MaybeFuture::Ready(self.deny(active, client, refused))
            }
            StoreDecision::Pending(decision) => {
                let (policy, active, client) = (Arc::clone(self), Arc::clone(active), client.clone());
                MaybeFuture::future(async move {
                    match decision.await {
                        Ok(admitted) => open.admitted = admitted,
                        Err(refused) => return policy.deny(&active, &client, refused),
                    }
                    Ok(QuotaPermit::new(open, &active, &client, asked, bytes, connect, now))
                })
            }
        })
    }

    /// Whether the request passes this layer for a second time.
    fn charges_already(&self, request: &RequestHead<'_>, client: &Client) -> bool {
        let charge = request.extensions.get::<Charge>();
        charge.is_some_and(|charge| charge.is_open_for(&self.common, client.digest()))
    }

    fn deny(
        self: &Arc<Self>,
        active: &ActivePlan,
        client: &Client,
        refused: AdmitError,
    ) -> Result<QuotaPermit, Refusal> {
        self.common.report_overflow(&refused);
        let begun_before = matches!(
            refused,
            AdmitError::Denied {
                denial: Denial::Job(Duplicate::Running | Duplicate::Done | Duplicate::Unknown { .. }),
                ..
            }
        );
        if begun_before && self.common.settings.duplicates == Duplicates::Pass {
            return Ok(QuotaPermit::nothing(self.common.settings.share));
        }
        Err(self.refusal(active, client, refused))
    }

    pub(super) fn refusal(&self, active: &ActivePlan, client: &Client, refused: AdmitError) -> Refusal {
        let (reason, wait) = match refused {
            AdmitError::Store(StoreError::Nameless | StoreError::Invalid(_) | StoreError::UnknownAccount) => {
                (Reason::Unidentified, None)
            }
            AdmitError::Store(StoreError::Rejected(_)) => (Reason::Rejected, None),
            AdmitError::Store(StoreError::Unavailable) => (Reason::Unavailable, Some(STORE_WAIT)),
            AdmitError::Store(StoreError::Indeterminate) => (Reason::Indeterminate, Some(STORE_WAIT)),
            AdmitError::Denied { denial: Denial::Job(duplicate), shared } => match duplicate {
                Duplicate::Running => (Reason::JobRunning, Some(JOB_WAIT)),
                Duplicate::Done => (Reason::DuplicateJob, None),
                Duplicate::Unknown { may_run } => (Reason::JobOutcomeUnknown, may_run.then_some(JOB_WAIT)),
                Duplicate::Conflict => (Reason::JobConflict, None),
                Duplicate::Stale => (Reason::StaleJobId, None),
                Duplicate::Full(wait) => (if shared { Reason::Capacity } else { Reason::RateLimited }, wait),
            },
            AdmitError::Denied { denial: Denial::Reservations(wait), shared } => {
                (if shared { Reason::Capacity } else { Reason::TooManyReservations }, Some(wait))
            }
            AdmitError::Denied { denial: Denial::Limits(violations), shared: false } => {
                return self.over(active, client, violations);
            }
            // Neither the limit nor the usage of a shared account is reported: it would show the traffic of others.
            AdmitError::Denied { denial: Denial::Limits(violations), shared: true } => {
                match violations.iter().map(|violation| violation.wait).collect::<Option<Vec<_>>>() {
                    Some(waits) => (Reason::Capacity, waits.into_iter().max().or(Some(JOB_WAIT))),
                    None => (Reason::TooLarge, None), // one of them has no room for it in any window
                }
            }
        };
        let refusal = self.common.context.refusal(reason);
        match wait {
            Some(wait) => refusal.with_retry_after(wait),
            None => refusal,
        }
    }

    /// Returns the refusal of a client at its limits. It reports the limit with the longest wait.
    fn over(&self, active: &ActivePlan, client: &Client, violations: Vec<Violation>) -> Refusal {
        let never = violations.iter().any(|violation| violation.wait.is_none());
        let reason = if never { Reason::TooLarge } else { Reason::RateLimited };
        let refusal = self.common.context.refusal(reason).with_violations(violations);
        let Some(worst) = refusal.worst().cloned() else { return refusal.with_retry_after(JOB_WAIT) };
        let refusal = refusal.with_limit(worst.limit, worst.current);
        let named = active.plan.all().enumerate().find(|(_, limit)| limit.name == worst.name);
        let (Some(wait), Some((index, limit))) = (worst.wait, named) else { return refusal };
        let resets_at = worst.free_at.filter(|_| worst.kind != Kind::Concurrent);
        let refusal = refusal.with_retry_after(wait).with_spread(spread(limit, client, worst.free_at), resets_at);
        match active.fields.get(index) {
            Some(fields) => refusal.with_fields(Arc::clone(fields)),
            None => refusal,
        }
    }
}

impl Common {
    /// Returns the time, read once.
    #[inline]
    pub(super) fn now(&self) -> Now {
        self.at(self.context.clock.now())
    }

    /// Returns the time at a moment that was just read.
    #[inline]
    fn at(&self, moment: Moment) -> Now {
        Now { moment, wall: self.context.clock.wall_at(moment) }
    }

    /// Returns whether a plan of the layer counts this unit. Any may count a built-in kind.
    pub(super) fn counts(&self, kind: &Kind) -> bool {
        !matches!(kind, Kind::Units(_)) || self.units.present().contains(kind)
    }

    /// Adds the units of a plan that comes into force.
    pub(super) fn add_units(&self, plan: &Plan) {
        let new: Vec<_> = plan.units().filter(|unit| !self.counts(unit)).cloned().collect();
        if !new.is_empty() {
            self.units.replace(|units| units.iter().cloned().chain(new).collect());
        }
    }

    pub(super) fn retire(&self, plan: &Plan) {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).add(plan);
    }

    /// Returns a version that no removed plan with the name of `plan` exceeds; 0 if there is none.
    pub(super) fn retired_version(&self, plan: &Plan) -> u64 {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).last(plan)
    }

    /// Reports an amount that is not charged, because no plan counts its unit.
    #[cold]
    pub(super) fn report_unknown(&self, unit: &Kind) {
        let PolicyContext { name: policy, observers, .. } = &self.context;
        observers.emit(&Event::UnknownUnit { policy, unit: unit.as_str() });
    }

    /// Settles a charge, and emits the warnings that it causes, and amounts that were cut.
    pub(super) fn settle(&self, receipt: &Receipt, settlement: &Settlement<'_>) {
        warn(&self.context, &self.store.settle(receipt, settlement, self.now()));
    }

    /// Emits the events of an admission.
    #[inline]
    pub(super) fn report(&self, admission: &AdmittedCharge) {
        if admission.details.is_some() || admission.receipt.shared {
            self.report_details(admission);
        }
    }

    #[cold]
    fn report_details(&self, admission: &AdmittedCharge) {
        if let Some(details) = &admission.details {
            warn(&self.context, &details.near);
            if details.reclaimed {
                self.context.observers.emit(&Event::Reclaimed { policy: &self.context.name });
            }
        }
        if admission.receipt.shared {
            self.context.observers.emit(&Event::Overflow { policy: &self.context.name });
        }
    }

    /// Reports a refusal by an account that clients share.
    pub(super) fn report_overflow(&self, refused: &AdmitError) {
        if let AdmitError::Denied { shared: true, .. } = refused {
            self.context.observers.emit(&Event::Overflow { policy: &self.context.name });
        }
    }
}

/// Returns the delay after a common boundary, so that clients do not all retry at once.
///
/// It is constant for a client and a boundary: at most 300 s, and at most a tenth of the period.
fn spread(limit: &Limit, client: &Client, boundary: Option<Duration>) -> Duration {
    let period = limit.quota.period().filter(|period| period.is_calendar());
    let most = period.map_or(Duration::ZERO, |period| (period.longest() / 10).min(MOST_SPREAD));
    let boundary = boundary.unwrap_or_default().as_nanos();
    let mixed = (client.digest().0 ^ boundary.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 32;
    let millis = mixed % most.as_millis().max(1);
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

impl Admit for QuotaPolicy {
    type Permit = QuotaPermit;

    #[inline]
    fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        self.clients.identify(request)
    }

    fn admit(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
    ) -> MaybeFuture<Result<QuotaPermit, Refusal>> {
        self.ask(request, client, || self.common.context.clock.now())
    }

    fn on_bypass(&self, extensions: &mut Extensions) {
        if self.common.settings.share {
            charge::share_idle(extensions);
        }
    }

    #[inline]
    fn decision_clock(&self) -> Option<&Clock> {
        Some(&self.common.context.clock)
    }

    #[inline(always)]
    fn admit_in_place<'a>(
        self: &'a Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
        times: &mut RequestTimes<'a>,
        permit: &mut Option<QuotaPermit>,
    ) -> MemberDecision<Self> {
        match self.ask(request, client, || times.by(&self.common.context.clock)) {
            MaybeFuture::Ready(decision) => decision.map(|admitted| *permit = Some(admitted)).into(),
            MaybeFuture::Future(decision) => MemberDecision::Pending(decision),
        }
    }
}

impl AskPolicy for QuotaLayer {
    fn identity(policy: &QuotaPolicy) -> Option<&Arc<dyn Identify>> {
        policy.clients.shared_identity()
    }
}

impl fmt::Debug for QuotaPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaPolicy").field("name", &self.common.context.name).finish_non_exhaustive()
    }
}
