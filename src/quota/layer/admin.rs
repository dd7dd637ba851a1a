//! Changes by operators: resets, grants and plans.

use super::{active_plan::ActivePlan, error::QuotaError, handle::Quotas};
use crate::{
    error::ConfigError,
    identity::{Client, Tier},
    quota::{Grant, GrantId, Plan},
};

impl Quotas {
    /// Resets a client's counters of this limit name or kind to zero. A charge in flight still belongs to the old
    /// counter.
    ///
    /// # Errors
    /// If the client's plan has no such limit, or the store does not answer.
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
    pub async fn reset(&self, client: &Client, limit: &str) -> Result<(), QuotaError> {
        Ok(self.call(client, |store, account| store.reset(account, Some(limit))).await?)
    }

    /// Resets all counters of a client to zero. A charge in flight still belongs to the old counters.
    ///
    /// # Errors
    /// If the store does not answer; memory always does.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// quotas.reset_all(&Client::named("alice")).await.unwrap();
    /// # });
    /// ```
    pub async fn reset_all(&self, client: &Client) -> Result<(), QuotaError> {
        Ok(self.call(client, |store, account| store.reset(account, None)).await?)
    }

    /// Raises a limit of a client until the grant ends.
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

    /// Ends a grant early; returns false if the client has no grant of this id. Amounts that it covered stay covered.
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
