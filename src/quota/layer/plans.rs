//! The plans in force, and their replacement as a whole.

use super::{active_plan::ActivePlan, handle::Quotas};
use crate::{
    error::ConfigError,
    gate::Tiered,
    identity::{Client, Tier},
    quota::Plan,
};

impl Quotas {
    /// Replaces the usual plan and the plans of all tiers at once, as after a change of a configuration file. Tiers that
    /// are not listed lose their plan, and their clients have the usual one. Plans of single clients stay.
    ///
    /// Used amounts are carried over as in [`set_plan`](Self::set_plan). No request is decided by a part of the new
    /// plans.
    ///
    /// # Errors
    /// As [`set_plan`](Self::set_plan), and if a tier is listed twice. Then no plan is replaced.
    ///
    /// ```
    /// use tollgate::{Period, Plan, Quota, QuotaLayer};
    ///
    /// let plan = |name: &str, most| Plan::new(name).limit(Quota::requests(most).per(Period::hour()));
    /// let quotas = QuotaLayer::new(plan("free", 100)).tier_plan("trial", plan("trial", 500)).handle();
    /// quotas.set_plans(plan("free", 50), [("pro", plan("pro", 10_000)), ("team", plan("team", 2_000))]).unwrap();
    /// let tiers: Vec<_> = quotas.tier_plans().into_iter().map(|(tier, _)| tier.as_str().to_owned()).collect();
    /// assert_eq!(tiers, ["pro", "team"]);
    /// ```
    pub fn set_plans<T: Into<Tier>>(
        &self,
        usual: Plan,
        tiers: impl IntoIterator<Item = (T, Plan)>,
    ) -> Result<(), ConfigError> {
        let (common, settings) = (&self.0.common, &self.0.common.settings);
        let tiers: Vec<(Tier, Plan)> = tiers.into_iter().map(|(tier, plan)| (tier.into(), plan)).collect();
        settings.check(&usual)?;
        for (at, (tier, plan)) in tiers.iter().enumerate() {
            settings.check(plan)?;
            let is_first = tiers[..at].iter().all(|(earlier, _)| earlier != tier);
            ConfigError::require(
                is_first,
                "tier of a plan",
                "be listed once",
                format_args!("{:?} twice", tier.as_str()),
            )?;
        }
        self.0.plans.try_replace(|old| {
            let present = |tier: Option<&Tier>| old.get(tier).map(|plan| &**plan);
            let next = |tier: Option<&Tier>, plan| ActivePlan::next(present(tier), plan, common);
            // All versions, before anything changes.
            ActivePlan::check_version(present(None), &usual)?;
            tiers.iter().try_for_each(|(tier, plan)| ActivePlan::check_version(present(Some(tier)), plan).map(drop))?;
            // All plans that end, before one begins: a plan that moves to another tier gets a higher version.
            let stays = |tier: &Tier, active: &ActivePlan| {
                tiers.iter().any(|(listed, plan)| listed == tier && plan.name() == active.plan.name())
            };
            old.tiers().filter(|(tier, active)| !stays(tier, active)).for_each(|(_, active)| active.retire());
            if old.of(None).plan.name() != usual.name() {
                old.of(None).retire();
            }
            let mut plans = Tiered::new(next(None, usual)?);
            for (tier, plan) in tiers {
                let plan = next(Some(&tier), plan)?;
                plans.set(Some(tier), plan);
            }
            Ok(plans)
        })
    }

    /// Removes the plan of a tier, whose clients have the usual plan from then on; returns whether there was one.
    ///
    /// ```
    /// # use tollgate::{Period, Plan, Quota, QuotaLayer};
    /// let pro = Plan::new("pro").limit(Quota::requests(10_000).per(Period::hour()));
    /// let quotas = QuotaLayer::new(Plan::standard()).tier_plan("pro", pro).handle();
    /// assert!(quotas.remove_tier_plan("pro"));
    /// assert!(!quotas.remove_tier_plan("pro"));
    /// ```
    pub fn remove_tier_plan(&self, tier: impl Into<Tier>) -> bool {
        let (tier, mut had) = (tier.into(), false);
        self.0.plans.replace(|plans| {
            plans.get(Some(&tier)).into_iter().for_each(|plan| plan.retire());
            let mut plans = plans.clone();
            had = plans.remove(&tier);
            plans
        });
        had
    }

    /// Returns the usual plan in force, with its version.
    ///
    /// ```
    /// # use tollgate::{Plan, QuotaLayer};
    /// let quotas = QuotaLayer::new(Plan::standard().numbered(3)).handle();
    /// assert_eq!(quotas.plan().version(), 3);
    /// ```
    #[must_use]
    pub fn plan(&self) -> Plan {
        self.0.plans.present().of(None).plan.as_ref().clone()
    }

    /// Returns the plans of tiers in force.
    #[must_use]
    pub fn tier_plans(&self) -> Vec<(Tier, Plan)> {
        let plans = self.0.plans.present();
        plans.tiers().map(|(tier, active)| (tier.clone(), active.plan.as_ref().clone())).collect()
    }

