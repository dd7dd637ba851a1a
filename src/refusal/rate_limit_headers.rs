//! The fields that tell a client of its limits before it runs into them.

use std::{slice, time::Duration};

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};

use super::whole_seconds;
use super::{
    item::{Items, clamp},
    names::{RATELIMIT, RATELIMIT_POLICY},
    number::{number, read},
    structured_field,
    x_ratelimit::{self, Triple},
};
use crate::policy_name::PolicyName;

/// How limits are told to clients.
///
/// ```
/// use tollgate::refusal::Dialect;
/// assert_eq!(Dialect::default(), Dialect::Draft11);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// `RateLimit-Policy` and `RateLimit` of [draft-ietf-httpapi-ratelimit-headers-11]. Each layer adds an item.
    ///
    /// [draft-ietf-httpapi-ratelimit-headers-11]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/
    #[default]
    Draft11,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which no standard describes. They have room
    /// for one policy: that with the least remaining.
    XRateLimit {
        /// How the reset is written.
        reset: Reset,
    },
    /// Not at all.
    None,
}

/// How `X-RateLimit-Reset` says when there is more.
///
/// ```
/// use tollgate::refusal::{Dialect, Reset};
/// let as_github_does = Dialect::XRateLimit { reset: Reset::Epoch };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reset {
    /// Seconds since 1970.
    Epoch,
    /// Seconds from now.
    Delta,
}

/// Writes the rate limit fields of one policy; what does not change is put together once, when a layer is built.
///
/// Writing never fails. Several layers complement each other, and so do fields that a handler or an upstream has set;
/// what is there but not well formed is replaced, because no client would read it.
///
/// ```
/// use std::time::Duration;
/// use http::HeaderMap;
/// use tollgate::{PolicyName, refusal::{Dialect, Fields}};
///
/// let name = PolicyName::try_new("default").unwrap();
/// let fields = Fields::new(Dialect::Draft11, &name, 100, Duration::from_secs(60), None);
/// let mut headers = HeaderMap::new();
/// fields.write(&mut headers, 42, Duration::from_millis(25_500), || Duration::ZERO);
/// assert_eq!(headers["ratelimit-policy"], r#""default";q=100;w=60"#);
/// assert_eq!(headers["ratelimit"], r#""default";r=42;t=26"#);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields {
    kind: Kind,
    /// Somebody knows when there is more.
    resets: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    None,
    List { policy: HeaderValue, item: Box<[u8]> },
    Triple { limit: HeaderValue, reset: Reset },
}

impl Fields {
    /// The fields of the policy `name`: `quota` units in a `window`, which is told in whole seconds, rounded up.
    ///
    /// The `unit` is what the quota counts; `None` stands for requests.
    ///
    /// # Panics
    /// When `unit` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{PolicyName, refusal::{Dialect, Fields}};
    /// let name = PolicyName::try_new("download").unwrap();
    /// let day = Duration::from_secs(86_400);
    /// let fields = Fields::new(Dialect::Draft11, &name, 1 << 30, day, Some("content-bytes"));
    /// # let mut headers = http::HeaderMap::new();
    /// # fields.write(&mut headers, 0, day, || day);
    /// # assert_eq!(headers["ratelimit-policy"], r#""download";q=1073741824;w=86400;qu="content-bytes""#);
    /// ```
    #[must_use]
    pub fn new(dialect: Dialect, name: &PolicyName, quota: u64, window: Duration, unit: Option<&'static str>) -> Self {
        Self::of(dialect, name, quota, Some(window), unit)
    }

    /// The fields of a policy without a window: `quota` requests at a time.
    ///
    /// ```
    /// use http::HeaderMap;
    /// use tollgate::{PolicyName, refusal::{Dialect, Fields}};
    ///
    /// let fields = Fields::concurrent(Dialect::Draft11, &PolicyName::try_new("scans").unwrap(), 5);
    /// let mut headers = HeaderMap::new();
    /// fields.write_without_reset(&mut headers, 3);
    /// assert_eq!(headers["ratelimit-policy"], r#""scans";q=5;qu="concurrent-requests""#);
    /// assert_eq!(headers["ratelimit"], r#""scans";r=3"#);
    /// ```
    #[must_use]
    pub fn concurrent(dialect: Dialect, name: &PolicyName, quota: u64) -> Self {
        Self::of(dialect, name, quota, None, Some("concurrent-requests"))
    }

    fn of(dialect: Dialect, name: &PolicyName, quota: u64, window: Option<Duration>, unit: Option<&str>) -> Self {
        let checked = |unit| PolicyName::checked("unit", unit).unwrap_or_else(|invalid| panic!("{invalid}"));
        let unit = unit.map(checked);
        let told = Told { name: name.clone(), quota, window, unit };
        Self::of_all(dialect, slice::from_ref(&told)).swap_remove(0)
    }

    /// The fields of policies that belong together: each tells of all of them, and what is left of its own.
    pub(crate) fn of_all(dialect: Dialect, all: &[Told]) -> Vec<Self> {
        let mut policies = Items::<256>::new();
        all.iter().for_each(|told| told.write_policy(&mut policies));
        let policies = shared(HeaderValue::from_maybe_shared(policies.take()).expect("visible ASCII"));
        let kind = |told: &Told| match dialect {
            Dialect::None => Kind::None,
            Dialect::XRateLimit { reset } => Kind::Triple { limit: shared(number(clamp(told.quota))), reset },
            Dialect::Draft11 => Kind::List { policy: policies.clone(), item: told.name.quoted().into_bytes().into() },
        };
        all.iter().map(|told| Self { kind: kind(told), resets: told.window.is_some() }).collect()
    }

