//! Decision on a request: finds its client, computes its amounts, and asks the store.

use std::{fmt, sync::Arc};

use http::Extensions;

use super::{
    active_plan::{ActivePlan, ClientPlans},
    bytes::Bytes,
    charge,
    jobs::{Duplicates, InvalidJob},
    permit::QuotaPermit,
    settings::{OnExpiry, QuotaConfig},
};
use crate::{
    gate::{Admit, ClientResolver, Event, MaybeFuture, PolicyContext, Tiered},
    head::RequestHead,
    identity::{Client, Digester},
    quota::{
        account::{AccountSettings, ChargeRequest, Denial, Duplicate, Now},
        store::{
            AccountContext, AdmitError, AdmitRequest, AdmittedCharge, NearLimits, PlanLookup, QuotaBackend, Receipt,
            Settlement, StoreEvent,
        },
    },
    refusal::{Dialect, Reason, Refusal},
    sync::HotSwap,
};

/// Accounts of a layer, and the plans of its clients.
pub struct QuotaPolicy {
    pub(super) common: Arc<Common>,
    pub(super) plans: HotSwap<Tiered<Arc<ActivePlan>>>,
    pub(super) client_plans: ClientPlans,
    clients: ClientResolver,
}

/// State that all plans of a layer share.
pub(super) struct Common {
    pub(super) context: PolicyContext,
    pub(super) settings: QuotaConfig,
    pub(super) store: Arc<dyn QuotaBackend>,
}

impl QuotaPolicy {
    pub(super) fn new(settings: QuotaConfig, context: PolicyContext) -> Self {
        let charge_expired = match settings.on_expiry {
            Some(on_expiry) => on_expiry == OnExpiry::ChargeEstimate,
            None => settings.store.0.bills(),
        };
        let account = AccountSettings { charge_expired, ..settings.account.clone() };
        let store = settings.store.0.open(settings.clients.most, account, &context.clock, settings.on_failure);
        let store = store.unwrap_or_else(|invalid| panic!("{invalid}"));
        let late = context.clone();
        store.listen(Arc::new(move |event| emit(&late, event)));
        let clients = ClientResolver::new(&settings.clients);
        let common = Arc::new(Common { store, settings, context });
        let plans = HotSwap::new(common.settings.plans.map(|plan| ActivePlan::new(plan.clone(), &common)));
        Self { plans, client_plans: ClientPlans::new(&common), clients, common }
    }

    /// Returns the client to charge; `None` if the request is not charged.
    pub(super) fn client(&self, request: &RequestHead<'_>) -> Result<Option<Client>, Refusal> {
        let client = self.clients.identify(request);
        self.clients.resolve(client.as_ref(), &self.common.context, |client| Ok(client.cloned()))
    }

