//! Refill rate and size of a bucket.

use std::{fmt, time::Duration};

use crate::{cost::Cost, error::ConfigError};

/// Refill rate of a bucket, its size, and the tokens of a newcomer.
///
/// [`Rate::per_second(50)`](Rate::per_second) is 50 tokens a second, never one token in 50 seconds.
///
/// # Rounding
/// A rate is stored as the whole nanoseconds between two tokens, rounded **up**: three a second are one per
/// 333,333,334 ns. So no client is admitted faster than the rate says. Up to a million a second the loss is below one in
/// a thousand, and rates above one per nanosecond are rejected.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Rate;
///
/// const LIMIT: Rate = Rate::per_second(50).burst(100);
/// assert_eq!(LIMIT.interval(), Duration::from_millis(20));
/// assert_eq!(LIMIT.capacity(), 100);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    interval: u64,
    burst: u64,
    initial: u64,
}

/// Longest time in which a bucket fills: 2^62 ns, 146 years, so that no sum of times overflows.
const MAX_SPAN: u64 = 1 << 62;

// Texts of rejected values. A `const` constructor panics with them, its `try_` twin adds the value.
const ZERO_RATE: &str = "rate must be positive";
const ZERO_PERIOD: &str = "period must be positive";
const TOO_FAST: &str = "rate must be at most one per nanosecond";
const TOO_SLOW: &str = "period must be at most 2^62 ns (146 years)";
const ZERO_BURST: &str = "burst must be positive";
const TOO_LARGE: &str = "burst must be at most 2^53 - 1 and come back within 2^62 ns (146 years)";
const TOO_MANY_INITIAL: &str = "initial tokens must be at most the burst";

#[track_caller]
const fn valid(rate: Result<Rate, &'static str>) -> Rate {
    match rate {
        Ok(rate) => rate,
        Err(text) => panic!("{}", text),
    }
}

fn rejected(text: &str, got: impl fmt::Display) -> ConfigError {
    ConfigError::message(format!("{text}, got {got}"))
}

impl Rate {
    /// Creates a rate of `count` a second, with a burst of `count` unless [`burst`](Self::burst) changes it.
    ///
    /// # Panics
    /// If `count` is 0 or above one per nanosecond; in a `const` that is a compile error.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(50).to_string(), "50 per 1s, burst 50");
    /// ```
    /// ```compile_fail
    /// const NOTHING: tollgate::Rate = tollgate::Rate::per_second(0);
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn per_second(count: u64) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// Creates a rate of `count` a minute; see [`per_second`](Self::per_second).
    ///
    /// # Panics
    /// If `count` is 0 or above one per nanosecond.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_minute(60), tollgate::Rate::per_second(1).burst(60));
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn per_minute(count: u64) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// Creates a rate of `count` an hour; see [`per_second`](Self::per_second).
    ///
    /// # Panics
    /// If `count` is 0 or above one per nanosecond.
    #[must_use]
    #[track_caller]
    pub const fn per_hour(count: u64) -> Self {
        Self::per(count, Duration::from_secs(3_600))
    }

    /// Creates a rate of `count` in `period`, with a burst of `count` unless [`burst`](Self::burst) changes it.
    ///
    /// # Panics
    /// If `count` or `period` is 0, the rate is above one per nanosecond, or the period above 2^62 ns (146 years).
    ///
    /// ```
    /// use std::time::Duration;
    /// let rate = tollgate::Rate::per(2, Duration::from_millis(500));
    /// assert_eq!(rate.interval(), Duration::from_millis(250));
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn per(count: u64, period: Duration) -> Self {
        valid(Self::measure(count, period))
    }

    /// Creates a rate of one in `period`, with a burst of 1 unless [`burst`](Self::burst) changes it.
    ///
    /// # Panics
    /// If `period` is 0 or above 2^62 ns (146 years).
    ///
    /// ```
    /// use std::time::Duration;
    /// assert_eq!(tollgate::Rate::every(Duration::from_secs(3)).capacity(), 1);
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn every(period: Duration) -> Self {
        Self::per(1, period)
    }

    /// Sets the size of the bucket: `tokens` can pass at one instant after a rest.
    ///
    /// It sets the initial tokens too, so [`initial_tokens`](Self::initial_tokens) comes after it.
    ///
    /// # Panics
    /// If `tokens` is 0, above 2^53 - 1, or would take more than 2^62 ns (146 years) to come back.
    ///
    /// ```compile_fail
    /// const SHUT: tollgate::Rate = tollgate::Rate::per_second(5).burst(0);
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn burst(self, tokens: u64) -> Self {
        valid(self.hold(tokens))
    }