    /// Adds the policy's fields to a response: `remaining` units now, more after `reset`.
    ///
    /// `wall` is the time since 1970, asked only where a dialect tells it. Where nothing remains, a `Retry-After` that is
    /// there already is raised to `reset`: who came back earlier would be refused again. Of [requests at a
    /// time](Self::concurrent) nobody knows when there is more, and no `reset` is told.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use http::HeaderMap;
    /// # use tollgate::{PolicyName, refusal::{Dialect, Fields, Reset}};
    /// # let name = PolicyName::try_new("default").unwrap();
    /// let dialect = Dialect::XRateLimit { reset: Reset::Epoch };
    /// let fields = Fields::new(dialect, &name, 100, Duration::from_secs(60), None);
    /// let mut headers = HeaderMap::new();
    /// fields.write(&mut headers, 42, Duration::from_secs(26), || Duration::from_secs(1_790_000_000));
    /// assert_eq!(headers["x-ratelimit-limit"], "100");
    /// assert_eq!(headers["x-ratelimit-remaining"], "42");
    /// assert_eq!(headers["x-ratelimit-reset"], "1790000026");
    /// ```
    pub fn write(&self, headers: &mut HeaderMap, remaining: u64, reset: Duration, wall: impl FnOnce() -> Duration) {
        self.write_and_raise(headers, remaining, reset, wall, remaining == 0);
    }

    /// Adds the policy's fields to the answer of a refusal: `remaining` units, too few for the request, enough after
    /// `wait`. A `Retry-After` that is there already is raised to `wait`, whatever remains.
    pub(super) fn write_refused(
        &self,
        headers: &mut HeaderMap,
        remaining: u64,
        wait: Duration,
        wall: impl FnOnce() -> Duration,
    ) {
        self.write_and_raise(headers, remaining, wait, wall, true);
    }

    fn write_and_raise(
        &self,
        headers: &mut HeaderMap,
        remaining: u64,
        reset: Duration,
        wall: impl FnOnce() -> Duration,
        raise: bool,
    ) {
        let told = match &self.kind {
            Kind::None => return,
            _ if !self.resets => return self.tell(headers, remaining, None),
            Kind::Triple { reset: Reset::Epoch, .. } => whole_seconds(wall().saturating_add(reset)),
            _ => whole_seconds(reset),
        };
        self.tell(headers, remaining, Some(told));
        if raise {
            raise_retry_after(headers, whole_seconds(reset));
        }
    }

    /// Adds the policy's fields to a response where nobody knows when there is more, as with requests at a time.
    ///
    /// ```
    /// # use http::HeaderMap;
    /// # use tollgate::{PolicyName, refusal::{Dialect, Fields}};
    /// # let fields = Fields::concurrent(Dialect::Draft11, &PolicyName::try_new("scans").unwrap(), 5);
    /// let mut headers = HeaderMap::new();
    /// fields.write_without_reset(&mut headers, 0);
    /// assert_eq!(headers["ratelimit"], r#""scans";r=0"#);
    /// ```
    pub fn write_without_reset(&self, headers: &mut HeaderMap, remaining: u64) {
        self.tell(headers, remaining, None);
    }

    fn tell(&self, headers: &mut HeaderMap, remaining: u64, reset: Option<u64>) {
        match &self.kind {
            Kind::None => {}
            Kind::Triple { limit, .. } => {
                let ours = Triple { remaining: clamp(remaining), reset: reset.map(clamp) };
                x_ratelimit::write(headers, limit, ours);
            }
            Kind::List { policy, item } => {
                let mut line = Items::<128>::new();
                line.resume(item).integer(";r=", remaining);
                if let Some(seconds) = reset {
                    line.integer(";t=", seconds);
                }
                structured_field::append(headers, || RATELIMIT_POLICY, policy.clone());
                if let Ok(line) = HeaderValue::from_maybe_shared(line.take()) {
                    structured_field::append(headers, || RATELIMIT, line);
                }
            }
        }
    }
}

/// What is told of one policy.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) name: PolicyName,
    pub(crate) quota: u64,
    /// `None` for requests at a time.
    pub(crate) window: Option<Duration>,
    /// What the quota counts; `None` stands for requests.
    pub(crate) unit: Option<PolicyName>,
}

impl Told {
    fn write_policy<const N: usize>(&self, policies: &mut Items<N>) {
        policies.item(&self.name).integer(";q=", self.quota);
        if let Some(window) = self.window {
            policies.integer(";w=", whole_seconds(window).max(1));
        }
        if let Some(unit) = &self.unit {
            policies.string(";qu=", unit);
        }
    }
}

/// The same value, whose clones allocate nothing: the first one, here, makes the count that all share.
fn shared(value: HeaderValue) -> HeaderValue {
    value.clone()
}

/// Leaves a date, and whatever else is not a number, as it is.
fn raise_retry_after(headers: &mut HeaderMap, seconds: u64) {
    if headers.get(RETRY_AFTER).and_then(read).is_some_and(|said| said < seconds) {
        let _ = headers.try_insert(RETRY_AFTER, number(seconds));
    }
}
