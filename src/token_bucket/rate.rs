//! How fast a bucket refills and how much it holds.

use std::time::Duration;

use crate::{cost::Cost, error::ConfigError};

/// How fast a bucket refills, how much it holds, and how much a newcomer finds in it.
///
/// Fifty a second is [`Rate::per_second(50)`](Rate::per_second), never one in fifty seconds.
///
/// # Rounding
/// A rate is kept as the whole nanoseconds between two tokens, rounded **up**: three a second are one per
/// 333,333,334 ns. So nobody is ever admitted faster than the rate says; up to a million a second the loss is below
/// one in a thousand, and rates above one per nanosecond are refused.
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

/// The longest that a bucket may take to fill: 2^62 ns, 146 years, so that no sum of times overflows.
const MAX_SPAN: u64 = 1 << 62;

#[derive(Clone, Copy)]
enum Problem {
    Zero,
    NoPeriod,
    TooFast,
    TooSlow,
    NoBurst,
    Span,
    Initial,
}

impl Problem {
    const fn halt(self) -> ! {
        match self {
            Self::Zero => panic!("rate must be positive, got 0"),
            Self::NoPeriod => panic!("period must be positive, got 0"),
            Self::TooFast => panic!("rate must be at most one per nanosecond"),
            Self::TooSlow => panic!("period must be at most 2^62 ns (146 years)"),
            Self::NoBurst => panic!("burst must be positive, got 0"),
            Self::Span => panic!("burst x interval must be at most 2^62 ns (146 years)"),
            Self::Initial => panic!("initial tokens must be at most the burst"),
        }
    }
}

impl Rate {
    /// `count` a second; holds `count` unless [`burst`](Self::burst) says otherwise.
    ///
    /// # Panics
    /// When `count` is 0 or above one per nanosecond; in a `const` that is a compile error.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(50).to_string(), "50 per 1s, burst 50");
    /// ```
    /// ```compile_fail
    /// const NOTHING: tollgate::Rate = tollgate::Rate::per_second(0);
    /// ```
    #[must_use]
    pub const fn per_second(count: u64) -> Self {
        Self::per(count, Duration::from_secs(1))
    }

    /// `count` a minute; see [`per_second`](Self::per_second).
    ///
    /// # Panics
    /// When `count` is 0 or above one per nanosecond.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_minute(60), tollgate::Rate::per_second(1).burst(60));
    /// ```
    #[must_use]
    pub const fn per_minute(count: u64) -> Self {
        Self::per(count, Duration::from_secs(60))
    }

    /// `count` an hour; see [`per_second`](Self::per_second).
    ///
    /// # Panics
    /// When `count` is 0 or above one per nanosecond.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_hour(3_600).interval().as_secs(), 1);
    /// ```
    #[must_use]
    pub const fn per_hour(count: u64) -> Self {
        Self::per(count, Duration::from_secs(3_600))
    }

    /// `count` in `period`; holds `count` unless [`burst`](Self::burst) says otherwise.
    ///
    /// # Panics
    /// When `count` or `period` is 0, the rate is above one per nanosecond, or the period above 2^62 ns (146 years).
    ///
    /// ```
    /// use std::time::Duration;
    /// let rate = tollgate::Rate::per(2, Duration::from_millis(500));
    /// assert_eq!(rate.interval(), Duration::from_millis(250));
    /// ```
    #[must_use]
    pub const fn per(count: u64, period: Duration) -> Self {
        match Self::measure(count, period) {
            Ok(rate) => rate,
            Err(problem) => problem.halt(),
        }
    }

    /// One in `period`, one at a time: a burst of 1 unless [`burst`](Self::burst) says otherwise.
    ///
    /// # Panics
    /// When `period` is 0 or above 2^62 ns (146 years).
    ///
    /// ```
    /// use std::time::Duration;
    /// assert_eq!(tollgate::Rate::every(Duration::from_secs(3)).capacity(), 1);
    /// ```
    #[must_use]
    pub const fn every(period: Duration) -> Self {
        Self::per(1, period)
    }

