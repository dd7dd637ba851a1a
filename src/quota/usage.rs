//! Usage of the limits of a client.

use std::time::SystemTime;

use crate::kind::Kind;
use crate::policy_name::PolicyName;

/// Usage of one limit by a client.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
///
/// let plan = Plan::new("free").limit(Quota::requests(200).per(Period::hour()));
/// let quotas = QuotaLayer::new(plan).handle();
/// let alice = Client::named("alice");
/// quotas.record(&alice, ("requests", 50)).await.unwrap();
/// let usage = quotas.usage(&alice).await.unwrap();
/// let hourly = usage.get("requests_per_hour").unwrap();
/// assert_eq!((hourly.used, hourly.limit, hourly.remaining), (50, 200, 150));
/// assert!(!hourly.is_exceeded());
/// assert_eq!(hourly.percentage(), 25.0);
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitUsage {
    /// The limit's name.
    pub name: PolicyName,
    /// Kind that it counts.
    pub kind: Kind,
    /// Size of the limit in this window, grants included.
    pub limit: u64,
    /// Used amount; of requests in flight, the number being served.
    pub used: u64,
    /// Reserved amount, besides the used one.
    pub reserved: u64,
    /// Amount that is left.
    pub remaining: u64,
    /// When it starts again; `None` for requests at a time, and for a rolling period that has not begun.
    pub resets_at: Option<SystemTime>,
}

impl LimitUsage {
    /// Whether nothing is left.
    #[must_use]
    pub const fn is_exceeded(&self) -> bool {
        self.remaining == 0
    }

    /// Returns the used and reserved amount in percent of the limit; above 100 if more was recorded than there was.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a percentage is for people")]
    pub fn percentage(&self) -> f64 {
        self.used.saturating_add(self.reserved) as f64 * 100.0 / self.limit.max(1) as f64
    }
}

/// Usage of all limits of the plan of a client.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, Plan, QuotaLayer};
/// let quotas = QuotaLayer::new(Plan::standard()).accept_unverified().handle();
/// for limit in quotas.usage(&Client::named("alice")).await.unwrap().limits {
///     println!("{}: {} of {}", limit.name, limit.used, limit.limit);
/// }
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// The plan that the client has.
    pub plan: PolicyName,
    /// The plan's number.
    pub version: u64,
    /// Each limit, in the order of the plan; that of requests at a time is the last.
    pub limits: Vec<LimitUsage>,
}

impl Usage {
    /// The limit of this name.
    ///
    /// ```
    /// # fn takes(usage: &tollgate::Usage) {
    /// if let Some(daily) = usage.get("requests_per_day") {
    ///     println!("{} left today", daily.remaining);
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&LimitUsage> {
        self.limits.iter().find(|limit| limit.name.as_str() == name)
    }

    /// The limits of one kind.
    ///
    /// ```
    /// # fn takes(usage: &tollgate::Usage) {
    /// for limit in usage.kind(&tollgate::Kind::Requests) {
    ///     println!("{}: {} left", limit.name, limit.remaining);
    /// }
    /// # }
    /// ```
    pub fn kind(&self, kind: &Kind) -> impl Iterator<Item = &LimitUsage> {
        self.limits.iter().filter(move |limit| limit.kind == *kind)
    }
}