    /// Returns the plan that a client has of its own, if it has one.
    ///
    /// ```
    /// # use tollgate::{Client, Plan, QuotaLayer};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let acme = Client::named("acme");
    /// quotas.set_client_plan(&acme, Plan::standard()).unwrap();
    /// assert_eq!(quotas.client_plan(&acme).unwrap().name().as_str(), "standard");
    /// ```
    #[must_use]
    pub fn client_plan(&self, client: &Client) -> Option<Plan> {
        self.0.client_plans.get(client).map(|active| active.plan.as_ref().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        quota::{Quota, QuotaLayer},
        time::{FakeClock, Period},
    };

    fn plan(name: &str, most: u64) -> Plan {
        Plan::new(name).limit(Quota::requests(most).per(Period::hour()))
    }

    /// Returns the names and versions of the plans in force, the usual one first.
    fn in_force(quotas: &Quotas) -> Vec<(String, u64)> {
        let usual = ("-".to_owned(), quotas.plan().version());
        let tiers = quotas.tier_plans().into_iter().map(|(tier, plan)| (tier.as_str().to_owned(), plan.version()));
        std::iter::once(usual).chain(tiers).collect()
    }

    fn named(all: &[(&str, u64)]) -> Vec<(String, u64)> {
        all.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    }

    #[test]
    fn plans_are_replaced_as_a_whole() {
        let quotas = QuotaLayer::new(plan("free", 10)).tier_plan("pro", plan("pro", 20)).handle();
        let before = in_force(&quotas);
        quotas.set_plans(plan("free", 11), [("team", plan("team", 30)), ("pro", plan("pro", 21))]).unwrap();
        let after = in_force(&quotas);
        assert_eq!(after, named(&[("-", before[0].1 + 1), ("team", 1), ("pro", before[1].1 + 1)]));
        quotas.set_plans(plan("free", 12), [] as [(&str, Plan); 0]).unwrap();
        assert_eq!(in_force(&quotas), named(&[("-", after[0].1 + 1)]));
        assert_eq!(quotas.plan(), plan("free", 12).numbered(after[0].1 + 1));
    }

    #[test]
    fn version_goes_on_after_a_plan_was_removed() {
        let quotas = QuotaLayer::new(plan("free", 10)).handle();
        let pro = |most| plan("pro", most);
        quotas.set_tier_plan("pro", pro(20)).unwrap();
        quotas.set_tier_plan("pro", pro(21)).unwrap();
        assert!(quotas.remove_tier_plan("pro"));
        quotas.set_tier_plan("pro", pro(22)).unwrap();
        assert_eq!(quotas.tier_plans()[0].1.version(), 3, "removed");
        quotas.set_plans(plan("free", 10), [("paid", pro(23))]).unwrap();
        assert_eq!(quotas.tier_plans()[0].1.version(), 4, "not listed, and under another tier");
        quotas.set_tier_plan("paid", plan("other", 1)).unwrap();
        quotas.set_tier_plan("pro", pro(24)).unwrap();
        assert_eq!(quotas.tier_plans()[1].1.version(), 5, "replaced by a plan of another name");

        let (alice, bob) = (Client::named("alice"), Client::named("bob"));
        quotas.set_client_plan(&alice, plan("own", 1)).unwrap();
        quotas.set_client_plan(&bob, plan("own", 1)).unwrap();
        assert_eq!(quotas.client_plan(&bob).unwrap().version(), 1, "alice's is in force");
        quotas.remove_client_plan(&alice);
        quotas.set_client_plan(&alice, plan("own", 1)).unwrap();
        assert_eq!(quotas.client_plan(&alice).unwrap().version(), 2);
    }

    #[test]
    fn plans_that_change_places_get_higher_versions() {
        let quotas =
            QuotaLayer::new(plan("one", 10).numbered(3)).tier_plan("pro", plan("two", 20).numbered(7)).handle();
        quotas.set_plans(plan("two", 20), [("pro", plan("one", 10))]).unwrap();
        assert_eq!(in_force(&quotas), named(&[("-", 8), ("pro", 8)]), "of which one was 3, and the other 7");
        quotas.set_plans(plan("one", 10), [("team", plan("two", 20))]).unwrap();
        assert_eq!(in_force(&quotas), named(&[("-", 9), ("team", 9)]));
    }

    #[tokio::test]
    async fn plan_that_returns_starts_fresh_again() {
        let quotas = QuotaLayer::new(plan("free", 10)).clock(FakeClock::new()).handle();
        let alice = Client::named("alice").with_tier(Tier::from("pro"));
        let used = async || quotas.usage(&alice).await.unwrap().limits[0].used;
        for _ in 0..3 {
            quotas.record(&alice, ("requests", 5)).await.unwrap();
            quotas.set_tier_plan("pro", plan("pro", 20).starting_fresh()).unwrap();
            quotas.record(&alice, ("requests", 4)).await.unwrap();
            assert_eq!(used().await, 4);
            assert!(quotas.remove_tier_plan("pro"));
        }
    }

    #[tokio::test]
    async fn units_of_plans_that_were_refused_stay_unknown() {
        let quotas = QuotaLayer::new(plan("free", 10)).tier_plan("pro", plan("pro", 20).numbered(7)).handle();
        let usual = plan("free", 11).limit(Quota::units("pages", 5).per(Period::hour()));
        quotas.set_plans(usual, [("pro", plan("pro", 21).numbered(7))]).unwrap_err();
        let charged = quotas.charge(&Client::named("alice"), ("pages", 1)).await;
        assert_eq!(charged.unwrap_err().reason(), crate::refusal::Reason::UnknownUnit);
    }

    #[test]
    fn one_wrong_plan_leaves_all_in_force() {
        let quotas = QuotaLayer::new(plan("free", 10)).tier_plan("pro", plan("pro", 20).numbered(7)).handle();
        let before = in_force(&quotas);
        let stale = quotas.set_plans(plan("free", 11), [("pro", plan("pro", 21).numbered(7))]).unwrap_err();
        assert_eq!(stale.to_string(), "version of plan \"pro\" must be above 7, which is in force, got 7");
        let twice = quotas.set_plans(plan("free", 11), [("a", plan("a", 1)), ("a", plan("a", 2))]).unwrap_err();
        assert_eq!(twice.to_string(), "tier of a plan must be listed once, got \"a\" twice");
        assert_eq!(in_force(&quotas), before);
    }
}
