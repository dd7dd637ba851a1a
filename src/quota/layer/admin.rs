//! Reports about accounts, and changes by operators: resets, grants and plans.

use super::{active_plan::ActivePlan, error::QuotaError, handle::Quotas, idle::let_others_run};
use crate::{
    error::ConfigError,
    head::RequestHead,
    identity::{Client, Tier},
    policy_name::PolicyName,
    quota::{
        ActiveGrant, Grant, GrantId, LimitUsage, Plan, Usage,
        account::Denial,
        store::{AccountContext, AdmitError, Bookmark},
    },
    refusal::Refusal,
};

/// Usage of some clients, and the start of the next page.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas) -> Result<(), tollgate::QuotaError> {
/// let mut from = None;
/// loop {
///     let page = quotas.usage_page(from, 100).await?;
///     for (client, usage) in &page.clients {
///         println!("{client:?}: {} limits", usage.limits.len());
///     }
///     from = page.next;
///     if from.is_none() {
///         break;
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UsagePage {
    /// The clients of this page.
    pub clients: Vec<(Client, Usage)>,
    /// Start of the next page; `None` after the last.
    pub next: Option<Cursor>,
}

/// Position in the list of all clients. For accounts other than those that returned it, it is the end.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas) -> Result<(), tollgate::QuotaError> {
/// let first = quotas.usage_page(None, 100).await?;
/// let second = quotas.usage_page(first.next, 100).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cursor(Bookmark);

/// Explanation of the decision on a request.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas, request: &http::Request<String>) -> Result<(), tollgate::QuotaError> {
/// let explained = quotas.explain(&tollgate::RequestHead::of(request)).await?;
/// for limit in &explained.limits {
///     println!("{}: asks for {:?} of {}", limit.usage.name, limit.asked, limit.usage.remaining);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Client of the account; `None` if the request is not charged.
    pub client: Option<Client>,
    /// Each limit of the client's plan.
    pub limits: Vec<LimitExplanation>,
    /// The refusal that the request would get.
    pub refusal: Option<Refusal>,
}

/// Decision of one limit on a request.
///
/// ```
/// # fn takes(limit: &tollgate::LimitExplanation) {
/// println!("{}: {}", limit.usage.name, if limit.passes { "yes" } else { "no" });
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LimitExplanation {
    /// Usage of the limit.
    pub usage: LimitUsage,
    /// Amount that the request asks for; `None` if the limit does not apply to it.
    pub asked: Option<u64>,
    /// Whether the limit lets the request pass.
    pub passes: bool,
}

impl Quotas {
    /// Returns the usage of each limit of the plan of a client.
    ///
    /// # Errors
    /// If the store does not answer; memory always does.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let usage = quotas.usage(&Client::named("alice")).await.unwrap();
    /// assert_eq!(usage.get("queries_per_day").unwrap().remaining, 43_200);
    /// # });
    /// ```
    pub async fn usage(&self, client: &Client) -> Result<Usage, QuotaError> {
        Ok(self.call(client, |store, account| store.usage(account)).await?)
    }

    /// Returns the usage of all clients that have an account, one page at a time. Clients whose account is created or
    /// forgotten meanwhile may be missed.
    ///
    /// A request waits for a page at most while a few accounts are read, and other tasks run while a large page is
    /// collected.
    ///
    /// # Cancel safety
    /// If the future is dropped, nothing changes.
    ///
    /// # Errors
    /// If the store does not answer; memory always does.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.record(&Client::named("alice"), ("queries", 1)).await.unwrap();
    /// assert_eq!(quotas.usage_page(None, 100).await.unwrap().clients.len(), 1);
    /// # });
    /// ```
    pub async fn usage_page(&self, from: Option<Cursor>, most: usize) -> Result<UsagePage, QuotaError> {
        let (common, most) = (&self.0.common, most.max(1));
        let (mut clients, mut from) = (Vec::new(), from.map(|Cursor(at)| at));
        loop {
            let left = most - clients.len();
            let (some, next) = common.store.page(from.as_ref(), left, self.0.plan_of(), common.now()).await?;
            clients.extend(some);
            if next.is_none() || clients.len() >= most {
                return Ok(UsagePage { clients, next: next.map(Cursor) });
            }
            from = next;
            let_others_run().await;
        }
    }

