//! How long a quota lasts before it starts again.
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
mod instant;
mod window;
#[cfg(feature = "zones")]
mod zone;

use std::{
    borrow::Cow,
    fmt,
    time::{Duration, SystemTime},
};

pub(crate) use instant::Instant;
pub use window::Window;

use crate::error::ConfigError;

/// How long a quota lasts before it starts again.
///
/// Calendar periods begin for everybody at the same time: by UTC, or in a named zone (feature `zones`). Rolling ones begin
/// with a client's first use.
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
    /// A month from an instant, since 1970.
    Billing(Duration),
    Rolling(Duration),
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    Once(Window),
}

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_653 * 86_400);

impl Period {
    /// The hours of the day.
    ///
    /// In a zone whose clocks are set by part of an hour, the hour in which they are set is cut short.
    ///
    /// ```
    /// assert_eq!(tollgate::Period::hour().longest().as_secs(), 3_600);
    /// ```
    #[must_use]
    pub const fn hour() -> Self {
        Self::of(Unit::Hour)
    }

    /// The days of the calendar, from midnight: from its first instant where the clocks skip midnight.
    ///
    /// ```
    /// assert_eq!(tollgate::Period::day().name(), "day");
    /// ```
    #[must_use]
    pub const fn day() -> Self {
        Self::of(Unit::Day)
    }

    /// Weeks, from Monday (ISO 8601).
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

    /// The months of the calendar, from the first day.
    ///
    /// ```
    /// use std::time::Duration;
    /// let january = tollgate::Period::month().window_at(Duration::ZERO);
    /// assert_eq!(january.end(), Duration::from_secs(31 * 86_400));
    /// ```
    #[must_use]
    pub const fn month() -> Self {
        Self::of(Unit::Month)
    }

    /// `length` from the first use; the next one begins with the first use after its end.
    ///
    /// # Panics
    /// When `length` is below a second or above ten years; in a `const` that is a compile error.
    ///
    /// ```
    /// use std::time::Duration;
    /// const MINUTE: tollgate::Period = tollgate::Period::rolling(Duration::from_secs(60));
    /// ```
    /// ```compile_fail
    /// const NEVER: tollgate::Period = tollgate::Period::rolling(std::time::Duration::ZERO);
    /// ```
    #[must_use]
    pub const fn rolling(length: Duration) -> Self {
        assert!(fits(length), "length of a rolling period must be from 1 s to 10 years");
        Self::of(Unit::Rolling(length))
    }

    /// A rolling period whose length is input at run time.
    ///
    /// # Errors
    /// When `length` is below a second or above ten years.
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

    /// Months that begin at the day and time of `anchor`, such as the beginning of a contract.
    ///
    /// A month without that day begins at its last one: after the 31st of January comes the 28th of February, and then the
    /// 31st of March.
    ///
    /// # Errors
    /// When `anchor` lies before 1970 or after 9000.
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
                "lie between 1970 and 9000",
                format_args!("{anchor:?}"),
            )),
        }
    }

    /// The same period by the clocks of a zone, such as `Europe/Berlin`.
    ///
    /// A day is what those clocks call one: 23 or 25 hours when they are set. A period that has begun goes on when they are
    /// set back across its beginning.
    ///
    /// # Errors
    /// When no zone has this name, or the period is a rolling one, which no clock tells.
    ///
    /// ```
    /// use tollgate::Period;
    /// let day = Period::day().in_zone("America/Sao_Paulo").unwrap();
    /// assert!(Period::day().in_zone("Atlantis").unwrap_err().to_string().ends_with("got \"Atlantis\""));
    /// ```
    #[cfg(feature = "zones")]
    pub fn in_zone(self, name: &str) -> Result<Self, ConfigError> {
        if let Unit::Rolling(_) = self.unit {
            return Err(ConfigError::new("period in a zone", "be one of the calendar", self));
        }
        Ok(Self { zone: Some(zone::Zone::named(name)?), ..self })
    }

    /// The window in which `wall` lies, the time since 1970-01-01 00:00 UTC; of a rolling period the one that begins then.
    ///
    /// What lies after the year 9000 is one window.
    ///
    /// ```
    /// use std::time::Duration;
    /// let window = tollgate::Period::hour().window_at(Duration::from_secs(5_000));
    /// assert_eq!((window.start().as_secs(), window.end().as_secs()), (3_600, 7_200));
    /// ```
    #[must_use]
    pub fn window_at(&self, wall: Duration) -> Window {
        #[cfg(any(feature = "sqlite", feature = "postgres"))]
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

    /// Whether it begins for everybody at the same time.
    ///
    /// ```
    /// assert!(tollgate::Period::day().is_calendar());
    /// ```
    #[must_use]
    pub const fn is_calendar(&self) -> bool {
        !matches!(self.unit, Unit::Rolling(_))
    }

    /// Whether it begins and ends at whole microseconds, which is what databases know.
    pub(crate) const fn is_of_whole_microseconds(&self) -> bool {
        match self.unit {
            Unit::Rolling(offset) | Unit::Billing(offset) => offset.subsec_nanos().is_multiple_of(1_000),
            _ => true,
        }
    }

    /// How long it is at most, but for the hour by which clocks are set: a month has 31 days.
    ///
    /// ```
    /// assert_eq!(tollgate::Period::month().longest().as_secs(), 31 * 86_400);
    /// ```
    #[must_use]
    pub const fn longest(&self) -> Duration {
        match self.unit {
            Unit::Hour => Duration::from_secs(3_600),
            Unit::Day => Duration::from_secs(86_400),
            Unit::Week => Duration::from_secs(7 * 86_400),
            Unit::Month | Unit::Billing(_) => Duration::from_secs(31 * 86_400),
            Unit::Rolling(length) => length,
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Unit::Once(window) => window.left(window.start()),
        }
    }

    /// The period as one word, such as `hour` or `90s`.
    ///
    /// ```
    /// use std::time::Duration;
    /// assert_eq!(tollgate::Period::rolling(Duration::from_secs(90)).name(), "90s");
    /// ```
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        Cow::Borrowed(match self.unit {
            Unit::Hour => "hour",
            Unit::Day => "day",
            Unit::Week => "week",
            Unit::Month => "month",
            Unit::Billing(_) => "billing_month",
            Unit::Rolling(length) => return Cow::Owned(format!("{length:?}")),
            #[cfg(any(feature = "sqlite", feature = "postgres"))]
            Unit::Once(_) => "once",
        })
    }

    /// One stretch of time and no other: what is left of a period of which only its window is known.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
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
