//! The calendar of UTC, where every day has 86,400 seconds.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use super::{Unit, Window};

/// End of the calendar: 9000-01-01.
pub(super) const END: Duration = Duration::from_secs(221_845_392_000);

const DAY: i64 = 86_400;

/// Returns the window that contains `wall`. One that began before 1970 is cut at 1970.
pub(super) fn window(unit: Unit, wall: Duration) -> Window {
    let seconds = i64::try_from(wall.as_secs()).unwrap_or(i64::MAX);
    let day = seconds / DAY;
    let (start, end) = match unit {
        Unit::Hour => {
            let hour = seconds / 3_600 * 3_600;
            (hour, hour + 3_600)
        }
        Unit::Day => (day * DAY, (day + 1) * DAY),
        Unit::Week => {
            let monday = day - (day + 3) % 7; // day 0 was a Thursday
            (monday * DAY, (monday + 7) * DAY)
        }
        Unit::Month => {
            let month = Month::of(day);
            (month.day(1) * DAY, month.next(1).day(1) * DAY)
        }
        Unit::Billing(anchor) => return billing(anchor, wall, day),
        Unit::Rolling(length) => return Window::new(wall, wall.saturating_add(length)),
        Unit::Once(window) => return window,
    };
    let at = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    Window::new(at(start), at(end))
}

fn billing(anchor: Duration, wall: Duration, day: i64) -> Window {
    let anchor_day = i64::try_from(anchor.as_secs()).unwrap_or(0) / DAY;
    let (of_month, of_day) =
        (Month::of(anchor_day).number_of(anchor_day), anchor - Duration::from_secs(anchor_day as u64 * DAY as u64));
    let begins = |month: Month| {
        let day = u64::try_from(month.day(of_month) * DAY);
        day.map_or(Duration::ZERO, |day| Duration::from_secs(day) + of_day)
    };
    let month = Month::of(day);
    if begins(month) <= wall {
        Window::new(begins(month), begins(month.next(1)))
    } else {
        Window::new(begins(month.next(-1)), begins(month))
    }
}

/// A time in RFC 3339's format, in UTC, with microseconds.
pub(crate) struct Instant(pub(crate) SystemTime);

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let day = i64::try_from(since.as_secs()).unwrap_or(i64::MAX) / DAY;
        let (month, second) = (Month::of(day), since.as_secs() % 86_400);
        let (year, month, day) = (month.0.div_euclid(12), month.0.rem_euclid(12) + 1, month.number_of(day));
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", since.subsec_micros())
    }
}

/// Month of a year, counted from January of the year 0.
#[derive(Clone, Copy, Debug)]
struct Month(i64);

impl Month {
    /// Returns the month of a day; day 0 is 1970-01-01.
    ///
    /// The arithmetic is `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>: years begin in
    /// March, so that the leap day is the last, and 400 years make an era.
    fn of(day: i64) -> Self {
        let day = day + 719_468;
        let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
        let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153; // from March
        Self((era * 400 + year) * 12 + month + 2)
    }

    const fn next(self, by: i64) -> Self {
        Self(self.0 + by)
    }

    /// Returns the number of days in the month.
    fn length(self) -> i64 {
        self.next(1).first() - self.first()
    }

    /// Returns the day of this number in the month, or the month's last day, by `days_from_civil` of the same source.
    fn day(self, number: i64) -> i64 {
        self.first() + number.min(self.length()) - 1
    }

    fn first(self) -> i64 {
        let from_march = self.0 - 2;
        let (year, month) = (from_march.div_euclid(12), from_march.rem_euclid(12));
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * month + 2) / 5;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }

    /// Returns the number of a day in the month, from 1.
    fn number_of(self, day: i64) -> i64 {
        day - self.first() + 1
    }
}
