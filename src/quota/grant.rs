//! Grants: temporary raises of a limit.

use std::time::SystemTime;

use super::MOST;
use crate::{error::ConfigError, time::from_1970};

/// Temporary raise of a limit, with its approver and reason.
///
/// It covers only usage above the limit. Of several grants, the one that ends first is used first.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate::Grant;
///
/// let tomorrow = SystemTime::now() + Duration::from_secs(86_400);
/// let grant = Grant::new("requests_per_day", 500, tomorrow).approved_by("M. Okafor").because("launch day");
/// assert_eq!(grant.amount(), 500);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    limit: String,
    amount: u64,
    until: SystemTime,
    approver: String,
    reason: String,
}

impl Grant {
    /// Raises the limit of this name by `amount` until `until`.
    ///
    /// Stores hold no time after 2554-07-21, and a later end is stored as that day. So 9999-12-31 may stand for a grant
    /// without an end.
    ///
    /// # Panics
    /// If `amount` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// let grant = tollgate::Grant::new("requests_per_day", 500, SystemTime::now() + Duration::from_secs(60));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(limit: &str, amount: u64, until: SystemTime) -> Self {
        ConfigError::or_panic(Self::try_new(limit, amount, until))
    }

    /// [`new`](Self::new) for input at run time.
    ///
    /// # Errors
    /// If `amount` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// let error = tollgate::Grant::try_new("requests_per_day", 0, SystemTime::now()).unwrap_err();
    /// assert_eq!(error.to_string(), "amount of a grant must be from 1 to 2^53 - 1, got 0");
    /// ```
    pub fn try_new(limit: &str, amount: u64, until: SystemTime) -> Result<Self, ConfigError> {
        if !(1..=MOST).contains(&amount) {
            return Err(ConfigError::new("amount of a grant", "be from 1 to 2^53 - 1", amount));
        }
        let until = until.min(from_1970(u64::MAX));
        Ok(Self { limit: limit.to_owned(), amount, until, approver: String::new(), reason: String::new() })
    }

    /// Sets the approver.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # let grant = tollgate::Grant::new("requests_per_day", 500, SystemTime::now());
    /// assert_eq!(grant.approved_by("M. Okafor").approver(), "M. Okafor");
    /// ```
    #[must_use]
    pub fn approved_by(self, approver: impl Into<String>) -> Self {
        Self { approver: approver.into(), ..self }
    }

    /// Sets the reason.
    ///
    /// ```
    /// # use std::time::SystemTime;
    /// # let grant = tollgate::Grant::new("requests_per_day", 500, SystemTime::now());
    /// assert_eq!(grant.because("launch day").reason(), "launch day");
    /// ```
    #[must_use]
    pub fn because(self, reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), ..self }
    }

    /// Returns the name of the limit that the grant raises.
    #[must_use]
    pub fn limit(&self) -> &str {
        &self.limit
    }

    /// Returns the amount by which the grant raises the limit.
    #[must_use]
    pub const fn amount(&self) -> u64 {
        self.amount
    }

    /// Returns the end of the grant, at the latest 2554-07-21.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    /// let grant = tollgate::Grant::new("requests_per_day", 500, at(253_402_300_799)); // 9999-12-31
    /// assert!(grant.until() > at(18_446_700_000) && grant.until() < at(18_446_744_074));
    /// ```
    #[must_use]
    pub const fn until(&self) -> SystemTime {
        self.until
    }

    /// Returns the approver; empty if none is given.
    #[must_use]
    pub fn approver(&self) -> &str {
        &self.approver
    }

    /// Returns the reason; empty if none is given.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Id of a client's grant, by which it can be revoked.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use std::time::{Duration, SystemTime};
/// use tollgate::{Client, Grant, Plan, QuotaLayer};
///
/// let quotas = QuotaLayer::new(Plan::standard()).accept_unverified().handle();
/// let alice = Client::named("alice");
/// let grant = Grant::new("requests_per_day", 500, SystemTime::now() + Duration::from_secs(60));
/// let id = quotas.grant(&alice, grant).await.unwrap();
/// assert!(quotas.revoke(&alice, id).await.unwrap());
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GrantId(pub(crate) u64);

/// A grant that has not ended, and the amount of it that is used.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// # use std::time::{Duration, SystemTime};
/// # use tollgate::{Client, Grant, Plan, QuotaLayer};
/// # let quotas = QuotaLayer::new(Plan::standard()).accept_unverified().handle();
/// # let alice = Client::named("alice");
/// # let grant = Grant::new("requests_per_day", 500, SystemTime::now() + Duration::from_secs(60));
/// quotas.grant(&alice, grant).await.unwrap();
/// assert_eq!(quotas.grants(&alice).await.unwrap()[0].used, 0);
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActiveGrant {
    /// Id of the grant.
    pub id: GrantId,
    /// The grant.
    pub grant: Grant,
    /// Amount of it that is used.
    pub used: u64,
}
