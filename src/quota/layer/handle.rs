//! Accounts of a layer, for callers without a request.

use std::{borrow::Cow, fmt, future::Future, sync::Arc};

use super::{
    active_plan::ActivePlan,
    error::QuotaError,
    policy::QuotaPolicy,
    reservation::{CloseOutcome, Reservation, ReservationError, ReservationId},
};
use crate::{
    gate::{Event, MaybeFuture},
    identity::{Client, Digester, anonymous},
    kind::Kind,
    quota::{
        Amounts,
        account::{ChargeRequest, Denial, Duplicate},
        store::{AccountContext, AdmitError, AdmitRequest, QuotaBackend, Receipt},
    },
    refusal::Refusal,
};

/// The accounts of a [`QuotaLayer`](crate::QuotaLayer), for callers without a request; clones share them.
///
/// In memory every answer is there at once.
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
    pub(super) const fn new(policy: Arc<QuotaPolicy>) -> Self {
        Self(policy)
    }

    /// Whether all of this could be charged now; takes nothing. 0 of a kind asks whether anything is left.
    ///
    /// # Errors
    /// The [`Refusal`] that [`charge`](Self::charge) would give.
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
        let (now, active, amounts) = (self.0.common.now(), self.active_plan(client), amounts.into());
        let checked = self.0.common.store.check(&AccountContext { client, plan: &active.plan, now }, &amounts).await;
        checked.map_err(|refused| self.0.refusal(&active, client, refused, now))
    }

    /// Charges all of this, or nothing.
    ///
    /// A kind that no limit counts is free. Requests at a time are none of these: see [`run`](Self::run).
    ///
    /// # Errors
    /// The [`Refusal`], which says which limits stand in the way and when to come back. A refusal changes nothing.
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

    /// Sets all of this aside, or nothing; the [`Reservation`] charges what was really used, or gives it back.
    ///
    /// # Errors
    /// The [`Refusal`], which says which limits stand in the way and when to come back. A refusal changes nothing.
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

    /// Charges a reservation that was [detached](Reservation::detach), once: with what was really used, of kinds that are
    /// not named as it was reserved.
    ///
    /// # Errors
    /// When it was rolled back before, is no longer known, or the store does not answer.
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

    /// Gives back a reservation that was [detached](Reservation::detach), once.
    ///
    /// # Errors
    /// When it was committed before, is no longer known, or the store does not answer.
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

    /// Notes what was used, whether there was room for it or not: the next one who asks is refused. Nothing is recorded of 0.
    ///
    /// # Errors
    /// When the store of the accounts does not answer; memory always does.
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
        let near = self.call(client, |store, account| store.record(account, &amounts)).await?;
        self.0.common.warn(&near);
        Ok(())
    }

    /// Charges all of this and runs `work`, or refuses; where the plan limits requests at a time, it takes a place until
    /// the work has ended. Without a client it is the anonymous one's.
    ///
    /// # Errors
    /// The [`Refusal`]; then `work` was never polled.
    ///
    /// # Cancel safety
    /// Dropped before it was polled, nothing is charged. Dropped while the work is under way, the charge stays, and the
    /// place comes back.
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

    /// The client of all requests that name none.
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
        self.0.common.digester()
    }

    async fn admit(&self, client: &Client, amounts: &Amounts, reserve: bool, open: bool) -> Result<Receipt, Refusal> {
        let ask = ChargeRequest { amounts, each: &[], reserve, lasting: false, open, job: None };
        self.begin(client, ask).await.map(|receipt| receipt.expect("only a job may have been done before"))
    }

    /// Takes what is asked for; nothing where it is for a job that was done before.
    pub(super) async fn begin(&self, client: &Client, ask: ChargeRequest<'_>) -> Result<Option<Receipt>, Refusal> {
        let (policy, now, active) = (&self.0, self.0.common.now(), self.active_plan(client));
        let account = AccountContext { client, plan: &active.plan, now };
        match policy
            .common
            .store
            .admit(&AdmitRequest { account, charge: ask, wants_nearest: false, wants_usage: false })
            .await
        {
            Ok(admission) => {
                policy.common.report(&admission);
                policy
                    .common
                    .context
                    .observers
                    .emit(&Event::Admitted { policy: &policy.common.context.name, client: Some(client) });
                Ok(Some(admission.receipt))
            }
            Err(AdmitError::Denied { denial: Denial::Job(Duplicate::Done), .. }) => Ok(None),
            Err(refused) => {
                policy.common.report_overflow(&refused);
                Err(self.refused(client, policy.refusal(&active, client, refused, now)))
            }
        }
    }

    /// Emits a refusal and returns it.
    pub(super) fn refused(&self, client: &Client, refusal: Refusal) -> Refusal {
        self.0.common.context.observers.emit(&Event::Refused {
            refusal: &refusal,
            client: Some(client),
            shadow: false,
        });
        refusal
    }

    /// Calls the store for the account of a client under its plan.
    pub(super) async fn call<T>(
        &self,
        client: &Client,
        call: impl FnOnce(&dyn QuotaBackend, &AccountContext<'_>) -> MaybeFuture<T>,
    ) -> T {
        let (now, active) = (self.0.common.now(), self.active_plan(client));
        call(&*self.0.common.store, &AccountContext { client, plan: &active.plan, now }).await
    }

    pub(super) fn active_plan(&self, client: &Client) -> Arc<ActivePlan> {
        self.0.active_plan(client)
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
