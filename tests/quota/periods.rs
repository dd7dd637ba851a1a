//! Periods in UTC: they tile time and begin at calendar boundaries.

use std::time::{Duration, SystemTime};

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, date},
    tz::TimeZone,
};
use proptest::prelude::*;
use tollgate::{Period, Window};

const NANO: Duration = Duration::from_nanos(1);
const DAY: Duration = Duration::from_secs(86_400);

fn at(text: &str) -> Duration {
    let timestamp: Timestamp = text.parse().unwrap();
    Duration::try_from(timestamp.as_duration()).unwrap()
}

fn billing(anchor: &str) -> Period {
    Period::billing_month(SystemTime::UNIX_EPOCH + at(anchor)).unwrap()
}

fn utc(civil: DateTime) -> Duration {
    Duration::try_from(TimeZone::UTC.to_timestamp(civil).unwrap().as_duration()).unwrap()
}

/// Asserts that the window contains the instant and is adjacent to its neighbours.
fn assert_tiles(period: &Period, wall: Duration) -> Window {
    let window = period.window_at(wall);
    assert!(window.contains(wall), "{period} at {wall:?}: {window:?}");
    assert_eq!(period.window_at(window.start()), window, "{period} at {wall:?}");
    assert_eq!(period.window_at(window.end() - NANO), window, "{period} at {wall:?}");
    assert_eq!(period.window_at(window.end()).start(), window.end(), "{period} at {wall:?}");
    if let Some(before) = window.start().checked_sub(NANO) {
        assert_eq!(period.window_at(before).end(), window.start(), "{period} at {wall:?}");
    }
    window
}

#[test]
fn days_from_1970_to_2100_match_another_calendar() {
    let mut day = date(1970, 1, 2);
    while day < date(2100, 1, 1) {
        let wall = utc(day.at(0, 0, 0, 0));
        assert_eq!(Period::day().window_at(wall).start(), wall);
        assert_eq!(Period::day().window_at(wall + DAY - NANO).start(), wall);
        assert_eq!(Period::month().window_at(wall).start(), utc(day.first_of_month().at(0, 0, 0, 0)), "{day}");
        if day >= date(1970, 1, 5) {
            let monday: Date = day - i64::from(day.weekday().to_monday_zero_offset()).days();
            assert_eq!(Period::week().window_at(wall).start(), utc(monday.at(0, 0, 0, 0)), "{day}");
        }
        day = day.tomorrow().unwrap();
    }
}

#[test]
fn billing_month_from_january_31_keeps_the_last_days() {
    let period = billing("2026-01-31T14:05:00.000000007Z");
    let mut begins = vec![at("2026-01-31T14:05:00.000000007Z")];
    for _ in 0..13 {
        begins.push(period.window_at(*begins.last().unwrap()).end());
    }
    let days: Vec<_> = begins
        .iter()
        .map(|wall| Timestamp::from_nanosecond(wall.as_nanos().try_into().unwrap()).unwrap().to_string())
        .map(|text| text.replace("T14:05:00.000000007Z", ""))
        .collect();
    assert_eq!(
        days,
        [
            "2026-01-31",
            "2026-02-28",
            "2026-03-31",
            "2026-04-30",
            "2026-05-31",
            "2026-06-30",
            "2026-07-31",
            "2026-08-31",
            "2026-09-30",
            "2026-10-31",
            "2026-11-30",
            "2026-12-31",
            "2027-01-31",
            "2027-02-28",
        ]
    );
    assert_eq!(period.window_at(at("2028-02-29T14:06:00Z")).start(), at("2028-02-29T14:05:00.000000007Z"));
    assert_eq!(
        period.window_at(at("1999-12-31T00:00:00Z")).start(),
        at("1999-11-30T14:05:00.000000007Z"),
        "before the anchor"
    );
}

#[test]
fn no_time_is_out_of_range() {
    let all = [
        Period::hour(),
        Period::day(),
        Period::week(),
        Period::month(),
        billing("2026-01-31T14:05:00Z"),
        Period::rolling(DAY),
    ];
    let last = at("9000-01-01T00:00:00Z");
    for period in &all {
        for wall in
            [Duration::ZERO, NANO, last - NANO, last, last + NANO, Duration::from_nanos(u64::MAX), Duration::MAX - NANO]
        {
            assert!(period.window_at(wall).contains(wall), "{period} at {wall:?}");
        }
        let _ = period.window_at(Duration::MAX);
    }
    assert!(Period::billing_month(SystemTime::UNIX_EPOCH - NANO).is_err());
    assert!(Period::billing_month(SystemTime::UNIX_EPOCH + last).is_err());
}

#[test]
fn rolling_period_is_from_a_second_to_ten_years() {
    for bad in [Duration::ZERO, Duration::from_millis(999), Duration::from_secs(3_653 * 86_400 + 1), Duration::MAX] {
        let error = Period::try_rolling(bad).unwrap_err().to_string();
        assert!(error.ends_with(&format!("got {bad:?}")), "{error}");
    }
    let window = Period::rolling(DAY).window_at(at("2026-11-24T17:00:00Z"));
    assert_eq!((window.start(), window.end()), (at("2026-11-24T17:00:00Z"), at("2026-11-25T17:00:00Z")));
}

fn any_period() -> impl Strategy<Value = Period> {
    prop_oneof![
        Just(Period::hour()),
        Just(Period::day()),
        Just(Period::week()),
        Just(Period::month()),
        (0..4_000_000_000_000_000_000_u64)
            .prop_map(|anchor| Period::billing_month(SystemTime::UNIX_EPOCH + Duration::from_nanos(anchor)).unwrap()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn periods_tile_time(period in any_period(), wall in any::<u64>()) {
        let wall = Duration::from_nanos(wall).max(DAY * 40); // the first ones begin before 1970
        let window = assert_tiles(&period, wall);
        prop_assert!(window.end() - window.start() <= period.longest());
    }

    #[test]
    fn hour_is_that_of_another_calendar(wall in 0..4_000_000_000_000_000_000_i128) {
        let shown = TimeZone::UTC.to_datetime(Timestamp::from_nanosecond(wall).unwrap());
        let hour = utc(shown.date().at(shown.hour(), 0, 0, 0));
        let start = Period::hour().window_at(Duration::from_nanos(u64::try_from(wall).unwrap())).start();
        prop_assert_eq!(start, hour);
    }
}
