//! Rules by which a circuit opens.

use std::{fmt, time::Duration};

use super::window::Tally;
use crate::error::ConfigError;

/// Rules by which a circuit opens, and the window that they judge. [`or`](Self::or) joins rules.
///
/// Rates are taken over one sliding window: the last 100 calls, unless [`over_calls`](Self::over_calls) or
/// [`over_time`](Self::over_time) sets another. They are judged only once the window holds 20 calls, because half of
/// two calls is no evidence. They are judged at each failed or slow call, so a success in time
/// never opens a circuit. On a server no call is slow unless a rule is a [`slow_rate`](Self::slow_rate) or
/// [`slow_after`](Self::slow_after) is set.
///
/// Values are checked by [`CircuitBreakerLayer::try_trip`](crate::CircuitBreakerLayer::try_trip) and its panicking twin.
///
/// # Time-outs
/// Of a service that hangs a breaker sees only the calls that end. The time-out that ends them belongs:
///
/// - **on a client, outside or inside**. Outside, it must be longer than
///   [`slow_after`](crate::CircuitBreakerLayer::for_client): a call that is dropped earlier does not count, because its
///   caller may be impatient. Inside, its error counts.
/// - **on a server, inside**, with an answer of 504. A time-out outside drops the call as a client does that hangs up,
///   which does not count. An answer of 408, or gRPC's `CANCELLED`, says that the client was slow, and does not count.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Trip;
///
/// let half_fail = Trip::failure_rate(0.5);
/// let patient = Trip::failure_rate(0.2)
///     .or(Trip::slow_rate(0.8).slow_after(Duration::from_secs(2)))
///     .or(Trip::consecutive(5))
///     .over_time(Duration::from_secs(30))
///     .min_requests(50);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trip {
    pub(crate) failure: Option<RateRule>,
    pub(crate) slow: Option<RateRule>,
    pub(crate) consecutive: Option<u32>,
    pub(crate) window: Option<WindowLength>,
    pub(crate) slow_after: Option<Duration>,
    /// Setting for which `or` found two values.
    clash: Option<&'static str>,
}

/// Share of a window's calls at which a circuit opens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RateRule {
    pub(crate) share: f64,
    pub(crate) min_requests: Option<u32>,
}

/// Length of the sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowLength {
    /// The last calls, by number.
    Calls(u32),
    /// The calls of the last span of time.
    Time(Duration),
}

const DEFAULT_CALLS: u32 = 100;
const DEFAULT_MIN_REQUESTS: u32 = 20;
const DEFAULT_SLOW_AFTER: Duration = Duration::from_secs(10);
/// Longest window of calls, which takes one byte for each.
const MAX_CALLS: u32 = 1_000_000;

impl Trip {
    const NEVER: Self =
        Self { failure: None, slow: None, consecutive: None, window: None, slow_after: None, clash: None };

    /// Opens when at least this share of the window's calls failed; above 0, at most 1.
    #[must_use]
    pub const fn failure_rate(share: f64) -> Self {
        Self { failure: Some(RateRule { share, min_requests: None }), ..Self::NEVER }
    }

    /// Opens when at least this share of the window's calls was slow, see [`slow_after`](Self::slow_after); above 0, at
    /// most 1.
    #[must_use]
    pub const fn slow_rate(share: f64) -> Self {
        Self { slow: Some(RateRule { share, min_requests: None }), ..Self::NEVER }
    }

    /// Opens after this number of consecutive failures.
    #[must_use]
    pub const fn consecutive(failures: u32) -> Self {
        Self { consecutive: Some(failures), ..Self::NEVER }
    }

    /// Opens only by a verdict of the [classifier](crate::CircuitBreakerLayer::classify): [`Verdict::Trip`] or
    /// [`Verdict::TripFor`].
    ///
    /// [`Verdict::Trip`]: crate::Verdict::Trip
    /// [`Verdict::TripFor`]: crate::Verdict::TripFor
    #[must_use]
    pub const fn on_classifier() -> Self {
        Self::NEVER
    }

