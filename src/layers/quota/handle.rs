//! The same accounts outside http.

use std::{fmt, future::Future, sync::Arc};

use super::{
    offer::{Offer, Whose},
    reservation::{Ended, Reservation, ReservationError, ReservationId},
    tracker::Tracker,
};
use crate::{
    Client, Digester, Event, Invalid, Plan, Refusal, RequestHead, Tier,
    identify::anonymous,
    quota::{Amounts, Grant, GrantId, Granted, Kind, LimitUsage, Usage},
    quota_store::{Account, Order, Refused},
    rule::quota::{Ask, No},
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
/// quotas.record(&alice, ("queries", 95)).await;
/// quotas.charge(&alice, ("queries", 10)).await.unwrap();
/// let refusal = quotas.charge(&alice, ("queries", 1)).await.unwrap_err();
/// assert_eq!(refusal.violations()[0].current, 105);
/// # });
/// ```
#[derive(Clone)]
pub struct Quotas(Arc<Tracker>);

/// The usage of some clients, and where to go on.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas) {
/// let mut from = None;
/// loop {
///     let page = quotas.usage_page(from, 100).await;
///     for (client, usage) in &page.clients {
///         println!("{client:?}: {} limits", usage.limits.len());
///     }
///     from = page.next;
///     if from.is_none() {
///         break;
///     }
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UsagePage {
    /// The clients of this page.
    pub clients: Vec<(Client, Usage)>,
    /// Where to go on; `None` after the last.
    pub next: Option<Cursor>,
}

/// A place in the list of all clients.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas) {
/// let first = quotas.usage_page(None, 100).await;
/// let second = quotas.usage_page(first.next, 100).await;
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(u64);

/// What each limit would say to a request.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas, request: &http::Request<String>) {
/// let explained = quotas.explain(&tollgate::RequestHead::of(request)).await;
/// for limit in &explained.limits {
///     println!("{}: asks for {:?} of {}", limit.usage.name, limit.asked, limit.usage.remaining);
/// }
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explained {
    /// Whose account it is; `None` where nobody is charged.
    pub client: Option<Client>,
    /// Each limit of the client's plan.
    pub limits: Vec<ExplainedLimit>,
    /// The refusal that the request would get.
    pub refusal: Option<Refusal>,
}

/// What one limit would say to a request.
///
/// ```
/// # fn takes(limit: &tollgate::ExplainedLimit) {
/// println!("{}: {}", limit.usage.name, if limit.passes { "yes" } else { "no" });
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExplainedLimit {
    /// What is used of it.
    pub usage: LimitUsage,
    /// How much of it the request asks for; `None` where it has nothing to do with it.
    pub asked: Option<u64>,
    /// Whether it lets the request pass.
    pub passes: bool,
}

impl Quotas {
    pub(super) const fn new(tracker: Arc<Tracker>) -> Self {
        Self(tracker)
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
        let (now, offer, amounts) = (self.0.now(), self.offer(client), amounts.into());
        let checked = self.0.store.check(&Account { client, plan: &offer.plan, now }, &amounts).await;
        checked.map_err(|no| self.0.refusal(&offer, client, Refused { no, shared: false }, now))
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
        self.admit(client, &amounts.into(), true, true).await
    }

    /// Charges a reservation that was [detached](Reservation::detach), once: with what was really used, of kinds that are
    /// not named as it was reserved.
    ///
    /// # Errors
    /// When it was rolled back before, or nobody remembers it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Amounts, Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let id = quotas.reserve(&Client::named("alice"), ("queries", 20)).await.unwrap().detach();
    /// quotas.commit(id, Amounts::none()).await.unwrap(); // all twenty
    /// # });
    /// ```
    pub async fn commit(&self, id: ReservationId, actual: impl Into<Amounts>) -> Result<Ended, ReservationError> {
        self.0.close(id, Some(&actual.into())).await
    }

    /// Gives back a reservation that was [detached](Reservation::detach), once.
    ///
    /// # Errors
    /// When it was committed before, or nobody remembers it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let id = quotas.reserve(&Client::named("alice"), ("queries", 20)).await.unwrap().detach();
    /// quotas.roll_back(id).await.unwrap();
    /// # });
    /// ```
    pub async fn roll_back(&self, id: ReservationId) -> Result<Ended, ReservationError> {
        self.0.close(id, None).await
    }

    /// Notes what was used, whether there was room for it or not: the next one who asks is refused. Nothing is recorded of 0.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.record(&Client::named("alice"), ("bytes", 4_096)).await;
    /// # });
    /// ```
    pub async fn record(&self, client: &Client, amounts: impl Into<Amounts>) {
        let (now, offer, amounts) = (self.0.now(), self.offer(client), amounts.into());
        let near = self.0.store.record(&Account { client, plan: &offer.plan, now }, &amounts).await;
        self.0.warn(&near);
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
        let own;
        let client = match client.into() {
            Some(client) => client,
            None => {
                own = anonymous();
                &own
            }
        };
        let mut amounts = amounts.into();
        amounts.set(&Kind::Concurrent, 1);
        let held = self.admit(client, &amounts, false, true).await?;
        let done = work.await;
        held.commit(Amounts::none());
        Ok(done)
    }

    /// What a client has used of each limit of its plan.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let usage = quotas.usage(&Client::named("alice")).await;
    /// assert_eq!(usage.of("queries_per_day").unwrap().remaining, 43_200);
    /// # });
    /// ```
    pub async fn usage(&self, client: &Client) -> Usage {
        let (now, offer) = (self.0.now(), self.offer(client));
        self.0.store.usage(&Account { client, plan: &offer.plan, now }).await
    }

    /// What all clients that have an account have used, some at a time. Who comes or goes meanwhile may be missed.
    ///
    /// Requests never wait for it longer than for a few accounts.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.record(&Client::named("alice"), ("queries", 1)).await;
    /// assert_eq!(quotas.usage_page(None, 100).await.clients.len(), 1);
    /// # });
    /// ```
    pub async fn usage_page(&self, from: Option<Cursor>, most: usize) -> UsagePage {
        let now = self.0.now();
        let plan_of = |client: &Client| Arc::clone(&self.offer(client).plan);
        let from = from.map_or(0, |Cursor(at)| at);
        let (clients, next) = self.0.store.page(from, most.max(1), &plan_of, now).await;
        UsagePage { clients, next: next.map(Cursor) }
    }

    /// Counts a client's limits of this name or kind from zero; what is in flight belongs to the count before.
    ///
    /// # Errors
    /// When the client's plan has no such limit.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// quotas.reset(&alice, "queries_per_hour").await.unwrap();
    /// quotas.reset(&alice, "queries").await.unwrap(); // per hour and per day
    /// assert!(quotas.reset(&alice, "querys").await.is_err());
    /// # });
    /// ```
    pub async fn reset(&self, client: &Client, limit: &str) -> Result<(), Invalid> {
        self.reset_some(client, Some(limit)).await
    }

    /// Counts all of a client's limits from zero; what is in flight belongs to the count before.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.reset_all(&Client::named("alice")).await;
    /// # });
    /// ```
    pub async fn reset_all(&self, client: &Client) {
        let _ = self.reset_some(client, None).await; // there is no name that could be wrong
    }

    /// Raises a client's limit until a time.
    ///
    /// # Errors
    /// When the client's plan has no limit of this name, the end has passed, or there is no room for another account.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use std::time::{Duration, SystemTime};
    /// # use tollgate::{Client, Grant, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
    /// let grant = Grant::new("queries_per_day", 500, tomorrow).approved_by("M. Okafor").because("launch day");
    /// quotas.grant(&alice, grant).await.unwrap();
    /// assert_eq!(quotas.usage(&alice).await.of("queries_per_day").unwrap().limit, 43_700);
    /// # });
    /// ```
    pub async fn grant(&self, client: &Client, grant: Grant) -> Result<GrantId, Invalid> {
        let (now, offer) = (self.0.now(), self.offer(client));
        self.0.store.grant(&Account { client, plan: &offer.plan, now }, grant).await
    }

    /// Ends a grant before its time; false if the client has none of this id. What it has paid for stays paid.
    ///
    /// ```
    /// # async fn takes(quotas: &tollgate::Quotas, alice: &tollgate::Client) {
    /// for granted in quotas.grants(alice).await {
    ///     quotas.revoke(alice, granted.id).await;
    /// }
    /// # }
    /// ```
    pub async fn revoke(&self, client: &Client, id: GrantId) -> bool {
        let (now, offer) = (self.0.now(), self.offer(client));
        self.0.store.revoke(&Account { client, plan: &offer.plan, now }, id).await
    }

    /// A client's grants that have not ended, those whose end is nearest first.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// assert!(quotas.grants(&Client::named("alice")).await.is_empty());
    /// # });
    /// ```
    pub async fn grants(&self, client: &Client) -> Vec<Granted> {
        let (now, offer) = (self.0.now(), self.offer(client));
        self.0.store.grants(&Account { client, plan: &offer.plan, now }).await
    }

    /// Changes the plan of all clients that have none of their own, from their next request on.
    ///
    /// What was used of a limit stays used under the limit of the same name, unless the plan is
    /// [`starting_fresh`](Plan::starting_fresh).
    ///
    /// # Errors
    /// When the plan's number is not above that of the plan in force, or it has a limit of a day or longer and identities
    /// are not verified.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard().numbered(3)).handle();
    /// let plan = || Plan::new("standard").limit(Quota::requests(10).per(Period::hour()));
    /// quotas.set_plan(plan().numbered(4)).unwrap();
    /// assert!(quotas.set_plan(plan().numbered(4)).is_err()); // a late message of another node changes nothing
    /// # });
    /// ```
    pub fn set_plan(&self, plan: Plan) -> Result<(), Invalid> {
        self.change_plan(&Whose::Everyone, plan)
    }

    /// Changes the plan of a tier, or gives it one of its own; as [`set_plan`](Self::set_plan).
    ///
    /// # Errors
    /// As of [`set_plan`](Self::set_plan).
    ///
    /// ```
    /// # use tollgate::{Period, Plan, Quota, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.set_plan_for("pro", Plan::new("pro").limit(Quota::requests(10_000).per(Period::hour()))).unwrap();
    /// ```
    pub fn set_plan_for(&self, tier: impl Into<Tier>, plan: Plan) -> Result<(), Invalid> {
        self.change_plan(&Whose::Tier(tier.into()), plan)
    }

    /// Changes the plan of one client, or gives it one of its own; as [`set_plan`](Self::set_plan).
    ///
    /// # Errors
    /// As of [`set_plan`](Self::set_plan).
    ///
    /// ```
    /// # use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let own = Plan::new("acme").limit(Quota::requests(10_000).per(Period::hour()));
    /// quotas.set_plan_of(&Client::named("acme"), own).unwrap();
    /// ```
    pub fn set_plan_of(&self, client: &Client, plan: Plan) -> Result<(), Invalid> {
        self.change_plan(&Whose::Client(client.digest()), plan)
    }

    /// Takes a client's own plan away: that of its tier, or the usual one, holds again.
    ///
    /// ```
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.end_plan_of(&Client::named("acme"));
    /// ```
    pub fn end_plan_of(&self, client: &Client) {
        let _ = self.0.plans.try_replace(|plans| Ok::<_, Invalid>(plans.without(client.digest())));
    }

    /// What each limit would say to a request; charges nothing.
    ///
    /// Jobs are not looked at: a duplicate may be refused all the same.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Plan, QuotaLayer, RequestHead};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let request = http::Request::get("/query").body(()).unwrap();
    /// let explained = quotas.explain(&RequestHead::of(&request)).await;
    /// assert!(explained.refusal.is_none());
    /// assert!(explained.limits.iter().all(|limit| limit.passes));
    /// # });
    /// ```
    pub async fn explain(&self, request: &RequestHead<'_>) -> Explained {
        let client = match self.0.client(request) {
            Ok(Some(client)) => client,
            Ok(None) => return Explained { client: None, limits: Vec::new(), refusal: None },
            Err(refusal) => return Explained { client: None, limits: Vec::new(), refusal: Some(refusal) },
        };
        let (now, offer) = (self.0.now(), self.offer(&client));
        let asked = offer.asked(request, &self.0.settings);
        let amounts = asked.amounts(&offer).into_owned();
        let account = Account { client: &client, plan: &offer.plan, now };
        let usage = self.0.store.usage(&account).await;
        let no = self.0.store.check(&account, &amounts).await.err();
        let violated = |name: &crate::PolicyName| match &no {
            Some(No::Limits(violations)) => violations.iter().any(|violation| violation.name == *name),
            _ => false,
        };
        let explain = |usage: LimitUsage| ExplainedLimit {
            asked: amounts.of(&usage.kind),
            passes: !violated(&usage.name),
            usage,
        };
        let limits = usage.limits.into_iter().map(explain).collect();
        let refusal = no.map(|no| self.0.refusal(&offer, &client, Refused { no, shared: false }, now));
        Explained { client: Some(client), limits, refusal }
    }

    /// How many clients have an account; idle ones are forgotten in the background.
    ///
    /// ```
    /// # use tollgate::{Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// assert_eq!(quotas.live_clients(), 0);
    /// ```
    #[must_use]
    pub fn live_clients(&self) -> usize {
        self.0.store.population().0
    }

    /// How many clients could have an account at once.
    ///
    /// ```
    /// # use tollgate::{Plan, QuotaLayer};
    /// let quotas = QuotaLayer::new(Plan::standard()).max_clients(10_000).handle();
    /// assert_eq!(quotas.max_clients(), 10_000);
    /// ```
    #[must_use]
    pub fn max_clients(&self) -> usize {
        self.0.store.population().1
    }

    /// The client of all requests that name none.
    ///
    /// ```
    /// # use tollgate::{Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// assert_eq!(quotas.anonymous().name().unwrap().to_string(), "anonymous");
    /// ```
    #[must_use]
    pub fn anonymous(&self) -> Client {
        anonymous()
    }

    /// What these accounts make clients with.
    ///
    /// ```
    /// # use tollgate::{Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let session = quotas.digester().secret("session", b"s3cret");
    /// ```
    #[must_use]
    pub fn digester(&self) -> &Digester {
        self.0.digester()
    }

    async fn admit(
        &self,
        client: &Client,
        amounts: &Amounts,
        reserve: bool,
        open: bool,
    ) -> Result<Reservation, Refusal> {
        let (tracker, now, offer) = (&self.0, self.0.now(), self.offer(client));
        let account = Account { client, plan: &offer.plan, now };
        let ask = Ask { amounts, reserve, lasting: false, open, job: None };
        let policy = &tracker.terms.name;
        match tracker.store.admit(&Order { account, ask, told: false, usage: false }).await {
            Ok(admission) => {
                tracker.tell(&admission);
                tracker.terms.audience.tell(&Event::Admitted { policy });
                Ok(Reservation::new(tracker, admission.receipt))
            }
            Err(refused) => {
                let refusal = tracker.refusal(&offer, client, refused, now);
                tracker.terms.audience.tell(&Event::Refused { refusal: &refusal, shadow: false });
                Err(refusal)
            }
        }
    }

    async fn reset_some(&self, client: &Client, limit: Option<&str>) -> Result<(), Invalid> {
        let (now, offer) = (self.0.now(), self.offer(client));
        self.0.store.reset(&Account { client, plan: &offer.plan, now }, limit).await
    }

    fn change_plan(&self, whose: &Whose, plan: Plan) -> Result<(), Invalid> {
        self.0.plans.try_replace(|plans| plans.with(whose, plan, &self.0.settings))
    }

    fn offer(&self, client: &Client) -> Arc<Offer> {
        Arc::clone(self.0.plans.present().of(client))
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quotas").field("name", &self.0.terms.name).finish_non_exhaustive()
    }
}
