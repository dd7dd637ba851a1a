//! Rate limit fields, from which a client learns its limits before it reaches them.

use std::{slice, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};

use super::{
    buffer::{Buffer, clamp, number, parse_number},
    structured_field, whole_seconds, x_ratelimit,
};
use crate::{error::ConfigError, policy_name::PolicyName};

pub(super) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(super) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Field that lists the limits whose warning threshold the client has reached.
pub(crate) const NEAR_LIMITS: HeaderName = HeaderName::from_static("quota-near-limits");

/// Format in which limits are reported to clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// `RateLimit-Policy` and `RateLimit` of [draft-ietf-httpapi-ratelimit-headers-11]. Each layer adds an item.
    ///
    /// Clients know an item by its name, so give each layer of a stack a name. Where a layer finds one of its own in the
    /// response, of a layer further in or of the handler, it appends `-2` to its names in both fields, or the next number
    /// that is free.
    ///
    /// [draft-ietf-httpapi-ratelimit-headers-11]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/
    #[default]
    Draft11,
    /// `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset`, which no standard describes. They have
    /// room for one policy: the one with the least remaining.
    XRateLimit {
        /// Form of the reset.
        reset: Reset,
    },
    /// No fields.
    None,
}

/// Form of `X-RateLimit-Reset`.
///
/// ```
/// use tollgate::refusal::{Dialect, Reset};
/// let like_github = Dialect::XRateLimit { reset: Reset::Epoch };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reset {
    /// Seconds since 1970.
    Epoch,
    /// Seconds from now.
    Delta,
}

/// Writes the rate limit fields of one policy. Their constant parts are formatted once, when a layer is built.
///
/// Writing never fails. Fields of several layers complement each other and those that a handler or an upstream has set.
/// Malformed fields are replaced, because no client can read them.
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
    /// Name of the policy, before a gate further out appends a suffix.
    pub(super) name: PolicyName,
    template: Template,
    /// Whether the time is known at which more is available.
    resets: bool,
}

/// Constant parts of the fields in one dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Template {
    None,
    List { policy: HeaderValue, item: Box<[u8]> },
    Triple { limit: HeaderValue, reset: Reset },
}

impl Fields {
    /// Creates the fields of the policy `name`: `quota` units in a `window`, which is reported in whole seconds,
    /// rounded up.
    ///
    /// The quota counts `unit`; `None` stands for requests.
    ///
    /// # Panics
    /// If `unit` is not 1 to 64 visible ASCII characters or spaces.
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
    #[track_caller]
    pub fn new(dialect: Dialect, name: &PolicyName, quota: u64, window: Duration, unit: Option<&'static str>) -> Self {
        Self::of(dialect, name, quota, Some(window), unit)
    }

    /// Creates the fields of a policy without a window: `quota` concurrent requests.
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

    #[track_caller]
    fn of(dialect: Dialect, name: &PolicyName, quota: u64, window: Option<Duration>, unit: Option<&str>) -> Self {
        let unit = unit.map(|unit| PolicyName::checked("unit", unit)).transpose();
        let unit = ConfigError::or_panic(unit);
        let limit = AdvertisedLimit { name: name.clone(), quota, window, unit };
        Self::for_limits(dialect, slice::from_ref(&limit)).swap_remove(0)
    }

    /// Creates the fields of limits that belong together: each reports all of them, and the remainder of its own.
    pub(crate) fn for_limits(dialect: Dialect, limits: &[AdvertisedLimit]) -> Vec<Self> {
        let mut policies = Buffer::<256>::new();
        for limit in limits {
            policies.item(&limit.name).integer(";q=", limit.quota);
            if let Some(window) = limit.window {
                policies.integer(";w=", whole_seconds(window).max(1));
            }
            if let Some(unit) = &limit.unit {
                policies.push(";qu=\"").escaped(unit.as_str()).push("\"");
            }
        }
        let policies = shared(HeaderValue::from_bytes(policies.as_bytes()).expect("visible ASCII"));
        let template = |limit: &AdvertisedLimit| match dialect {
            Dialect::None => Template::None,
            Dialect::XRateLimit { reset } => Template::Triple { limit: shared(number(clamp(limit.quota))), reset },
            Dialect::Draft11 => {
                let item = Buffer::<66>::new().item(&limit.name).as_bytes().into();
                Template::List { policy: policies.clone(), item }
            }
        };
        let fields = |limit: &AdvertisedLimit| Self {
            name: limit.name.clone(),
            template: template(limit),
            resets: limit.window.is_some(),
        };
        limits.iter().map(fields).collect()
    }

