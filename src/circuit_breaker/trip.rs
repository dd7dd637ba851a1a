//! When a circuit opens.

use std::time::Duration;

use super::window::Tally;
use crate::error::ConfigError;

/// The rules by which a circuit opens, and what they look at; rules are joined by [`or`](Self::or).
///
/// Rates are taken over one window that truly slides: the last 100 calls unless [`over_calls`](Self::over_calls) or
/// [`over_time`](Self::over_time) says otherwise, and only once the window holds 20 calls, because half of two calls is no
/// evidence. They are judged at each failed or slow call, so a success never opens a circuit.
///
/// Values are checked when the breaker is built, by
/// [`CircuitBreakerLayer::try_new`](crate::CircuitBreakerLayer::try_new) and its panicking twin.
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
    failure: Option<Share>,
    slow: Option<Share>,
    consecutive: Option<u32>,
    window: Option<WindowLength>,
    slow_after: Option<Duration>,
    /// Two values for one setting, found by `or`.
    clash: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Share {
    of: f64,
    min_requests: Option<u32>,
}

/// Length of the sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowLength {
    /// The last calls, by number.
    Calls(u32),
    /// The calls of the last span of time.
    Time(Duration),
}

const DEFAULT_WINDOW: u32 = 100;
const DEFAULT_MIN: u32 = 20;
const DEFAULT_SLOW_AFTER: Duration = Duration::from_secs(10);
/// A window of calls takes a byte each.
const MAX_WINDOW: u32 = 1_000_000;

impl Trip {
    const NEVER: Self =
        Self { failure: None, slow: None, consecutive: None, window: None, slow_after: None, clash: None };

