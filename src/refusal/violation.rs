//! Violated limits of a plan.

use std::time::Duration;

use crate::{kind::Kind, policy_name::PolicyName};

/// Limit that a refused request would have exceeded.
///
/// The limits of a plan are decided together, so a [`Refusal`](crate::Refusal) has one violation for each limit that
/// does not suffice. Its own [`limit`](crate::Refusal::limit) and wait are those of the violation with the longest
/// wait.
///
/// A problem document lists the names of all violations, and a gRPC status has a `google.rpc.QuotaFailure` for each.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
///
/// let plan = Plan::new("free").limit(Quota::requests(1).per(Period::hour())).limit(Quota::units("tokens", 5).per(Period::hour()));
/// let quotas = QuotaLayer::new(plan).handle();
/// let alice = Client::named("alice");
/// quotas.record(&alice, [("requests", 1), ("tokens", 5)]).await.unwrap();
/// let refusal = quotas.check(&alice, [("requests", 1), ("tokens", 1)]).await.unwrap_err();
/// let names: Vec<_> = refusal.violations().iter().map(|violation| violation.name.as_str()).collect();
/// assert_eq!(names, ["requests_per_hour", "tokens_per_hour"]);
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Name of the limit.
    pub name: PolicyName,
    /// Kind of the amounts that it counts.
    pub kind: Kind,
    /// Limit, including grants.
    pub limit: u64,
    /// Used and reserved amount.
    pub current: u64,
    /// Longest time until enough of it is free; `None` if the request asks for more than the whole limit.
    pub wait: Option<Duration>,
}