    /// Adds the policy's fields to a response: `remaining` units now, more after `reset`.
    ///
    /// `wall` returns the time since 1970 and is called only if the dialect reports it. If nothing remains, a
    /// `Retry-After` that is present is raised to `reset`, because an earlier retry would be refused again. [Concurrent
    /// requests](Self::concurrent) have no known reset, and none is reported.
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

    /// Adds the policy's fields. Under `raise` a `Retry-After` that is present is raised to `reset`, which in a refusal
    /// is the wait: enough after it, however much remains now.
    pub(super) fn write_and_raise(
        &self,
        headers: &mut HeaderMap,
        remaining: u64,
        reset: Duration,
        wall: impl FnOnce() -> Duration,
        raise: bool,
    ) {
        let seconds = match &self.template {
            Template::None => return,
            _ if !self.resets => return self.append(headers, remaining, None),
            Template::Triple { reset: Reset::Epoch, .. } => whole_seconds(wall().saturating_add(reset)),
            _ => whole_seconds(reset),
        };
        self.append(headers, remaining, Some(seconds));
        if raise {
            raise_retry_after(headers, whole_seconds(reset));
        }
    }

    /// Adds the policy's fields to a response without a reset, as of concurrent requests.
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
        self.append(headers, remaining, None);
    }

    fn append(&self, headers: &mut HeaderMap, remaining: u64, reset: Option<u64>) {
        match &self.template {
            Template::None => {}
            Template::Triple { limit, .. } => {
                x_ratelimit::write(headers, limit, clamp(remaining), reset.map(clamp));
            }
            Template::List { policy, item } => {
                let mut line = Buffer::<192>::new(); // holds the longest item
                line.push(item).integer(";r=", remaining);
                if let Some(seconds) = reset {
                    line.integer(";t=", seconds);
                }
                let Ok(line) = HeaderValue::from_bytes(line.as_bytes()) else { return };
                let policies = headers.try_append(RATELIMIT_POLICY, policy.clone());
                let remainder = headers.try_append(RATELIMIT, line);
                if matches!(policies, Ok(true)) || matches!(remainder, Ok(true)) {
                    let (policies, remainder) = (policies.ok(), remainder.ok());
                    structured_field::merge(
                        headers,
                        [policies.and(Some(RATELIMIT_POLICY)), remainder.and(Some(RATELIMIT))],
                    );
                }
            }
        }
    }
}

/// A limit as clients see it.
#[derive(Debug)]
pub(crate) struct AdvertisedLimit {
    pub(crate) name: PolicyName,
    pub(crate) quota: u64,
    /// `None` for concurrent requests.
    pub(crate) window: Option<Duration>,
    /// Unit that the quota counts; `None` stands for requests.
    pub(crate) unit: Option<PolicyName>,
}

/// Returns the same value, whose clones do not allocate: the first clone, made here, allocates their shared count.
fn shared(value: HeaderValue) -> HeaderValue {
    value.clone()
}

/// Raises a `Retry-After` that is present and a number; a date is not changed.
fn raise_retry_after(headers: &mut HeaderMap, seconds: u64) {
    if headers.get(RETRY_AFTER).and_then(parse_number).is_some_and(|present| present < seconds) {
        let _ = headers.try_insert(RETRY_AFTER, number(seconds));
    }
}

