//! Plans: the limits of a class of clients.

use std::{fmt, sync::Arc, time::SystemTime};

use super::{Amounts, MOST, Quota};
use crate::kind::{Direction, Kind};
use crate::{
    error::ConfigError,
    policy_name::PolicyName,
    time::{Instant, Period, from_1970},
};

/// Limits of a class of clients, decided together: all are charged or none.
///
/// ```
/// use tollgate::{Period, Plan, Quota};
///
/// let free = Plan::new("free")
///     .limit(Quota::requests(3_600).per(Period::hour()))
///     .limit(Quota::requests(10_000).per(Period::day()))
///     .limit(Quota::bytes(1 << 30).per(Period::day()))
///     .limit(Quota::concurrent(5));
/// assert_eq!(free.limits().count(), 4);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    name: PolicyName,
    version: u64,
    pub(crate) warn_at: u8,
    starts_fresh: bool,
    counted: Vec<Limit>,
    concurrent: Option<Limit>,
}

/// A limit, with the name and the warning threshold that decisions use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) quota: Quota,
    pub(crate) name: PolicyName,
    /// Period in which it counts, as [`Period::key`] names it; empty for a concurrency limit.
    pub(crate) period_key: Arc<str>,
    pub(crate) limit: u64,
    /// Usage from which the client is warned.
    pub(crate) warn_from: u64,
}

impl Limit {
    fn new(quota: Quota, warn_at: u8) -> Self {
        let (name, limit) = (quota.name(), quota.limit());
        let period_key = quota.period().map_or_else(Arc::default, |period| period.key().into());
        Self { quota, name, period_key, limit, warn_from: 0 }.warning_at(warn_at)
    }

    fn warning_at(self, percent: u8) -> Self {
        let warn_from = (u128::from(self.limit) * u128::from(percent)).div_ceil(100);
        Self { warn_from: u64::try_from(warn_from).unwrap_or(u64::MAX), ..self }
    }

    /// Checks that `amount` can be counted on top of `taken`.
    pub(crate) fn check_sum(&self, taken: u64, amount: u64) -> Result<(), ConfigError> {
        if taken.checked_add(amount).is_some_and(|sum| sum <= MOST) {
            return Ok(());
        }
        let (what, must) =
            (format!("amount of {}", self.kind()), format!("leave the counter of {} at most 2^53 - 1", self.name));
        Err(ConfigError::new(&what, &must, format!("{amount} on top of {taken}")))
    }

    /// Returns the amount of this kind that a commit charges, if the counter cannot take in full what is `beyond` the
    /// estimate.
    pub(crate) fn too_large(&self, taken: u64, used: &Amounts, beyond: &Amounts) -> Option<u64> {
        let (used, beyond) = (used.get(self.kind())?, beyond.get(self.kind()).unwrap_or(0));
        (used > MOST || beyond > 0 && self.check_sum(taken, beyond).is_err()).then_some(used)
    }

    #[inline]
    pub(crate) fn kind(&self) -> &Kind {
        self.quota.kind()
    }

    /// Whether the other limit has the same name, kind and period, so that both count into one counter.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.is_named(other.name.as_str(), other.kind().as_str(), &other.period_key)
    }

    /// Whether the limit has this name, kind and period. An empty period, on either side, is that of any limit.
    pub(crate) fn is_named(&self, name: &str, kind: &str, period: &str) -> bool {
        let is_period = period.is_empty() || self.period_key.is_empty() || *self.period_key == *period;
        is_period && self.name.as_str() == name && self.kind().as_str() == kind
    }

    /// Whether the name or the kind of the limit is `word`.
    pub(crate) fn is_called(&self, word: &str) -> bool {
        self.name.as_str() == word || self.kind().as_str() == word
    }
}

/// Default warning threshold, in percent of the limit.
const WARN_AT: u8 = 90;

impl Plan {
    /// Creates a plan without limits, which admits everything.
    ///
    /// # Panics
    /// If `name` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// assert_eq!(tollgate::Plan::new("free").name().as_str(), "free");
    /// ```
    #[must_use]
    #[track_caller]
    pub fn new(name: &str) -> Self {
        ConfigError::or_panic(Self::try_new(name))
    }