    pub(super) fn bad_job_id(&self) -> Refusal {
        Refusal::new(Reason::InvalidJobId, self.common.context.name.clone())
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

    #[inline]
    fn decide(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: &Client,
    ) -> Result<MaybeFuture<Result<QuotaPermit, Refusal>>, Refusal> {
        let now = self.common.now();
        let (plans, own) = (self.plans.present(), self.client_plans.get(client));
        let active = own.as_ref().unwrap_or_else(|| plans.of(client.tier()));
        let (asked, bytes) = (active.asked(request), Bytes::new(active, request));
        let amounts = asked.amounts(active);
        let job = match &self.common.settings.job_id {
            Some(ids) => ids.read(request, client, &amounts, self.common.store.digester()),
            None => Ok(None),
        };
        let job = job.map_err(|InvalidJob| self.bad_job_id())?;
        let open = active.open || bytes.counts_request();
        let request = AdmitRequest {
            account: AccountContext { client, plan: &active.plan, now },
            charge: ChargeRequest {
                amounts: &amounts,
                each: asked.each(active),
                reserve: self.common.settings.share,
                lasting: true,
                open,
                job: job.as_ref(),
            },
            wants_nearest: self.common.settings.clients.dialect != Dialect::None,
            wants_usage: self.common.settings.share,
        };
        let decided = self.common.store.admit(&request);
        Ok(match decided {
            MaybeFuture::Ready(Ok(admission)) => {
                MaybeFuture::Ready(Ok(QuotaPermit::new(active, asked, bytes, admission, now)))
            }
            MaybeFuture::Ready(Err(refused)) => MaybeFuture::Ready(self.deny(active, client, refused, now)),
            MaybeFuture::Future(decision) => {
                let (policy, active, client) = (Arc::clone(self), Arc::clone(active), client.clone());
                MaybeFuture::future(async move {
                    match decision.await {
                        Ok(admission) => Ok(QuotaPermit::new(&active, asked, bytes, admission, now)),
                        Err(refused) => policy.deny(&active, &client, refused, now),
                    }
                })
            }
        })
    }

    /// Returns the permit of a request that is not charged.
    fn uncharged(&self) -> QuotaPermit {
        QuotaPermit::nothing(self.common.settings.share)
    }

    fn deny(
        self: &Arc<Self>,
        active: &ActivePlan,
        client: &Client,
        refused: AdmitError,
        now: Now,
    ) -> Result<QuotaPermit, Refusal> {
        self.common.report_overflow(&refused);
        let done_before =
            matches!(refused, AdmitError::Denied { denial: Denial::Job(Duplicate::Running | Duplicate::Done), .. });
        if done_before && self.common.settings.duplicates == Duplicates::Pass {
            return Ok(self.uncharged());
        }
        Err(self.refusal(active, client, refused, now))
    }
}

impl Common {
    /// Returns the time, read once.
    #[inline]
    pub(super) fn now(&self) -> Now {
        let moment = self.context.clock.now();
        Now { moment, wall: self.context.clock.wall_at(moment) }
    }

    pub(super) fn digester(&self) -> &'static Digester {
        Digester::process()
    }

    /// Settles a charge, and emits the warnings that it causes.
    pub(super) fn settle(&self, receipt: &Receipt, settlement: &Settlement<'_>) {
        self.warn(&self.store.settle(receipt, settlement, self.now()));
    }

    /// Emits the warnings of a client near its limits.
    #[inline]
    pub(super) fn warn(&self, near: &NearLimits) {
        warn(&self.context, near);
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
            self.warn(&details.near);
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

/// Emits an event of the store for which no caller waits.
fn emit(context: &PolicyContext, event: &StoreEvent) {
    let policy = &context.name;
    let event = match event {
        StoreEvent::Near(near) => return warn(context, near),
        StoreEvent::Rejected { client, why } => Event::StoreRejected { policy, client, why },
        StoreEvent::Lost(why) => Event::StoreLost { policy, why },
        StoreEvent::Back => Event::StoreBack { policy },
        StoreEvent::Full => Event::SpoolFull { policy },
        StoreEvent::Merged { records, duplicates } => {
            Event::SpoolMerged { policy, records: *records, duplicates: *duplicates }
        }
    };
    context.observers.emit(&event);
}

fn warn(context: &PolicyContext, near: &NearLimits) {
    for warning in &near.limits {
        context.observers.emit(&Event::NearLimit {
            policy: &context.name,
            client: near.client.as_ref(),
            limit: &warning.name,
            used: warning.used,
            of: warning.limit,
        });
    }
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
        let decided = self.clients.resolve(client, &self.common.context, |client| match client {
            Some(client) => self.decide(request, client),
            None => Ok(MaybeFuture::Ready(Ok(self.uncharged()))),
        });
        decided.unwrap_or_else(|refusal| MaybeFuture::Ready(Err(refusal)))
    }

    fn on_bypass(&self, extensions: &mut Extensions) {
        if self.common.settings.share {
            charge::share_idle(extensions);
        }
    }
}

impl fmt::Debug for QuotaPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaPolicy").field("terms", &self.common.context).finish_non_exhaustive()
    }
}