    /// Returns the grants of a client that have not ended, the earliest end first.
    ///
    /// # Errors
    /// If the store does not answer; memory always does.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// assert!(quotas.grants(&Client::named("alice")).await.unwrap().is_empty());
    /// # });
    /// ```
    pub async fn grants(&self, client: &Client) -> Result<Vec<ActiveGrant>, QuotaError> {
        Ok(self.call(client, |store, account| store.grants(account)).await?)
    }

    /// Explains the decision on a request, charges nothing and emits no event.
    ///
    /// Jobs are not checked, so that a duplicate may still be refused.
    ///
    /// # Errors
    /// If the store does not answer; memory always does.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Plan, QuotaLayer, RequestHead};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let peer: std::net::SocketAddr = "192.0.2.7:4711".parse().unwrap();
    /// let request = http::Request::get("/query").extension(peer).body(()).unwrap();
    /// let explained = quotas.explain(&RequestHead::of(&request)).await.unwrap();
    /// assert!(explained.refusal.is_none());
    /// assert!(explained.limits.iter().all(|limit| limit.passes));
    /// # });
    /// ```
    pub async fn explain(&self, request: &RequestHead<'_>) -> Result<Explanation, QuotaError> {
        let client = match self.0.clients.explain(request, &self.0.common.context) {
            Ok(Some(client)) => client,
            free => return Ok(Explanation { client: None, limits: Vec::new(), refusal: free.err() }),
        };
        let (now, active) = (self.0.common.now(), self.0.active_plan(&client));
        let asked = active.asked(request);
        let amounts = asked.amounts(&active).into_owned();
        let account = AccountContext { client: &client, plan: &active.plan, now };
        let usage = self.0.common.store.usage(&account).await?;
        let refused = match self.0.common.store.check(&account, &amounts).await {
            Ok(()) => None,
            Err(AdmitError::Store(trouble)) => return Err(trouble.into()),
            Err(refused) => Some(refused),
        };
        let violated = |name: &PolicyName| match &refused {
            Some(AdmitError::Denied { denial: Denial::Limits(violations), .. }) => {
                violations.iter().any(|violation| violation.name == *name)
            }
            _ => false,
        };
        let explain = |usage: LimitUsage| LimitExplanation {
            asked: amounts.get(&usage.kind),
            passes: !violated(&usage.name),
            usage,
        };
        let limits = usage.limits.into_iter().map(explain).collect();
        let refusal = refused.map(|refused| self.0.refusal(&active, &client, refused));
        Ok(Explanation { client: Some(client), limits, refusal })
    }

    /// Returns the number of clients that have an account; requests forget idle ones in passing, and
    /// [`forget_idle`](Self::forget_idle) all of them.
    #[must_use]
    pub fn live_clients(&self) -> usize {
        self.0.common.store.population().0
    }

    /// Returns the number of clients that could have an account at once.
    #[must_use]
    pub fn max_clients(&self) -> usize {
        self.0.common.store.population().1
    }

    /// Resets a client's counters of this limit name or kind to zero. A charge in flight still belongs to the old
    /// counter.
    ///
    /// # Errors
    /// If the client's plan has no such limit, the client has no account
    /// ([`UnknownAccount`](QuotaError::UnknownAccount)), or the store does not answer.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer, QuotaError};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// quotas.charge(&alice, ("queries", 20)).await.unwrap();
    /// quotas.reset(&alice, "queries_per_hour").await.unwrap();
    /// quotas.reset(&alice, "queries").await.unwrap(); // per hour and per day
    /// assert!(quotas.reset(&alice, "querys").await.is_err());
    /// let typo = Client::named("alcie");
    /// assert_eq!(quotas.reset(&typo, "queries").await, Err(QuotaError::UnknownAccount));
    /// # });
    /// ```
    pub async fn reset(&self, client: &Client, limit: &str) -> Result<(), QuotaError> {
        Ok(self.call(client, |store, account| store.reset(account, Some(limit))).await?)
    }

    /// Resets all counters of a client to zero. A charge in flight still belongs to the old counters.
    ///
    /// # Errors
    /// If the client has no account ([`UnknownAccount`](QuotaError::UnknownAccount)), or the store does not answer.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaError, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// # quotas.charge(&Client::named("alice"), ("queries", 20)).await.unwrap();
    /// match quotas.reset_all(&Client::named("alice")).await {
    ///     Ok(()) | Err(QuotaError::UnknownAccount) => {} // nothing is used now, whether or not something was
    ///     Err(error) => panic!("{error}"),
    /// }
    /// # });
    /// ```
    pub async fn reset_all(&self, client: &Client) -> Result<(), QuotaError> {
        Ok(self.call(client, |store, account| store.reset(account, None)).await?)
    }

