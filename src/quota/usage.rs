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
    /// Name of the limit.
    pub name: PolicyName,
    /// Kind that the limit counts.
    pub kind: Kind,
    /// Size of the limit in this window, grants included.
    pub limit: u64,
    /// Used amount; for a concurrency limit, the number of requests in flight.
    pub used: u64,
    /// Reserved amount, not included in `used`.
    pub reserved: u64,
    /// Remaining amount.
    pub remaining: u64,
    /// End of the window; `None` for a concurrency limit, and for a rolling period that has not begun.
    pub resets_at: Option<SystemTime>,
}

impl LimitUsage {
    /// Returns whether nothing remains.
    #[must_use]
    pub const fn is_exceeded(&self) -> bool {
        self.remaining == 0
    }

    /// Returns the used and reserved amount in percent of the limit; above 100 if usage was recorded beyond it.
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
    /// Plan of the client.
    pub plan: PolicyName,
    /// Version of the plan.
    pub version: u64,
    /// Usage of each limit, in the order of the plan; the concurrency limit is the last.
    pub limits: Vec<LimitUsage>,
}

impl Usage {
    /// Returns the usage of the limit of this name.
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

    /// Returns the usage of the limits of one kind.
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