    /// Lets `tokens` pass at one instant after a rest.
    ///
    /// A full bucket stays full until something is taken: [`initial_tokens`](Self::initial_tokens) comes after it.
    ///
    /// # Panics
    /// When `tokens` is 0, above 2^53 - 1, or would take more than 2^62 ns (146 years) to come back.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(5).burst(10).capacity(), 10);
    /// ```
    /// ```compile_fail
    /// const SHUT: tollgate::Rate = tollgate::Rate::per_second(5).burst(0);
    /// ```
    #[must_use]
    pub const fn burst(self, tokens: u64) -> Self {
        match self.hold(tokens) {
            Ok(rate) => rate,
            Err(problem) => problem.halt(),
        }
    }

    /// Gives a newcomer `tokens` instead of a full bucket.
    ///
    /// A bucket may be forgotten once it has been full for as long as it took to fill, and for a minute: a client that was
    /// idle for longer is a newcomer again.
    ///
    /// # Panics
    /// When `tokens` is above the burst.
    ///
    /// ```
    /// let slow_start = tollgate::Rate::per_second(5).burst(10).initial_tokens(2);
    /// assert_eq!(slow_start.newcomer_tokens(), 2);
    /// ```
    #[must_use]
    pub const fn initial_tokens(self, tokens: u64) -> Self {
        if tokens > self.burst {
            Problem::Initial.halt()
        }
        Self { initial: tokens, ..self }
    }

    /// [`per_second`](Self::per_second) for input at run time.
    ///
    /// # Errors
    /// When `count` is 0 or above one per nanosecond.
    ///
    /// ```
    /// use tollgate::Rate;
    /// assert_eq!(Rate::try_per_second(5), Ok(Rate::per_second(5)));
    /// let error = Rate::try_per_second(2_000_000_000).unwrap_err();
    /// assert_eq!(error.to_string(), "rate must be at most one per nanosecond, got 2000000000 per 1s");
    /// ```
    pub fn try_per_second(count: u64) -> Result<Self, ConfigError> {
        Self::try_per(count, Duration::from_secs(1))
    }

    /// [`per`](Self::per) for input at run time.
    ///
    /// # Errors
    /// When `count` or `period` is 0, the rate is above one per nanosecond, or the period above 2^62 ns.
    ///
    /// ```
    /// use std::time::Duration;
    /// let error = tollgate::Rate::try_per(5, Duration::ZERO).unwrap_err();
    /// assert_eq!(error.to_string(), "period must be positive, got 0ns");
    /// ```
    pub fn try_per(count: u64, period: Duration) -> Result<Self, ConfigError> {
        Self::measure(count, period).map_err(|problem| match problem {
            Problem::Zero => ConfigError::new("rate", "be positive", count),
            Problem::NoPeriod => ConfigError::new("period", "be positive", format_args!("{period:?}")),
            Problem::TooSlow => {
                ConfigError::new("period", "be at most 2^62 ns (146 years)", format_args!("{period:?}"))
            }
            _ => ConfigError::new("rate", "be at most one per nanosecond", format_args!("{count} per {period:?}")),
        })
    }

    /// [`burst`](Self::burst) for input at run time.
    ///
    /// # Errors
    /// When `tokens` is 0, above 2^53 - 1, or would take more than 2^62 ns to come back.
    ///
    /// ```
    /// let error = tollgate::Rate::per_second(5).try_burst(0).unwrap_err();
    /// assert_eq!(error.to_string(), "burst must be positive, got 0");
    /// ```
    pub fn try_burst(self, tokens: u64) -> Result<Self, ConfigError> {
        self.hold(tokens).map_err(|problem| match problem {
            Problem::NoBurst => ConfigError::new("burst", "be positive", tokens),
            _ => ConfigError::new(
                "burst",
                "be at most 2^53 - 1 and come back within 2^62 ns (146 years)",
                format_args!("{tokens} at one per {:?}", self.interval()),
            ),
        })
    }

    /// [`initial_tokens`](Self::initial_tokens) for input at run time.
    ///
    /// # Errors
    /// When `tokens` is above the burst.
    ///
    /// ```
    /// let error = tollgate::Rate::per_second(5).try_initial_tokens(6).unwrap_err();
    /// assert_eq!(error.to_string(), "initial tokens must be at most the burst of 5, got 6");
    /// ```
    pub fn try_initial_tokens(self, tokens: u64) -> Result<Self, ConfigError> {
        if tokens > self.burst {
            return Err(ConfigError::new("initial tokens", &format!("be at most the burst of {}", self.burst), tokens));
        }
        Ok(Self { initial: tokens, ..self })
    }