    /// Gives a newcomer `tokens` instead of a full bucket.
    ///
    /// A bucket may be evicted once it has been full for as long as it took to fill, and for a minute. A client that was
    /// idle for longer is a newcomer again.
    ///
    /// # Panics
    /// If `tokens` is above the burst.
    ///
    /// ```
    /// let slow_start = tollgate::Rate::per_second(5).burst(10).initial_tokens(2);
    /// assert_eq!(slow_start.newcomer_tokens(), 2);
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn initial_tokens(self, tokens: u64) -> Self {
        assert!(tokens <= self.burst, "{}", TOO_MANY_INITIAL);
        Self { initial: tokens, ..self }
    }

    /// Creates a rate of `count` a second, for input at run time; see [`per_second`](Self::per_second).
    ///
    /// # Errors
    /// If `count` is 0 or above one per nanosecond.
    ///
    /// ```
    /// let error = tollgate::Rate::try_per_second(2_000_000_000).unwrap_err();
    /// assert_eq!(error.to_string(), "rate must be at most one per nanosecond, got 2000000000 per 1s");
    /// ```
    pub fn try_per_second(count: u64) -> Result<Self, ConfigError> {
        Self::try_per(count, Duration::from_secs(1))
    }

    /// [`per_minute`](Self::per_minute) for input at run time.
    ///
    /// # Errors
    /// As [`try_per`](Self::try_per).
    pub fn try_per_minute(count: u64) -> Result<Self, ConfigError> {
        Self::try_per(count, Duration::from_secs(60))
    }

    /// [`per_hour`](Self::per_hour) for input at run time.
    ///
    /// # Errors
    /// As [`try_per`](Self::try_per).
    pub fn try_per_hour(count: u64) -> Result<Self, ConfigError> {
        Self::try_per(count, Duration::from_secs(3_600))
    }

    /// [`every`](Self::every) for input at run time.
    ///
    /// # Errors
    /// As [`try_per`](Self::try_per).
    pub fn try_every(period: Duration) -> Result<Self, ConfigError> {
        Self::try_per(1, period)
    }

    /// Creates a rate of `count` in `period`, for input at run time; see [`per`](Self::per).
    ///
    /// # Errors
    /// If `count` or `period` is 0, the rate is above one per nanosecond, or the period above 2^62 ns.
    pub fn try_per(count: u64, period: Duration) -> Result<Self, ConfigError> {
        Self::measure(count, period).map_err(|text| match text {
            ZERO_RATE => rejected(text, count),
            TOO_FAST => rejected(text, format_args!("{count} per {period:?}")),
            _ => rejected(text, format_args!("{period:?}")),
        })
    }

    /// Sets the size of the bucket, for input at run time; see [`burst`](Self::burst).
    ///
    /// # Errors
    /// If `tokens` is 0, above 2^53 - 1, or would take more than 2^62 ns to come back.
    ///
    /// ```
    /// let error = tollgate::Rate::per_second(5).try_burst(0).unwrap_err();
    /// assert_eq!(error.to_string(), "burst must be positive, got 0");
    /// ```
    pub fn try_burst(self, tokens: u64) -> Result<Self, ConfigError> {
        self.hold(tokens).map_err(|text| match text {
            ZERO_BURST => rejected(text, tokens),
            _ => rejected(text, format_args!("{tokens} at one per {:?}", self.interval())),
        })
    }

    /// Sets the tokens of a newcomer, for input at run time; see [`initial_tokens`](Self::initial_tokens).
    ///
    /// # Errors
    /// If `tokens` is above the burst.
    ///
    /// ```
    /// let error = tollgate::Rate::per_second(5).try_initial_tokens(6).unwrap_err();
    /// assert_eq!(error.to_string(), "initial tokens must be at most the burst, got 6 with a burst of 5");
    /// ```
    pub fn try_initial_tokens(self, tokens: u64) -> Result<Self, ConfigError> {
        if tokens > self.burst {
            return Err(rejected(TOO_MANY_INITIAL, format_args!("{tokens} with a burst of {}", self.burst)));
        }
        Ok(Self { initial: tokens, ..self })
    }