    /// Opens when at least this share of the window's calls failed: above 0, at most 1.
    ///
    /// ```
    /// let trip = tollgate::Trip::failure_rate(0.5);
    /// assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn failure_rate(share: f64) -> Self {
        Self { failure: Some(Share { of: share, min_requests: None }), ..Self::NEVER }
    }

    /// Opens when at least this share of the window's calls was slow: above 0, at most 1.
    ///
    /// ```
    /// use std::time::Duration;
    /// let trip = tollgate::Trip::slow_rate(0.5).slow_after(Duration::from_secs(1));
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn slow_rate(share: f64) -> Self {
        Self { slow: Some(Share { of: share, min_requests: None }), ..Self::NEVER }
    }

    /// Opens at the `failures`th failure in a row.
    ///
    /// ```
    /// let trip = tollgate::Trip::consecutive(5);
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn consecutive(failures: u32) -> Self {
        Self { consecutive: Some(failures), ..Self::NEVER }
    }

    /// Opens only when a [`Classify`](crate::Classify) says so.
    ///
    /// ```
    /// let trip = tollgate::Trip::on_classifier();
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn on_classifier() -> Self {
        Self::NEVER
    }

    /// Opens when either would.
    ///
    /// There is one window and one `slow_after`: what only one side has set holds for both. Two values for one setting
    /// cannot be built.
    ///
    /// ```
    /// use tollgate::Trip;
    /// let trip = Trip::failure_rate(0.5).or(Trip::consecutive(5));
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
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

    /// Takes rates over the last `calls` calls, exactly: 1 to 1,000,000, 100 by default.
    ///
    /// A hundred calls tell a rate to the percent and are forgotten soon enough on a busy service.
    ///
    /// ```
    /// let trip = tollgate::Trip::failure_rate(0.5).over_calls(50);
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn over_calls(self, calls: u32) -> Self {
        Self { window: Some(WindowLength::Calls(calls)), ..self }
    }

    /// Takes rates over the calls of the last `time`, which slides in tenths: from nine tenths to the whole of it counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// let trip = tollgate::Trip::failure_rate(0.5).over_time(Duration::from_secs(10));
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn over_time(self, time: Duration) -> Self {
        Self { window: Some(WindowLength::Time(time)), ..self }
    }

    /// Judges the rates named so far only once the window holds `calls` calls: 20 by default, or the whole window where
    /// it is smaller.
    ///
    /// ```
    /// let trip = tollgate::Trip::failure_rate(0.5).min_requests(50);
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn min_requests(mut self, calls: u32) -> Self {
        if let Some(share) = &mut self.failure {
            share.min_requests = Some(calls);
        }
        if let Some(share) = &mut self.slow {
            share.min_requests = Some(calls);
        }
        self
    }

    /// Calls a call slow that took so long to its head, and a call failed that was given up after so long: 10 s by
    /// default, longer than anybody should wait for a page.
    ///
    /// # Behind slow clients
    /// A handler that waits for a request's body is as slow as its client, and a client that hangs up after so long
    /// without having sent it looks like one that gave up on the service. Where strangers upload, give the request's
    /// body a shorter time-out further in, so that the handler answers in time.
    ///
    /// ```
    /// use std::time::Duration;
    /// let trip = tollgate::Trip::consecutive(5).slow_after(Duration::from_secs(2));
    /// # assert!(tollgate::CircuitBreakerLayer::try_new(trip).is_ok());
    /// ```
    #[must_use]
    pub const fn slow_after(self, time: Duration) -> Self {
        Self { slow_after: Some(time), ..self }
    }

    /// What the rates are taken over.
    pub(crate) fn window(&self) -> WindowLength {
        self.window.unwrap_or(WindowLength::Calls(DEFAULT_WINDOW))
    }

    /// From when on a call is slow.
    #[inline]
    pub(crate) fn slow_bound(&self) -> Duration {
        self.slow_after.unwrap_or(DEFAULT_SLOW_AFTER)
    }

    /// Whether a slow call tells against a circuit at all.
    pub(crate) const fn has_slow_rate(&self) -> bool {
        self.slow.is_some()
    }

    /// Why a circuit with this window and so many failures in a row opens, if it does.
    pub(crate) fn judge(&self, tally: Tally, in_a_row: u32) -> Option<&'static str> {
        if self.consecutive.is_some_and(|limit| in_a_row >= limit) {
            return Some("consecutive_failures");
        }
        let reached = |share: Option<Share>, bad: u64| {
            share.is_some_and(|share| {
                // Division rounds to the nearest double, as the literal in the setting was: 7 of 100 is 0.07.
                #[allow(clippy::cast_precision_loss)]
                let part = bad as f64 / tally.calls as f64;
                tally.calls >= u64::from(self.min_of(share)) && part >= share.of
            })
        };
        if reached(self.failure, tally.failures) {
            return Some("failure_rate");
        }
        reached(self.slow, tally.slow).then_some("slow_rate")
    }

    fn min_of(&self, share: Share) -> u32 {
        share.min_requests.unwrap_or(match self.window() {
            WindowLength::Calls(calls) => DEFAULT_MIN.min(calls),
            WindowLength::Time(_) => DEFAULT_MIN,
        })
    }

    /// Says what cannot be.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if let Some(what) = self.clash {
            return Err(ConfigError::new(what, "be set once for all rules", "two values"));
        }
        match self.window() {
            WindowLength::Calls(calls @ (0 | MAX_WINDOW..)) if calls != MAX_WINDOW => {
                return Err(ConfigError::new("window", "be 1 to 1000000 calls", calls));
            }
            WindowLength::Time(time) if time.is_zero() => return Err(ConfigError::new("window", "be positive", "0s")),
            _ => {}
        }
        for (name, share) in [("failure rate", self.failure), ("slow rate", self.slow)] {
            let Some(share) = share else { continue };
            if !(share.of > 0.0 && share.of <= 1.0) {
                return Err(ConfigError::new(name, "be above 0 and at most 1", share.of));
            }
            match (self.min_of(share), self.window()) {
                (0, _) => return Err(ConfigError::new("min_requests", "be positive", 0)),
                (min, WindowLength::Calls(calls)) if min > calls => {
                    return Err(ConfigError::new("min_requests", &format!("be at most the window of {calls}"), min));
                }
                _ => {}
            }
        }
        if self.consecutive == Some(0) {
            return Err(ConfigError::new("consecutive failures", "be positive", 0));
        }
        if self.slow_bound().is_zero() {
            return Err(ConfigError::new("slow_after", "be positive", "0s"));
        }
        Ok(())
    }
}

/// The one that is set, and a clash where both are and differ.
fn either<T: PartialEq>(a: Option<T>, b: Option<T>, what: &'static str, clash: &mut Option<&'static str>) -> Option<T> {
    if a.is_some() && b.is_some() && a != b {
        *clash = clash.or(Some(what));
    }
    a.or(b)
}