    /// Raises a limit of a client until the grant ends. A client that never came gets an account, so that the grant is
    /// listed and counts from the first request on.
    ///
    /// Usage above the limit uses the grant up, as under the plan of the client's last admitted request: a refusal in a
    /// ledger and a [`check`](Self::check) write nothing. The waits that they tell count on what will be left of the grant
    /// then.
    ///
    /// # Errors
    /// If the client's plan has no limit of this name, the end has passed, there is no room for another account, or the
    /// store does not answer.
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
    /// assert_eq!(quotas.usage(&alice).await.unwrap().get("queries_per_day").unwrap().limit, 43_700);
    /// # });
    /// ```
    pub async fn grant(&self, client: &Client, grant: Grant) -> Result<GrantId, QuotaError> {
        Ok(self.call(client, |store, account| store.grant(account, grant)).await?)
    }

    /// Ends a grant early; returns false if the client has no grant of this id, or no account. Amounts that it covered stay covered.
    ///
    /// # Errors
    /// If the store does not answer; memory always does.
    ///
    /// ```
    /// # async fn takes(quotas: &tollgate::Quotas, alice: &tollgate::Client) -> Result<(), tollgate::QuotaError> {
    /// for granted in quotas.grants(alice).await? {
    ///     quotas.revoke(alice, granted.id).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn revoke(&self, client: &Client, id: GrantId) -> Result<bool, QuotaError> {
        Ok(self.call(client, |store, account| store.revoke(account, id)).await?)
    }

    /// Changes the usual plan, for all clients without a plan of their own, from their next request on.
    ///
    /// Used amounts are carried over to the limit of the same name and kind, unless the plan is
    /// [`starting_fresh`](Plan::starting_fresh).
    ///
    /// # Errors
    /// If the plan's version is not above that of the active plan, or the plan has a limit of a day or longer and
    /// identities are not verified.
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
    pub fn set_plan(&self, plan: Plan) -> Result<(), ConfigError> {
        self.change_plan(None, plan)
    }

    /// Sets or replaces the plan of a tier; otherwise as [`set_plan`](Self::set_plan).
    ///
    /// # Errors
    /// As [`set_plan`](Self::set_plan).
    ///
    /// ```
    /// # use tollgate::{Period, Plan, Quota, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.set_tier_plan("pro", Plan::new("pro").limit(Quota::requests(10_000).per(Period::hour()))).unwrap();
    /// ```
    pub fn set_tier_plan(&self, tier: impl Into<Tier>, plan: Plan) -> Result<(), ConfigError> {
        self.change_plan(Some(tier.into()), plan)
    }

    /// Sets or replaces the plan of one client; otherwise as [`set_plan`](Self::set_plan).
    ///
    /// # Errors
    /// As [`set_plan`](Self::set_plan).
    ///
    /// ```
    /// # use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let own = Plan::new("acme").limit(Quota::requests(10_000).per(Period::hour()));
    /// quotas.set_client_plan(&Client::named("acme"), own).unwrap();
    /// ```
    pub fn set_client_plan(&self, client: &Client, plan: Plan) -> Result<(), ConfigError> {
        self.0.common.settings.check(&plan)?;
        self.0.client_plans.set(client.digest(), plan, &self.0.common)
    }

    /// Removes a client's own plan; the plan of its tier or the usual plan applies again.
    ///
    /// ```
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.remove_client_plan(&Client::named("acme"));
    /// ```
    pub fn remove_client_plan(&self, client: &Client) {
        self.0.client_plans.remove(client.digest());
    }

    fn change_plan(&self, tier: Option<Tier>, plan: Plan) -> Result<(), ConfigError> {
        self.0.common.settings.check(&plan)?;
        self.0.plans.try_replace(|plans| {
            let next = ActivePlan::next(plans.get(tier.as_ref()).map(|old| &**old), plan, &self.0.common)?;
            let mut plans = plans.clone();
            plans.set(tier, next);
            Ok(plans)
        })
    }
}