/// Formats the limits whose warning threshold a client has reached: `"requests_per_day";u=9000;q=10000` means that
/// 9,000 of 10,000 are used. Returns `None` without limits.
pub(crate) fn near_limits<'a>(limits: impl Iterator<Item = (&'a PolicyName, u64, u64)>) -> Option<HeaderValue> {
    let mut list = Buffer::<128>::new();
    for (name, used, limit) in limits {
        list.item(name).integer(";u=", used).integer(";q=", limit);
    }
    HeaderValue::from_bytes(list.as_bytes()).ok().filter(|list| !list.is_empty())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name() -> impl Strategy<Value = PolicyName> {
        "[ -~]{1,64}|[\"\\\\]{1,64}".prop_map(|name| PolicyName::try_new(&name).unwrap())
    }

    fn amount() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..1_000_u64, Just(u64::MAX), 999_999_999_999_998..1_000_000_000_000_002_u64]
    }

    proptest! {
        #[test]
        fn warning_is_a_list_for_all_amounts(limits in prop::collection::vec((name(), amount(), amount()), 1..4)) {
            let field = near_limits(limits.iter().map(|(name, used, limit)| (name, *used, *limit))).unwrap();
            let list: sfv::List = sfv::Parser::new(field.as_bytes()).parse().unwrap();
            prop_assert_eq!(list.len(), limits.len());
            for (entry, (name, used, limit)) in list.into_iter().zip(limits) {
                let sfv::ListEntry::Item(item) = entry else { panic!("not an item: {entry:?}") };
                prop_assert_eq!(item.bare_item.as_string().unwrap().as_str(), name.as_str());
                let values: Vec<_> = item.params.values().map(|value| i64::from(value.as_integer().unwrap())).collect();
                let clamped = [used, limit].map(|amount| i64::try_from(amount.min(999_999_999_999_999)).unwrap());
                prop_assert_eq!(values, clamped);
            }
        }
    }

    /// Names in a field, in their order.
    fn names(headers: &HeaderMap, field: HeaderName) -> Vec<String> {
        let mut lines = headers.get_all(field).iter();
        let list: sfv::List = sfv::Parser::new(lines.next().unwrap().as_bytes()).parse().unwrap();
        assert_eq!(lines.next(), None);
        let name = |entry| match entry {
            sfv::ListEntry::Item(item) => item.bare_item.as_string().unwrap().as_str().to_owned(),
            sfv::ListEntry::InnerList(inner) => panic!("not an item: {inner:?}"),
        };
        list.into_iter().map(name).collect()
    }

    proptest! {
        #[test]
        fn repeated_names_have_one_free_suffix_in_both_fields(
            own in prop::sample::subsequence(vec!["a", "b\\\"", "a-2", "b\\\"-3"], 0..4),
            gates in prop::collection::vec(prop::sample::subsequence(vec!["a", "b\"", "a-2", "a-02", "-"], 1..4), 1..6),
        ) {
            let mut headers = HeaderMap::new();
            for name in &own {
                headers.append(RATELIMIT, HeaderValue::from_str(&format!("\"{name}\";r=1")).unwrap());
            }
            let own: Vec<_> = own.into_iter().map(|name| name.replace('\\', "")).collect();
            let (mut policies, mut items) = (Vec::new(), own.clone());
            for limits in gates {
                let advertised = |name: &&str| AdvertisedLimit {
                    name: PolicyName::try_new(name).unwrap(), quota: 5, window: None, unit: None,
                };
                let all: Vec<_> = limits.iter().map(advertised).collect();
                Fields::for_limits(Dialect::Draft11, &all).last().unwrap().write_without_reset(&mut headers, 3);
                let suffixed = |n: u32| limits.iter().map(move |name| if n == 1 { (*name).into() } else { format!("{name}-{n}") });
                let free = |n: &u32| suffixed(*n).all(|name| !policies.contains(&name) && !items.contains(&name));
                let named: Vec<String> = suffixed((1..).find(free).unwrap()).collect();
                items.push(named.last().unwrap().clone());
                policies.extend(named);
            }
            prop_assert_eq!(names(&headers, RATELIMIT_POLICY), policies);
            prop_assert_eq!(names(&headers, RATELIMIT), items);
        }
    }

    #[test]
    fn no_limits_give_no_field() {
        assert_eq!(near_limits(std::iter::empty()), None);
    }
}
