//! One limit of a plan.

use super::MOST;
use std::fmt;

use crate::kind::{Direction, Kind};
use crate::{error::ConfigError, policy_name::PolicyName, time::Period};

/// One limit of a [`Plan`](crate::Plan): an amount of a kind in each period, or a number of requests in flight.
///
/// ```
/// use tollgate::{Period, Quota};
///
/// let quota = Quota::requests(3_600).per(Period::hour());
/// assert_eq!(quota.name().as_str(), "requests_per_hour");
/// assert_eq!(Quota::concurrent(5).named("concurrent_scans").name().as_str(), "concurrent_scans");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    kind: Kind,
    limit: u64,
    /// `None` for a concurrency limit.
    period: Option<Period>,
    /// `None` if the name is made of the kind and the period.
    name: Option<PolicyName>,
}

/// Shows the amount, the kind and the period.
///
/// ```
/// use tollgate::{Period, Quota};
/// assert_eq!(Quota::units("tokens", 1_000).per(Period::day()).to_string(), "1000 tokens per day");
/// assert_eq!(Quota::concurrent(5).to_string(), "5 concurrent_requests");
/// ```
impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.limit, self.kind)?;
        self.period.as_ref().map_or(Ok(()), |period| write!(f, " per {period}"))
    }
}

/// A limit without its period; [`per`](Self::per) sets it.
///
/// ```
/// use tollgate::{Period, Quota};
/// let daily = Quota::units("tokens", 1_000_000).per(Period::day());
/// ```
#[derive(Clone, Debug)]
#[must_use = "a limit needs a period: `.per(Period::day())`"]
pub struct QuotaBuilder {
    kind: Kind,
    limit: u64,
}

impl QuotaBuilder {
    /// Sets the period.
    ///
    /// ```
    /// use tollgate::{Period, Quota};
    /// let quota = Quota::requests(100).per(Period::hour());
    /// ```
    #[must_use]
    pub fn per(self, period: Period) -> Quota {
        Quota { kind: self.kind, limit: self.limit, period: Some(period), name: None }
    }
}

impl Quota {
    /// Limits requests in each period.
    ///
    /// # Panics
    /// If `limit` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// use tollgate::{Period, Quota};
    /// let quota = Quota::requests(3_600).per(Period::hour());
    /// ```
    #[track_caller]
    pub fn requests(limit: u64) -> QuotaBuilder {
        Self::of(Kind::Requests, limit)
    }

    /// Limits body bytes in each period, of requests and responses together; see [`counting`](Self::counting).
    ///
    /// The bytes of a response are known only after they have passed. Therefore a request is refused only if nothing
    /// remains.
    ///
    /// # Panics
    /// If `limit` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// use tollgate::{Period, Quota};
    /// let quota = Quota::bytes(1 << 30).per(Period::day());
    /// ```
    #[track_caller]
    pub fn bytes(limit: u64) -> QuotaBuilder {
        Self::of(Kind::Bytes(Direction::Both), limit)
    }

    /// Limits a unit of your own in each period.
    ///
    /// # Panics
    /// If `limit` is 0 or above 2^53 - 1, or `unit` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// use tollgate::{Period, Quota};
    /// let quota = Quota::units("queries", 1_800).per(Period::hour());
    /// ```
    #[track_caller]
    pub fn units(unit: &str, limit: u64) -> QuotaBuilder {
        Self::of(Kind::units(unit), limit)
    }

    /// Limits a kind in each period, from input at run time.
    ///
    /// # Errors
    /// If `limit` is 0 or above 2^53 - 1, or the kind is concurrent requests, which have no period.
    ///
    /// ```
    /// use tollgate::{Kind, Quota};
    /// assert_eq!(Quota::try_of(Kind::Requests, 0).unwrap_err().to_string(), "limit of requests must be from 1 to 2^53 - 1, got 0");
    /// assert!(Quota::try_of(Kind::Concurrent, 5).is_err());
    /// ```
    pub fn try_of(kind: Kind, limit: u64) -> Result<QuotaBuilder, ConfigError> {
        if kind == Kind::Concurrent {
            return Err(ConfigError::new(
                "kind of a limit with a period",
                "be countable (use Quota::concurrent)",
                kind,
            ));
        }
        check(&kind, limit)?;
        Ok(QuotaBuilder { kind, limit })
    }

