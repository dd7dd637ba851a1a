//! Periods of quotas and their windows.
//!
//! ```
//! use std::time::Duration;
//! use tollgate::Period;
//!
//! let noon = Duration::from_secs(12 * 3_600); // of 1970-01-01
//! let today = Period::day().window_at(noon);
//! assert_eq!(today.left(noon), Duration::from_secs(12 * 3_600));
//! assert_eq!(Period::day().window_at(today.end()).start(), today.end());
//! ```

mod civil;
mod text;
mod window;
#[cfg(feature = "zones")]
mod zone;

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

pub(crate) use civil::Instant;
#[cfg(feature = "serde")]
pub(crate) use text::PeriodText;
pub use window::Window;

use crate::error::ConfigError;

/// Repeating span of a quota, after which it counts from zero again.
///
/// Calendar periods begin for all clients at the same time: by UTC, or in a named zone (feature `zones`). Rolling
/// periods begin with a client's first use.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Period;
///
/// assert!(Period::month().is_calendar());
/// assert!(!Period::rolling(Duration::from_secs(90)).is_calendar());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Period {
    unit: Unit,
    #[cfg(feature = "zones")]
    zone: Option<zone::Zone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Hour,
    Day,
    Week,
    Month,
    /// Months that begin at the day and time of an instant since 1970.
    Billing(Duration),
    Rolling(Duration),
    Once(Window),
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_653 * 86_400);

impl Period {
    /// Returns the hours of the day.
    ///
    /// In a zone whose clocks are set by part of an hour, the hour in which they are set is cut short.
    #[must_use]
    pub const fn hour() -> Self {
        Self::of(Unit::Hour)
    }

    /// Returns the days of the calendar, from midnight. A day on which the clocks skip midnight begins at its first
    /// instant.
    #[must_use]
    pub const fn day() -> Self {
        Self::of(Unit::Day)
    }

    /// Returns weeks, from Monday (ISO 8601).
    ///
    /// ```
    /// use std::time::Duration;
    /// let first = tollgate::Period::week().window_at(Duration::ZERO); // a Thursday
    /// assert_eq!(first.end(), Duration::from_secs(4 * 86_400));
    /// ```
    #[must_use]
    pub const fn week() -> Self {
        Self::of(Unit::Week)
    }

    /// Returns the months of the calendar, from the first day.
    #[must_use]
    pub const fn month() -> Self {
        Self::of(Unit::Month)
    }

    /// Returns spans of `length` from a client's first use. The next one begins with the first use after its end.
    ///
    /// # Panics
    /// If `length` is below 1 s or above 10 years; in a `const` that is a compile error.
    ///
    /// ```
    /// use std::time::Duration;
    /// const MINUTE: tollgate::Period = tollgate::Period::rolling(Duration::from_secs(60));
    /// ```
    /// ```compile_fail
    /// const NEVER: tollgate::Period = tollgate::Period::rolling(std::time::Duration::ZERO);
    /// ```
    #[must_use]
    #[track_caller]
    pub const fn rolling(length: Duration) -> Self {
        assert!(fits(length), "length of a rolling period must be from 1 s to 10 years");
        Self::of(Unit::Rolling(length))
    }

    /// [`rolling`](Self::rolling) for input at run time.
    ///
    /// # Errors
    /// If `length` is below 1 s or above 10 years.
    ///
    /// ```
    /// use std::time::Duration;
    /// let error = tollgate::Period::try_rolling(Duration::ZERO).unwrap_err();
    /// assert_eq!(error.to_string(), "length of a rolling period must be from 1 s to 10 years, got 0ns");
    /// ```
    pub fn try_rolling(length: Duration) -> Result<Self, ConfigError> {
        if fits(length) {
            Ok(Self::of(Unit::Rolling(length)))
        } else {
            Err(ConfigError::new("length of a rolling period", "be from 1 s to 10 years", format_args!("{length:?}")))
        }
    }