    /// The time between two tokens.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(4).interval().as_millis(), 250);
    /// ```
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How many tokens a full bucket holds.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(4).capacity(), 4);
    /// ```
    #[must_use]
    pub const fn capacity(&self) -> u64 {
        self.burst
    }

    /// How many tokens a newcomer finds.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(4).newcomer_tokens(), 4);
    /// ```
    #[must_use]
    pub const fn newcomer_tokens(&self) -> u64 {
        self.initial
    }

    /// The time in which an empty bucket fills.
    ///
    /// ```
    /// assert_eq!(tollgate::Rate::per_second(5).burst(10).span().as_secs(), 2);
    /// ```
    #[must_use]
    pub const fn span(&self) -> Duration {
        Duration::from_nanos(self.span_ns())
    }

    /// Nanoseconds between two tokens.
    pub(crate) const fn interval_ns(&self) -> u64 {
        self.interval
    }

    /// Nanoseconds in which an empty bucket fills: at most 2^62.
    pub(crate) const fn span_ns(&self) -> u64 {
        self.interval * self.burst
    }

    /// Nanoseconds in which an empty bucket fills as people set it: without what the intervals were rounded up by, or
    /// three a second would be told as three in two seconds.
    pub(crate) fn window_ns(&self) -> u64 {
        self.span_ns() - (self.burst - 1).min(self.span_ns() / 1_000)
    }

    const fn measure(count: u64, period: Duration) -> Result<Self, Problem> {
        let span = period.as_nanos();
        if count == 0 {
            return Err(Problem::Zero);
        }
        if span == 0 {
            return Err(Problem::NoPeriod);
        }
        if span > MAX_SPAN as u128 {
            return Err(Problem::TooSlow);
        }
        if count as u128 > span {
            return Err(Problem::TooFast);
        }
        #[allow(clippy::cast_possible_truncation)]
        let interval = (span as u64).div_ceil(count);
        Self { interval, burst: 1, initial: 1 }.hold(count)
    }

    const fn hold(self, tokens: u64) -> Result<Self, Problem> {
        if tokens == 0 {
            return Err(Problem::NoBurst);
        }
        match self.interval.checked_mul(tokens) {
            Some(span) if span <= MAX_SPAN && tokens <= Cost::MAX.get() => {
                Ok(Self { interval: self.interval, burst: tokens, initial: tokens })
            }
            _ => Err(Problem::Span),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
    /// The same rate and burst as `quota`, as far as the bucket fills within 2^62 ns (146 years): beyond that the interval
    /// is cut to it, and the burst to what comes back in it.
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
    fn a_rate_is_rounded_so_that_nobody_is_faster() {
        assert_eq!(Rate::per_second(3).interval, 333_333_334);
        assert_eq!(Rate::per_second(1_000_000_000).interval, 1);
        assert_eq!(Rate::per_second(600_000_000).interval, 2);
    }

    #[test]
    fn a_rate_is_shown_as_what_it_is() {
        for count in [2, 3, 7, 50, 999, 1_000_000_000] {
            assert_eq!(Rate::per_second(count).to_string(), format!("{count} per 1s, burst {count}"));
        }
        assert_eq!(Rate::per_second(1).to_string(), "1 per 1s, burst 1");
        assert_eq!(Rate::per(3, Duration::from_secs(2)).to_string(), "1 per 666.666667ms, burst 3");
        assert_eq!(Rate::per_minute(2).to_string(), "1 per 30s, burst 2");
    }

    #[test]
    fn what_cannot_be_is_refused_with_value_and_reason() {
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
    fn governors_quota_becomes_the_same_rate() {
        let fifty = std::num::NonZeroU32::new(50).unwrap();
        assert_eq!(Rate::from(governor::Quota::per_second(fifty)), Rate::per_second(50));
        for years in [1, 147, 300, 584, 1_000] {
            let quota = governor::Quota::with_period(Duration::from_secs(31_536_000 * years)).unwrap();
            assert!(Rate::from(quota.allow_burst(fifty)).span_ns() <= MAX_SPAN, "{years} years");
        }
    }
}