    /// [`new`](Self::new) for input at run time.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// assert!(tollgate::Plan::try_new("two\nlines").is_err());
    /// ```
    pub fn try_new(name: &str) -> Result<Self, ConfigError> {
        let name = PolicyName::try_new(name)?;
        Ok(Self { name, version: 0, warn_at: WARN_AT, starts_fresh: false, counted: Vec::new(), concurrent: None })
    }

    /// Creates a plan for unknown clients of a database service.
    ///
    /// | limit | |
    /// |---|---|
    /// | `requests_per_hour` | 3,600 |
    /// | `requests_per_day` | 86,400 |
    /// | `queries_per_hour` | 1,800 |
    /// | `queries_per_day` | 43,200 |
    /// | `bytes_per_day` | 1 GiB, of requests and responses together |
    ///
    /// Queries are a unit of your own: the handler records them, or [`cost`](crate::QuotaLayer::cost) sets the amount
    /// of each request.
    ///
    /// ```
    /// use tollgate::{Plan, QuotaLayer};
    /// let layer = QuotaLayer::new(Plan::standard()).cost("queries", |request| (request.uri.path() == "/query").then_some(1));
    /// ```
    #[must_use]
    pub fn standard() -> Self {
        Self::new("standard")
            .limit(Quota::requests(3_600).per(Period::hour()))
            .limit(Quota::requests(86_400).per(Period::day()))
            .limit(Quota::units("queries", 1_800).per(Period::hour()))
            .limit(Quota::units("queries", 43_200).per(Period::day()))
            .limit(Quota::bytes(1 << 30).per(Period::day()))
    }

    /// Adds a limit.
    ///
    /// # Panics
    /// If the plan has a limit of this name, or another concurrency limit, or 64 limits.
    ///
    /// ```
    /// use tollgate::{Period, Plan, Quota};
    /// let plan = Plan::new("free").limit(Quota::requests(3_600).per(Period::hour()));
    /// ```
    #[must_use]
    #[track_caller]
    pub fn limit(self, quota: Quota) -> Self {
        ConfigError::or_panic(self.try_limit(quota))
    }

    /// [`limit`](Self::limit) for input at run time.
    ///
    /// # Errors
    /// If the plan has a limit of this name, or another concurrency limit, or 64 limits.
    ///
    /// ```
    /// use tollgate::{Period, Plan, Quota};
    /// let hourly = Quota::requests(3_600).per(Period::hour());
    /// let error = Plan::new("free").limit(hourly.clone()).try_limit(hourly).unwrap_err();
    /// assert_eq!(error.to_string(), "name of a limit must be unique in plan \"free\", got \"requests_per_hour\"");
    /// ```
    pub fn try_limit(mut self, quota: Quota) -> Result<Self, ConfigError> {
        let limit = Limit::new(quota, self.warn_at);
        if self.all().any(|known| known.name == limit.name) {
            let what = format_args!("be unique in plan {:?}", self.name).to_string();
            return Err(ConfigError::new("name of a limit", &what, format_args!("{:?}", limit.name)));
        }
        if self.all().count() == MOST_LIMITS {
            return Err(ConfigError::new(
                "limits of a plan",
                "be at most 64",
                format_args!("one more: {:?}", limit.name),
            ));
        }
        if limit.quota.period().is_some() {
            self.counted.push(limit);
        } else if self.concurrent.is_none() {
            self.concurrent = Some(limit);
        } else {
            let what = "be the only one of requests in flight in its plan";
            return Err(ConfigError::new("limit", what, format_args!("{:?}", limit.name)));
        }
        Ok(self)
    }

