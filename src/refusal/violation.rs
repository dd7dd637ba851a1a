//! A limit that stands in the way.

use std::time::Duration;

use crate::kind::Kind;
use crate::policy_name::PolicyName;

/// A limit that a refused request would have gone past.
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
    /// The limit's name.
    pub name: PolicyName,
    /// What it counts.
    pub kind: Kind,
    /// How much there is, grants included.
    pub limit: u64,
    /// How much of it is used and reserved.
    pub current: u64,
    /// How long until there is enough of it at the latest; `None` when the request asks for more than there ever is.
    pub wait: Option<Duration>,
}