    /// Returns the time between two tokens.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// Returns the number of tokens in a full bucket.
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.burst
    }

    /// Returns the number of tokens in a newcomer's bucket.
    #[must_use]
    pub const fn newcomer_tokens(&self) -> u64 {
        self.initial
    }

    /// Returns the time in which an empty bucket fills.
    #[must_use]
    pub const fn span(&self) -> Duration {
        Duration::from_nanos(self.span_ns())
    }

    /// Returns the time between two tokens, in nanoseconds.
    pub(crate) const fn interval_ns(&self) -> u64 {
        self.interval
    }

    /// Returns the time in which an empty bucket fills, in nanoseconds: at most 2^62.
    pub(crate) const fn span_ns(&self) -> u64 {
        self.interval * self.burst
    }

    /// Returns the time for which a full bucket stays stored, in nanoseconds.
    ///
    /// If newcomers begin with less than a full bucket, a client that waited as long as it was asked to must not be a
    /// newcomer again. `Retry-After` is rounded up, and clients are late: its bucket stays for as long as it took to fill,
    /// and at least a minute.
    #[inline]
    pub(crate) const fn kept_ns(&self) -> u64 {
        const MINUTE: u64 = 60_000_000_000;
        if self.initial == self.burst {
            0
        } else if self.span_ns() > MINUTE {
            self.span_ns()
        } else {
            MINUTE
        }
    }

    /// Returns the time in which an empty bucket fills, in nanoseconds, without the rounding of the intervals. With it,
    /// three a second would be reported as three in two seconds.
    pub(crate) fn window_ns(&self) -> u64 {
        self.span_ns() - (self.burst - 1).min(self.span_ns() / 1_000)
    }

    const fn measure(count: u64, period: Duration) -> Result<Self, &'static str> {
        let span = period.as_nanos();
        if count == 0 {
            return Err(ZERO_RATE);
        }
        if span == 0 {
            return Err(ZERO_PERIOD);
        }
        if span > MAX_SPAN as u128 {
            return Err(TOO_SLOW);
        }
        if count as u128 > span {
            return Err(TOO_FAST);
        }
        #[allow(clippy::cast_possible_truncation)]
        let interval = (span as u64).div_ceil(count);
        Self { interval, burst: 1, initial: 1 }.hold(count)
    }

    const fn hold(self, tokens: u64) -> Result<Self, &'static str> {
        if tokens == 0 {
            return Err(ZERO_BURST);
        }
        match self.interval.checked_mul(tokens) {
            Some(span) if span <= MAX_SPAN && tokens <= Cost::MAX.get() => {
                Ok(Self { interval: self.interval, burst: tokens, initial: tokens })
            }
            _ => Err(TOO_LARGE),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let second: u64 = 1_000_000_000;
        let count = second.div_ceil(self.interval);
        if count > 1 && second.div_ceil(count) == self.interval {
            write!(f, "{count} per 1s, burst {}", self.burst)
        } else {
            write!(f, "1 per {:?}, burst {}", self.interval(), self.burst)
        }
    }
}

impl From<governor::Quota> for Rate {
    /// Returns the same rate and burst as `quota`, as far as the bucket fills within 2^62 ns (146 years). Beyond that the
    /// interval is cut to it, and the burst to the tokens that come back in it.
    fn from(quota: governor::Quota) -> Self {
        let interval = u64::try_from(quota.replenish_interval().as_nanos()).unwrap_or(MAX_SPAN).clamp(1, MAX_SPAN);
        let burst = u64::from(quota.burst_size().get()).min(MAX_SPAN / interval).max(1);
        Self { interval, burst, initial: burst }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_is_rounded_up() {
        assert_eq!(Rate::per_second(3).interval, 333_333_334);
        assert_eq!(Rate::per_second(1_000_000_000).interval, 1);
        assert_eq!(Rate::per_second(600_000_000).interval, 2);
    }

    #[test]
    fn display_shows_rate_and_burst() {
        for count in [2, 3, 7, 50, 999, 1_000_000_000] {
            assert_eq!(Rate::per_second(count).to_string(), format!("{count} per 1s, burst {count}"));
        }
        assert_eq!(Rate::per_second(1).to_string(), "1 per 1s, burst 1");
        assert_eq!(Rate::per(3, Duration::from_secs(2)).to_string(), "1 per 666.666667ms, burst 3");
        assert_eq!(Rate::per_minute(2).to_string(), "1 per 30s, burst 2");
    }

    #[test]
    fn rejected_value_is_named_with_its_reason() {
        let year = Duration::from_secs(31_536_000);
        let text = |result: Result<Rate, ConfigError>| result.unwrap_err().to_string();
        assert_eq!(text(Rate::try_per_second(0)), "rate must be positive, got 0");
        assert!(text(Rate::try_per(1, year * 200)).starts_with("period must be at most"));
        assert_eq!(
            text(Rate::per(1, year).try_burst(147)),
            "burst must be at most 2^53 - 1 and come back within 2^62 ns (146 years), got 147 at one per 31536000s"
        );
        assert!(Rate::per_second(1).try_burst(1 << 53).is_err());
        assert!(Rate::per_second(1).try_burst(u64::MAX).is_err());
    }

    #[test]
    fn governor_quota_becomes_the_same_rate() {
        let fifty = std::num::NonZeroU32::new(50).unwrap();
        assert_eq!(Rate::from(governor::Quota::per_second(fifty)), Rate::per_second(50));
        for years in [1, 147, 300, 584, 1_000] {
            let quota = governor::Quota::with_period(Duration::from_secs(31_536_000 * years)).unwrap();
            assert!(Rate::from(quota.allow_burst(fifty)).span_ns() <= MAX_SPAN, "{years} years");
        }
    }
}