    /// Limits requests in flight.
    ///
    /// A request that becomes a connection of another protocol, such as a WebSocket, is in flight until its response unless
    /// the handler [keeps its slot](crate::Charge::keep_slot).
    ///
    /// # Panics
    /// If `limit` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// let quota = tollgate::Quota::concurrent(5);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn concurrent(limit: u64) -> Self {
        ConfigError::or_panic(Self::try_concurrent(limit))
    }

    /// [`concurrent`](Self::concurrent) for input at run time.
    ///
    /// # Errors
    /// If `limit` is 0 or above 2^53 - 1.
    ///
    /// ```
    /// assert!(tollgate::Quota::try_concurrent(0).is_err());
    /// ```
    pub fn try_concurrent(limit: u64) -> Result<Self, ConfigError> {
        check(&Kind::Concurrent, limit)?;
        Ok(Self { kind: Kind::Concurrent, limit, period: None, name: None })
    }

    /// Restricts a quota of bytes to the bodies of one direction.
    ///
    /// # Panics
    /// If the quota does not count bytes.
    ///
    /// ```
    /// use tollgate::{Direction, Period, Quota};
    /// let uploads = Quota::bytes(1 << 20).per(Period::hour()).counting(Direction::Request);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn counting(self, direction: Direction) -> Self {
        assert!(matches!(self.kind, Kind::Bytes(_)), "only a quota of bytes has a direction, got one of {}", self.kind);
        Self { kind: Kind::Bytes(direction), ..self }
    }

    /// Sets the name of the limit in refusals, header fields, grants and resets.
    ///
    /// By default it is made of the kind and the period, such as `requests_per_hour`.
    ///
    /// # Panics
    /// If `name` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// use tollgate::{Period, Quota};
    /// let quota = Quota::bytes(53_687_091_200).per(Period::day()).named("daily_bytes");
    /// ```
    #[must_use]
    #[track_caller]
    pub fn named(self, name: &str) -> Self {
        ConfigError::or_panic(self.try_named(name))
    }

    /// [`named`](Self::named) for input at run time.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 visible ASCII characters or spaces.
    pub fn try_named(self, name: &str) -> Result<Self, ConfigError> {
        Ok(Self { name: Some(PolicyName::checked("name of a limit", name)?), ..self })
    }

    /// Returns the name that was set, `None` if it is made from kind and period.
    #[allow(dead_code, reason = "only a feature writes quotas")]
    pub(crate) const fn own_name(&self) -> Option<&PolicyName> {
        self.name.as_ref()
    }

    /// Returns the kind that the limit counts.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns the amount in each period, or the number of requests in flight.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// Returns the period; `None` for a concurrency limit.
    #[must_use]
    #[inline]
    pub const fn period(&self) -> Option<&Period> {
        self.period.as_ref()
    }

    /// Returns the name of the limit.
    #[must_use]
    pub fn name(&self) -> PolicyName {
        self.name.clone().unwrap_or_else(|| {
            let made = match &self.period {
                Some(period) => format!("{}_per_{}", self.kind, period.name().replace(' ', "_")),
                None => self.kind.to_string(),
            };
            let fits = made.get(..64).unwrap_or(&made); // a unit and a period together may be too long
            PolicyName::try_new(fits).expect("visible ASCII")
        })
    }

    #[track_caller]
    fn of(kind: Kind, limit: u64) -> QuotaBuilder {
        ConfigError::or_panic(Self::try_of(kind, limit))
    }
}

fn check(kind: &Kind, limit: u64) -> Result<(), ConfigError> {
    match limit {
        1..=MOST => Ok(()),
        _ => Err(ConfigError::new(&format!("limit of {kind}"), "be from 1 to 2^53 - 1", limit)),
    }
}
