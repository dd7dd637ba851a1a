//! Handle of a layer's accounts.

use std::{borrow::Cow, fmt, future::Future, sync::Arc};

use super::{
    active_plan::ActivePlan,
    error::QuotaError,
    policy::QuotaPolicy,
    report::warn,
    reservation::{CloseOutcome, Reservation, ReservationError, ReservationId},
};
use crate::{
    error::ConfigError,
    gate::{Event, MaybeFuture, PolicyContext},
    identity::{Client, Digester, anonymous},
    kind::Kind,
    quota::{
        Amounts,
        account::{ChargeRequest, Denial, Duplicate},
        store::{AccountContext, AdmitError, AdmitRequest, QuotaBackend, Receipt},
    },
    refusal::Refusal,
};

/// Accounts of a [`QuotaLayer`](crate::QuotaLayer), for callers without a request. Clones share them.
///
/// In memory every call completes at its first poll.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
///
/// let plan = Plan::new("free").limit(Quota::units("queries", 105).per(Period::hour()));
/// let quotas = QuotaLayer::new(plan).handle();
/// let alice = Client::named("alice");
/// quotas.record(&alice, ("queries", 95)).await.unwrap();
/// quotas.charge(&alice, ("queries", 10)).await.unwrap();
/// let refusal = quotas.charge(&alice, ("queries", 1)).await.unwrap_err();
/// assert_eq!(refusal.violations()[0].current, 105);
/// # });
/// ```
#[derive(Clone)]
pub struct Quotas(pub(super) Arc<QuotaPolicy>);

impl Quotas {
    /// Checks whether all these amounts could be charged now, and charges nothing. An amount of 0 checks that anything
    /// remains.
    ///
    /// # Errors
    /// The [`Refusal`] that [`charge`](Self::charge) would return.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// quotas.check(&alice, ("queries", 1_800)).await.unwrap();
    /// assert!(quotas.check(&alice, ("queries", 1_801)).await.is_err());
    /// # });
    /// ```
    pub async fn check(&self, client: &Client, amounts: impl Into<Amounts>) -> Result<(), Refusal> {
        let client = self.known(client).await;
        let client = &*client;
        let (now, active, amounts) = (self.0.common.now(), self.0.active_plan(client), amounts.into());
        if let Some(refusal) = self.0.unknown_unit(&amounts) {
            return Err(refusal);
        }
        let checked = self.0.common.store.check(&AccountContext { client, plan: &active.plan, now }, &amounts).await;
        checked.map_err(|refused| self.0.refusal(&active, client, refused))
    }

    /// Charges all these amounts, or none.
    ///
    /// A kind that the client's plan does not limit is free. An amount of concurrent requests is ignored: [`run`](Self::run) holds a
    /// slot.
    ///
    /// # Errors
    /// The [`Refusal`], with the limits that do not suffice and the time until a retry can pass. A refusal changes
    /// nothing. Its reason is [`UnknownUnit`](crate::Reason::UnknownUnit) if no plan of the layer counts a unit.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// quotas.charge(&alice, [("requests", 1), ("queries", 20)]).await.unwrap();
    /// # });
    /// ```
    pub async fn charge(&self, client: &Client, amounts: impl Into<Amounts>) -> Result<(), Refusal> {
        let mut amounts = amounts.into();
        amounts.leave_out(&Kind::Concurrent);
        self.admit(client, &amounts, false, false).await.map(drop)
    }

    /// Reserves all these amounts, or none. The [`Reservation`] charges the amounts that were used, or releases them.
    ///
    /// # Errors
    /// The [`Refusal`], with the limits that do not suffice and the time until a retry can pass. A refusal changes
    /// nothing.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let reservation = quotas.reserve(&Client::named("alice"), ("queries", 20)).await.unwrap();
    /// reservation.commit(("queries", 3));
    /// # });
    /// ```
    pub async fn reserve(&self, client: &Client, amounts: impl Into<Amounts>) -> Result<Reservation, Refusal> {
        let receipt = self.admit(client, &amounts.into(), true, true).await?;
        Ok(Reservation::new(&self.0, receipt))
    }

    /// Commits a [detached](Reservation::detach) reservation once: charges the `actual` amounts, and the reserved
    /// amount of each kind that `actual` does not name. A later commit changes nothing, and returns the amounts that the
    /// first one charged.
    ///
    /// # Errors
    /// If it was rolled back before or is not known any more, a counter would exceed 2^53 - 1, or the store does not
    /// answer.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Amounts, Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let id = quotas.reserve(&Client::named("alice"), ("queries", 20)).await.unwrap().detach();
    /// quotas.commit(&id, Amounts::new()).await.unwrap(); // all twenty
    /// # });
    /// ```
    pub async fn commit(
        &self,
        id: &ReservationId,
        actual: impl Into<Amounts>,
    ) -> Result<CloseOutcome, ReservationError> {
        self.0.close(id, Some(&actual.into())).await
    }

    /// Rolls back a [detached](Reservation::detach) reservation, once.
    ///
    /// # Errors
    /// If it was committed before or is not known any more, or the store does not answer.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let id = quotas.reserve(&Client::named("alice"), ("queries", 20)).await.unwrap().detach();
    /// quotas.roll_back(&id).await.unwrap();
    /// # });
    /// ```
    pub async fn roll_back(&self, id: &ReservationId) -> Result<CloseOutcome, ReservationError> {
        self.0.close(id, None).await
    }