    /// Returns months that begin at the day and time of `anchor`, such as the start of a contract.
    ///
    /// A month without that day begins on its last day: January 31 is followed by February 28 and then by March 31.
    ///
    /// # Errors
    /// If `anchor` is before 1970 or after 9000.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tollgate::Period;
    ///
    /// let day = |number: u64| Duration::from_secs(number * 86_400);
    /// let period = Period::billing_month(SystemTime::UNIX_EPOCH + day(30)).unwrap(); // 1970-01-31
    /// let february = period.window_at(day(40));
    /// assert_eq!((february.start(), february.end()), (day(30), day(58))); // until 1970-02-28
    /// assert_eq!(period.window_at(february.end()).end(), day(89)); // until 1970-03-31
    /// ```
    pub fn billing_month(anchor: SystemTime) -> Result<Self, ConfigError> {
        match anchor.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) if since < civil::END => Ok(Self::of(Unit::Billing(since))),
            _ => Err(ConfigError::new(
                "anchor of a billing month",
                "be between 1970 and 9000",
                format_args!("{anchor:?}"),
            )),
        }
    }

    /// Returns the same period by the clocks of a zone, such as `Europe/Berlin`.
    ///
    /// A day is a day of those clocks: it has 23 or 25 hours when they are set. A period that has begun continues when
    /// they are set back across its start.
    ///
    /// # Errors
    /// If no zone has this name, or the period is a rolling one, which follows no clock.
    ///
    /// ```
    /// use tollgate::Period;
    /// let day = Period::day().in_zone("America/Sao_Paulo").unwrap();
    /// assert!(Period::day().in_zone("Atlantis").unwrap_err().to_string().ends_with("got \"Atlantis\""));
    /// ```
    #[cfg(feature = "zones")]
    pub fn in_zone(self, name: &str) -> Result<Self, ConfigError> {
        if let Unit::Rolling(_) = self.unit {
            return Err(ConfigError::new("period in a zone", "be a calendar period", self));
        }
        Ok(Self { zone: Some(zone::Zone::named(name)?), ..self })
    }

    /// Returns the window that contains `wall`, the time since 1970-01-01 00:00 UTC. That of a rolling period begins at
    /// `wall`.
    ///
    /// The time after the year 9000 is one window.
    ///
    /// ```
    /// use std::time::Duration;
    /// let window = tollgate::Period::hour().window_at(Duration::from_secs(5_000));
    /// assert_eq!((window.start().as_secs(), window.end().as_secs()), (3_600, 7_200));
    /// ```
    #[must_use]
    pub fn window_at(&self, wall: Duration) -> Window {
        if let Unit::Once(window) = self.unit {
            return window;
        }
        if wall >= civil::END {
            return Window::new(civil::END, Duration::MAX);
        }
        #[cfg(feature = "zones")]
        if let Some(zone) = &self.zone {
            return zone.window(self.unit, wall);
        }
        civil::window(self.unit, wall)
    }

    /// Returns whether its windows begin for all clients at the same time.
    #[must_use]
    pub const fn is_calendar(&self) -> bool {
        !matches!(self.unit, Unit::Rolling(_))
    }

    /// Returns whether its windows begin and end at whole microseconds, the resolution of databases.
    pub(crate) const fn is_of_whole_microseconds(&self) -> bool {
        match self.unit {
            Unit::Rolling(offset) | Unit::Billing(offset) => offset.subsec_nanos().is_multiple_of(1_000),
            _ => true,
        }
    }

    /// Returns the length of its longest window, such as 31 days of a month, without the hour by which clocks are set.
    #[must_use]
    pub const fn longest(&self) -> Duration {
        match self.unit {
            Unit::Hour => Duration::from_secs(3_600),
            Unit::Day => Duration::from_secs(86_400),
            Unit::Week => Duration::from_secs(7 * 86_400),
            Unit::Month | Unit::Billing(_) => Duration::from_secs(31 * 86_400),
            Unit::Rolling(length) => length,
            Unit::Once(window) => window.left(window.start()),
        }
    }

    /// Returns the period as one word, such as `hour`, `billing_month` or `90s`.
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self.unit {
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Billing(_) => "billing_month",
            Unit::Rolling(length) => return Cow::Owned(format!("{length:?}")),
            Unit::Once(_) => "once",
        })
    }

    /// Returns a text that no other period has, by which stores tell the counters of limits of one name apart.
    pub(crate) fn key(&self) -> String {
        match self.unit {
            Unit::Billing(anchor) => format!("{self} from {anchor:?}"),
            Unit::Once(window) => format!("{self} {:?} to {:?}", window.start(), window.end()),
            _ => self.to_string(),
        }
    }

    /// Creates a period with one window only, to represent a stored period of which only the window is known.
    #[allow(dead_code, reason = "only a ledger restores periods")]
    pub(crate) const fn once(start: Duration, end: Duration) -> Self {
        Self::of(Unit::Once(Window::new(start, end)))
    }

    const fn of(unit: Unit) -> Self {
        Self {
            unit,
            #[cfg(feature = "zones")]
            zone: None,
        }
    }
}

const fn fits(length: Duration) -> bool {
    length.as_nanos() >= SHORTEST.as_nanos() && length.as_nanos() <= LONGEST.as_nanos()
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        #[cfg(feature = "zones")]
        if let Some(zone) = &self.zone {
            write!(f, " in {zone}")?;
        }
        Ok(())
    }
}
