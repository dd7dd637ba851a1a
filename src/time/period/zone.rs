//! The calendar of a zone, whose clocks are set now and then.

use std::{fmt, time::Duration};

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, Offset, TimeZone},
};

use super::{Unit, Window, civil};
use crate::error::ConfigError;

/// A zone of the tz database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone(TimeZone);

impl Zone {
    pub(super) fn named(name: &str) -> Result<Self, ConfigError> {
        TimeZone::get(name).map(Self).map_err(|_| ConfigError::quoted("zone", "be a name of the tz database", name))
    }

    /// The window in which `wall` lies; what began before 1970 begins with it.
    pub(super) fn window(&self, unit: Unit, wall: Duration) -> Window {
        let found = match unit {
            Unit::Hour => self.hour(wall),
            Unit::Rolling(_) => None, // no clock tells it
            unit => self.calendar(unit, wall),
        };
        // No time that comes here is one that the calendar does not know.
        found.unwrap_or_else(|| civil::window(unit, wall))
    }

    /// An hour by the clocks as they are set at `wall`, cut off where they are set.
    fn hour(&self, wall: Duration) -> Option<Window> {
        const HOUR: i128 = 3_600_000_000_000;
        let (now, at) = (nanos(wall), timestamp(wall)?);
        let offset = self.0.to_offset(at);
        let ahead = i128::from(offset.seconds()) * 1_000_000_000;
        let mut start = (now + ahead).div_euclid(HOUR) * HOUR - ahead;
        let mut end = start + HOUR;
        let next = Timestamp::from_nanosecond(now + 1).ok()?;
        let differs = |at: i128| Timestamp::from_nanosecond(at).is_ok_and(|at| self.0.to_offset(at) != offset);
        for set in self.0.preceding(next).map(|set| set.timestamp().as_nanosecond()).take_while(|set| *set > start) {
            if differs(set - 1) {
                start = set;
                break;
            }
        }
        for set in self.0.following(at).map(|set| set.timestamp().as_nanosecond()).take_while(|set| *set < end) {
            if differs(set) {
                end = set;
                break;
            }
        }
        Some(between(start, end))
    }

    /// From the last beginning of a unit to the next one. Clocks that are set across a beginning, or across whole days,
    /// make the unit that they show another than the one that is under way: so the neighbours are looked at too.
    fn calendar(&self, unit: Unit, wall: Duration) -> Option<Window> {
        let now = nanos(wall);
        let shown = Beginnings::of(unit, &self.0)?.number(self.0.to_datetime(timestamp(wall)?));
        let beginnings = Beginnings::of(unit, &self.0)?;
        let (mut start, mut end) = (None, None);
        for number in shown - 2..=shown + 3 {
            let begins = self.first_instant(beginnings.civil(number)?)?;
            if begins <= now {
                start = Some(begins);
            } else {
                end = end.or(Some(begins));
            }
        }
        Some(between(start?, end?))
    }

    /// The first instant at which the clocks show this time or a later one.
    fn first_instant(&self, civil: DateTime) -> Option<i128> {
        let at = |offset: Offset| offset.to_timestamp(civil).ok();
        Some(match self.0.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset)?.as_nanosecond(),
            AmbiguousOffset::Fold { before, .. } => at(before)?.as_nanosecond(), // the first of two times
            AmbiguousOffset::Gap { before, .. } => {
                // The clocks never show it: it is when they were set that they first show a later one.
                let after = at(before)?;
                let next = Timestamp::from_nanosecond(after.as_nanosecond() + 1).ok()?;
                self.0.preceding(next).next().map_or(after, |set| set.timestamp()).as_nanosecond()
            }
        })
    }
}

/// Where the units of a calendar begin, on the clocks.
enum Beginnings {
    Days(i64),
    /// From a day of the month, and a time of it.
    Months(i8, Time),
}

impl Beginnings {
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

    /// The number of the unit that clocks show.
    fn number(&self, shown: DateTime) -> i64 {
        match self {
            Self::Days(days) => days_since(MONDAY, shown.date()).div_euclid(*days),
            Self::Months(..) => i64::from(shown.year()) * 12 + i64::from(shown.month()) - 1,
        }
    }

    /// What clocks show when the unit of this number begins.
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

fn days_since(start: Date, date: Date) -> i64 {
    debug_assert_eq!(start.weekday(), Weekday::Monday);
    start.duration_until(date).as_hours() / 24
}

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