    /// Opens when either rule holds.
    ///
    /// There is one window and one `slow_after`: a value that only one side sets holds for both. A layer cannot be
    /// built from two values for one setting.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        let mut clash = self.clash.or(other.clash);
        Self {
            failure: either(self.failure, other.failure, "failure rate", &mut clash),
            slow: either(self.slow, other.slow, "slow rate", &mut clash),
            consecutive: either(self.consecutive, other.consecutive, "number of consecutive failures", &mut clash),
            window: either(self.window, other.window, "window", &mut clash),
            slow_after: either(self.slow_after, other.slow_after, "slow_after", &mut clash),
            clash,
        }
    }

    /// Takes rates over exactly the last `calls` calls; from 1 to 1,000,000, default 100.
    ///
    /// A hundred calls show a rate to the percent, and a busy service soon replaces them.
    #[must_use]
    pub const fn over_calls(self, calls: u32) -> Self {
        Self { window: Some(WindowLength::Calls(calls)), ..self }
    }

    /// Takes rates over the calls of the last `time`. The window slides in tenths: it covers from nine tenths of `time`
    /// to all of it.
    #[must_use]
    pub const fn over_time(self, time: Duration) -> Self {
        Self { window: Some(WindowLength::Time(time)), ..self }
    }

    /// Judges the rates set so far only once the window holds `calls` calls; default 20, or the whole window if that is
    /// smaller.
    #[must_use]
    pub const fn min_requests(mut self, calls: u32) -> Self {
        if let Some(rule) = &mut self.failure {
            rule.min_requests = Some(calls);
        }
        if let Some(rule) = &mut self.slow {
            rule.min_requests = Some(calls);
        }
        self
    }

    /// Sets the time to the head from which on a call is slow. The default is that of
    /// [`for_client`](crate::CircuitBreakerLayer::for_client); on a server 10 s, longer than a person should wait for a
    /// page.
    ///
    /// On a client, a call that is dropped after this time without a head counts as failed.
    ///
    /// # Behind slow clients
    /// A handler that waits for a request's body is as slow as its client. Where untrusted clients upload, a
    /// [`slow_rate`](Self::slow_rate) on a server needs a shorter time-out for the request's body further in, so that the
    /// handler answers in time.
    #[must_use]
    pub const fn slow_after(self, time: Duration) -> Self {
        Self { slow_after: Some(time), ..self }
    }

    /// Returns these rules with the `slow_after` of `other` where they have none.
    pub(crate) fn or_slow_after(self, other: Self) -> Self {
        Self { slow_after: self.slow_after.or(other.slow_after), ..self }
    }

    /// Returns the length of the window.
    pub(crate) fn window(&self) -> WindowLength {
        self.window.unwrap_or(WindowLength::Calls(DEFAULT_CALLS))
    }

    /// Returns the time from which on a call is slow.
    #[inline]
    pub(crate) fn slow_bound(&self) -> Duration {
        self.slow_after.unwrap_or(DEFAULT_SLOW_AFTER)
    }

    /// Whether the time from which on a call is slow was set.
    pub(crate) const fn has_slow_after(&self) -> bool {
        self.slow_after.is_some()
    }

    /// Whether slow calls can open the circuit.
    pub(crate) const fn has_slow_rate(&self) -> bool {
        self.slow.is_some()
    }

    /// Returns the cause for which a circuit opens that has these counts and consecutive failures; `None` if it stays
    /// closed.
    pub(crate) fn judge(&self, tally: Tally, consecutive: u32) -> Option<&'static str> {
        if self.consecutive.is_some_and(|limit| consecutive >= limit) {
            return Some("consecutive_failures");
        }
        let rates = [("failure_rate", self.failure, tally.failures), ("slow_rate", self.slow, tally.slow)];
        rates.into_iter().find_map(|(cause, rule, bad)| {
            let rule = rule?;
            // Division rounds to the nearest double, as the literal in the setting was: 7 of 100 is 0.07.
            #[allow(clippy::cast_precision_loss)]
            let share = bad as f64 / tally.calls as f64;
            (tally.calls >= u64::from(self.min_requests_of(rule)) && share >= rule.share).then_some(cause)
        })
    }

    fn min_requests_of(&self, rule: RateRule) -> u32 {
        rule.min_requests.unwrap_or(DEFAULT_MIN_REQUESTS.min(self.max_requests()))
    }

    /// Returns the most calls that the window holds.
    fn max_requests(&self) -> u32 {
        if let WindowLength::Calls(calls) = self.window() { calls } else { u32::MAX }
    }

    /// Returns an error for a value that is out of range.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let clash = self.clash.unwrap_or_default();
        ConfigError::require(self.clash.is_none(), clash, "be set once for all rules", "two values")?;
        let (is_valid, must, got) = match self.window() {
            WindowLength::Calls(n) => ((1..=MAX_CALLS).contains(&n), "be from 1 to 1,000,000 calls", n.to_string()),
            WindowLength::Time(time) => (!time.is_zero(), "be positive", "0s".to_owned()),
        };
        ConfigError::require(is_valid, "window", must, got)?;
        let max_requests = self.max_requests();
        for (name, rule) in [("failure rate", self.failure), ("slow rate", self.slow)] {
            let Some(rule) = rule else { continue };
            let (share, min) = (rule.share, self.min_requests_of(rule));
            ConfigError::require(share > 0.0 && share <= 1.0, name, "be above 0 and at most 1", share)?;
            ConfigError::require(min > 0, "min_requests", "be positive", min)?;
            let must = format!("be at most the window of {max_requests}");
            ConfigError::require(min <= max_requests, "min_requests", &must, min)?;
        }
        ConfigError::require(self.consecutive != Some(0), "consecutive failures", "be positive", 0)?;
        ConfigError::require(!self.slow_bound().is_zero(), "slow_after", "be positive", "0s")
    }
}

/// Shows the rules and the window of the rates.
///
/// ```
/// use tollgate::Trip;
/// let trip = Trip::failure_rate(0.5).or(Trip::consecutive(5));
/// assert_eq!(trip.to_string(), "failure rate 0.5 over 100 calls, or 5 consecutive failures");
/// assert_eq!(Trip::on_classifier().to_string(), "classifier");
/// ```
impl fmt::Display for Trip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = match self.window() {
            WindowLength::Calls(calls) => format!("{calls} calls"),
            WindowLength::Time(time) => format!("{time:?}"),
        };
        let rate = |name, rule: Option<RateRule>| rule.map(|rule| format!("{name} {} over {window}", rule.share));
        let streak = self.consecutive.map(|failures| format!("{failures} consecutive failures"));
        let rules = [rate("failure rate", self.failure), rate("slow rate", self.slow), streak];
        let rules: Vec<_> = rules.into_iter().flatten().collect();
        f.write_str(&if rules.is_empty() { "classifier".to_owned() } else { rules.join(", or ") })
    }
}

/// Returns the value that is set, and notes a clash if both are set and differ.
fn either<T: PartialEq>(a: Option<T>, b: Option<T>, what: &'static str, clash: &mut Option<&'static str>) -> Option<T> {
    if a.is_some() && b.is_some() && a != b {
        *clash = clash.or(Some(what));
    }
    a.or(b)
}
