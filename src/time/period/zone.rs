//! Calendar of a time zone, whose clocks are set forward and back.

use std::{fmt, time::Duration};

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, DateTime, Time},
    tz::{AmbiguousOffset, Offset, TimeZone},
};

use super::{Unit, Window, civil};
use crate::error::ConfigError;

/// Zone of the tz database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone(TimeZone);

impl Zone {
    pub(super) fn named(name: &str) -> Result<Self, ConfigError> {
        TimeZone::get(name).map(Self).map_err(|_| ConfigError::quoted("zone", "be a name of the tz database", name))
    }

    /// Returns the window that contains `wall`. One that began before 1970 is cut at 1970.
    pub(super) fn window(&self, unit: Unit, wall: Duration) -> Window {
        let found = match unit {
            Unit::Hour => self.hour(wall),
            Unit::Rolling(_) => None, // follows no clock
            unit => self.calendar(unit, wall),
        };
        // Times outside the zone's calendar never arrive here.
        found.unwrap_or_else(|| civil::window(unit, wall))
    }

    /// Returns an hour of the clocks as they are set at `wall`, cut at the moments at which they are set.
    fn hour(&self, wall: Duration) -> Option<Window> {
        const HOUR: i128 = 3_600_000_000_000;
        let (now, at) = (nanos(wall), timestamp(wall)?);
        let offset = self.0.to_offset(at);
        let ahead = i128::from(offset.seconds()) * 1_000_000_000;
        let start = (now + ahead).div_euclid(HOUR) * HOUR - ahead;
        let end = start + HOUR;
        let next = Timestamp::from_nanosecond(now + 1).ok()?;
        let differs = |at: i128| Timestamp::from_nanosecond(at).is_ok_and(|at| self.0.to_offset(at) != offset);
        let mut before =
            self.0.preceding(next).map(|set| set.timestamp().as_nanosecond()).take_while(|set| *set > start);
        let mut after = self.0.following(at).map(|set| set.timestamp().as_nanosecond()).take_while(|set| *set < end);
        let last_set = before.find(|set| differs(set - 1));
        let next_set = after.find(|set| differs(*set));
        Some(between(last_set.unwrap_or(start), next_set.unwrap_or(end)))
    }

    /// Returns the window from the last start of a unit to the next. Clocks that are set across a start, or across
    /// whole days, may show another unit than the current one, so the neighbours are tried too.
    fn calendar(&self, unit: Unit, wall: Duration) -> Option<Window> {
        let now = nanos(wall);
        let starts = UnitStarts::of(unit, &self.0)?;
        let shown = starts.number(self.0.to_datetime(timestamp(wall)?));
        let (mut start, mut end) = (None, None);
        for number in shown - 2..=shown + 3 {
            let begins = self.first_instant(starts.civil(number)?)?;
            if begins <= now {
                start = Some(begins);
            } else {
                end = end.or(Some(begins));
            }
        }
        Some(between(start?, end?))
    }

    /// Returns the first instant at which the clocks show this time or a later one.
    fn first_instant(&self, civil: DateTime) -> Option<i128> {
        let at = |offset: Offset| offset.to_timestamp(civil).ok();
        Some(match self.0.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset)?.as_nanosecond(),
            AmbiguousOffset::Fold { before, .. } => at(before)?.as_nanosecond(), // the first of two times
            AmbiguousOffset::Gap { before, .. } => {
                // The clocks skip it. They first show a later time at the moment at which they are set.
                let after = at(before)?;
                let next = Timestamp::from_nanosecond(after.as_nanosecond() + 1).ok()?;
                self.0.preceding(next).next().map_or(after, |set| set.timestamp()).as_nanosecond()
            }
        })
    }
}

/// Starts of the units of a calendar, by the clocks of a zone.
enum UnitStarts {
    Days(i64),
    /// A day of the month and a time of day.
    Months(i8, Time),
}

impl UnitStarts {
    fn of(unit: Unit, zone: &TimeZone) -> Option<Self> {
        Some(match unit {
            Unit::Week => Self::Days(7),
            Unit::Month => Self::Months(1, Time::midnight()),
            Unit::Billing(anchor) => {
                let anchor = zone.to_datetime(timestamp(anchor)?);
                Self::Months(anchor.day(), anchor.time())
            }
            _ => Self::Days(1),
        })
    }

    /// Returns the number of the unit that the clocks show.
    fn number(&self, shown: DateTime) -> i64 {
        match self {
            Self::Days(days) => MONDAY.duration_until(shown.date()).as_hours().div_euclid(24 * days),
            Self::Months(..) => i64::from(shown.year()) * 12 + i64::from(shown.month()) - 1,
        }
    }

    /// Returns the time that the clocks show at the start of the unit with this number.
    fn civil(&self, number: i64) -> Option<DateTime> {
        match self {
            Self::Days(days) => {
                let span = SignedDuration::from_hours(number.checked_mul(*days)?.checked_mul(24)?);
                MONDAY.checked_add(span).ok().map(|date| date.to_datetime(Time::midnight()))
            }
            Self::Months(day, time) => {
                let (year, month) =
                    (i16::try_from(number.div_euclid(12)).ok()?, i8::try_from(number.rem_euclid(12) + 1).ok()?);
                let first = Date::new(year, month, 1).ok()?;
                Date::new(year, month, (*day).min(first.days_in_month())).ok().map(|date| date.to_datetime(*time))
            }
        }
    }
}

/// A Monday.
const MONDAY: Date = jiff::civil::date(1970, 1, 5);

fn nanos(wall: Duration) -> i128 {
    i128::try_from(wall.as_nanos()).unwrap_or(i128::MAX)
}

fn timestamp(wall: Duration) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanos(wall)).ok()
}

fn between(start: i128, end: i128) -> Window {
    let at = |nanos: i128| {
        let nanos = u128::try_from(nanos).unwrap_or(0); // before 1970
        Duration::new(u64::try_from(nanos / 1_000_000_000).unwrap_or(u64::MAX), (nanos % 1_000_000_000) as u32)
    };
    Window::new(at(start), at(end))
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("a zone"))
    }
}