    /// Sets the warning threshold in percent of each limit; default 90, 0 never warns.
    ///
    /// # Panics
    /// If `percent` is above 100.
    ///
    /// ```
    /// let plan = tollgate::Plan::new("free").warn_at(80);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn warn_at(mut self, percent: u8) -> Self {
        if percent > 100 {
            panic!("{}", ConfigError::new("warning threshold", "be from 0 to 100 percent", percent));
        }
        self.warn_at = percent;
        for limit in &mut self.counted {
            *limit = limit.clone().warning_at(percent);
        }
        self
    }

    /// Sets the version of the plan, so that the nodes of a fleet agree on the newest; see
    /// [`set_plan`](crate::Quotas::set_plan). A plan without a version gets the one after the plan that it replaces.
    ///
    /// ```
    /// assert_eq!(tollgate::Plan::new("free").numbered(3).version(), 3);
    /// ```
    #[must_use]
    pub fn numbered(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Makes clients that had another plan start from zero under this one, once for each [version](Self::numbered). By
    /// default used amounts are carried over to the limit of the same name and kind.
    ///
    /// A version that returns later does not start fresh again, as long as it stayed in force for other clients or
    /// anything is counted that was counted before the client left it.
    ///
    /// ```
    /// let plan = tollgate::Plan::new("pro").starting_fresh();
    /// ```
    #[must_use]
    pub fn starting_fresh(self) -> Self {
        Self { starts_fresh: true, ..self }
    }

    /// Returns the name of the plan.
    #[must_use]
    pub const fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Returns the version of the plan; 0 if none was set.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the limits; the concurrency limit is the last.
    ///
    /// ```
    /// let names: Vec<_> = tollgate::Plan::standard().limits().map(|quota| quota.name().to_string()).collect();
    /// assert_eq!(names[0], "requests_per_hour");
    /// ```
    pub fn limits(&self) -> impl Iterator<Item = &Quota> {
        self.all().map(|limit| &limit.quota)
    }

    /// Sets the period of the limit that was added last, of which only the open window is known.
    #[allow(dead_code, reason = "only a ledger restores limits")]
    pub(crate) fn counted_as(mut self, period_key: Arc<str>) -> Self {
        if let Some(limit) = self.counted.last_mut() {
            limit.period_key = period_key;
        }
        self
    }

    /// Checks that a counted limit has this name or kind, if one is given.
    pub(crate) fn check_name(&self, name: Option<&str>) -> Result<(), ConfigError> {
        match name {
            Some(name) if !self.counted.iter().any(|limit| limit.is_called(name)) => Err(self.no_such_limit(name)),
            _ => Ok(()),
        }
    }

    /// Returns the counted limit of this name, if a grant may raise it until `until`.
    pub(crate) fn grantable(&self, name: &str, until: SystemTime, wall: u64) -> Result<&Limit, ConfigError> {
        let limit = self.counted.iter().find(|limit| limit.name.as_str() == name);
        let limit = limit.ok_or_else(|| self.no_such_limit(name))?;
        if until <= from_1970(wall) {
            return Err(ConfigError::new("end of a grant", "be in the future", Instant(until)));
        }
        Ok(limit)
    }

    fn no_such_limit(&self, name: &str) -> ConfigError {
        let known: Vec<&str> = self.counted.iter().map(|limit| limit.name.as_str()).collect();
        ConfigError::quoted("limit", &format!("be one of the plan's ({})", known.join(", ")), name)
    }

    pub(crate) const fn starts_fresh(&self) -> bool {
        self.starts_fresh
    }

    /// Returns the limits that have a counter, in the order of an account's counters.
    #[inline]
    pub(crate) fn counted(&self) -> &[Limit] {
        &self.counted
    }

    #[inline]
    pub(crate) const fn concurrent(&self) -> Option<&Limit> {
        self.concurrent.as_ref()
    }

    /// Whether a counted limit has the name, kind and period of `limit`.
    pub(crate) fn counts(&self, limit: &Limit) -> bool {
        self.counted.iter().any(|known| known.is_like(limit))
    }

    /// Returns all limits; the concurrency limit is the last.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Limit> {
        self.counted.iter().chain(&self.concurrent)
    }

    /// Returns the units of its limits, without the built-in kinds.
    pub(crate) fn units(&self) -> impl Iterator<Item = &Kind> {
        self.counted.iter().map(Limit::kind).filter(|kind| matches!(kind, Kind::Units(_)))
    }

    /// Whether a limit counts the body bytes of this direction.
    pub(crate) fn counts_bytes(&self, of: Direction) -> bool {
        let counts =
            |kind: &Kind| matches!(kind, Kind::Bytes(direction) if *direction == of || *direction == Direction::Both);
        self.counted.iter().any(|limit| counts(limit.kind()))
    }

    /// Returns a limit that lasts a day or longer, if there is one. An identity that clients can forge must not own
    /// such a limit.
    pub(crate) fn lasting(&self) -> Option<&Limit> {
        let day = std::time::Duration::from_secs(86_400);
        self.counted.iter().find(|limit| limit.quota.period().is_some_and(|period| period.longest() >= day))
    }
}

/// Greatest number of limits in a plan. A decision names limits by the bits of a `u64`.
const MOST_LIMITS: usize = 64;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plan {:?}, version {}", self.name, self.version)
    }
}