    /// Records used amounts, even beyond the limit; later requests are refused until there is room. An amount of 0
    /// records nothing.
    ///
    /// # Errors
    /// If no plan of the layer counts a unit among `amounts`, a counter would exceed 2^53 - 1, or the store does not answer;
    /// memory always does. Nothing is recorded then: not a part of an amount, and no other amount.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.record(&Client::named("alice"), ("bytes", 4_096)).await.unwrap();
    /// # });
    /// ```
    pub async fn record(&self, client: &Client, amounts: impl Into<Amounts>) -> Result<(), QuotaError> {
        let amounts = amounts.into();
        if let Some((unit, _)) = amounts.iter().find(|(kind, _)| !self.0.common.counts(kind)) {
            return Err(ConfigError::quoted("unit", "be one that a plan of the layer counts", unit.as_str()).into());
        }
        let near = self.call(client, |store, account| store.record(account, &amounts)).await?;
        warn(&self.0.common.context, &near);
        Ok(())
    }

    /// Charges all these amounts and runs `work`, or refuses. If the plan limits requests in flight, a slot is held
    /// until the work has ended. `None` stands for the shared client of unidentified requests.
    ///
    /// # Errors
    /// The [`Refusal`]; then `work` was never polled.
    ///
    /// # Cancel safety
    /// If the future is dropped before its first poll, nothing is charged. If it is dropped while `work` runs, the
    /// charge stays and the slot is released.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// let rows = quotas.run(&alice, ("queries", 1), async { 42 }).await.unwrap();
    /// let more = quotas.run(None, ("queries", 1), async { 43 }).await.unwrap();
    /// # assert_eq!((rows, more), (42, 43));
    /// # });
    /// ```
    pub async fn run<'a, T>(
        &self,
        client: impl Into<Option<&'a Client>>,
        amounts: impl Into<Amounts>,
        work: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        let (client, mut amounts) = (or_anonymous(client.into()), amounts.into());
        amounts.set(&Kind::Concurrent, 1);
        let held = Reservation::new(&self.0, self.admit(&client, &amounts, false, true).await?);
        let done = work.await;
        held.commit(Amounts::new());
        Ok(done)
    }

    /// Returns the client that all unidentified requests share.
    #[must_use]
    pub fn anonymous(&self) -> Client {
        anonymous()
    }

    /// Returns the digester of the clients of these accounts.
    ///
    /// ```
    /// # use tollgate::{Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let session = quotas.digester().secret("session", b"s3cret");
    /// ```
    #[must_use]
    pub fn digester(&self) -> &Digester {
        Digester::process()
    }

    async fn admit(&self, client: &Client, amounts: &Amounts, reserve: bool, open: bool) -> Result<Receipt, Refusal> {
        let ask = ChargeRequest { amounts, each: &[], reserve, lasting: false, open, job: None };
        let begun = self.begin(client, ask).await?;
        Ok(begun.expect("only a job may have been done before").0)
    }

    /// Admits a charge, and returns the plan that decided; `None` if its job was done before.
    pub(super) async fn begin(
        &self,
        client: &Client,
        ask: ChargeRequest<'_>,
    ) -> Result<Option<(Receipt, Arc<ActivePlan>)>, Refusal> {
        let client = self.known(client).await;
        let client = &*client;
        if let Some(refusal) = self.0.unknown_unit(ask.amounts) {
            return Err(self.refused(client, refusal));
        }
        let (common, now, active) = (&self.0.common, self.0.common.now(), self.0.active_plan(client));
        let account = AccountContext { client, plan: &active.plan, now };
        let ask = AdmitRequest { account, charge: ask, wants_nearest: false, wants_usage: false };
        match common.store.admit(&ask).await {
            Ok(admission) => {
                common.report(&admission);
                let PolicyContext { name: policy, observers, .. } = &common.context;
                observers.emit(&Event::Admitted { policy, client: Some(client) });
                Ok(Some((admission.receipt, active)))
            }
            Err(AdmitError::Denied { denial: Denial::Job(Duplicate::Done), .. }) => Ok(None),
            Err(refused) => {
                common.report_overflow(&refused);
                Err(self.refused(client, self.0.refusal(&active, client, refused)))
            }
        }
    }

    /// Emits a refusal and returns it.
    pub(super) fn refused(&self, client: &Client, refusal: Refusal) -> Refusal {
        let event = Event::Refused { refusal: &refusal, client: Some(client), shadow: false };
        self.0.common.context.observers.emit(&event);
        refusal
    }

    /// Returns a client whose tier is unknown under the one that it had last.
    async fn known<'c>(&self, client: &'c Client) -> Cow<'c, Client> {
        if client.has_known_tier() || self.0.plans.present().is_plain() {
            return Cow::Borrowed(client);
        }
        match self.0.common.store.last_tier(client).await {
            Ok(Some(tier)) => Cow::Owned(client.clone().with_tier(tier)),
            _ => Cow::Borrowed(client),
        }
    }

    /// Calls the store for the account of a client under its plan.
    pub(super) async fn call<T>(
        &self,
        client: &Client,
        call: impl FnOnce(&dyn QuotaBackend, &AccountContext<'_>) -> MaybeFuture<T>,
    ) -> T {
        let client = self.known(client).await;
        let client = &*client;
        let (now, active) = (self.0.common.now(), self.0.active_plan(client));
        call(&*self.0.common.store, &AccountContext { client, plan: &active.plan, now }).await
    }
}

pub(super) fn or_anonymous(client: Option<&Client>) -> Cow<'_, Client> {
    client.map_or_else(|| Cow::Owned(anonymous()), Cow::Borrowed)
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("name", &self.0.common.context.name).finish_non_exhaustive()
    }
}
