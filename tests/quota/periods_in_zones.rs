//! Periods by the clocks of a zone, including clock changes.

use std::time::{Duration, SystemTime};

use jiff::{Timestamp, tz};
use tollgate::{Period, Window};

const NANO: Duration = Duration::from_nanos(1);

fn at(text: &str) -> Duration {
    let timestamp: Timestamp = text.parse().unwrap();
    Duration::try_from(timestamp.as_duration()).unwrap()
}

fn all() -> [Period; 5] {
    let anchor = SystemTime::UNIX_EPOCH + at("2003-01-31T23:30:00Z");
    [Period::hour(), Period::day(), Period::week(), Period::month(), Period::billing_month(anchor).unwrap()]
}

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

/// Each zone of the database, at each of its clock changes and a nanosecond before and after.
#[test]
fn periods_tile_time_wherever_clocks_are_set() {
    let names: Vec<String> = tz::db().available().map(|name| name.to_string()).collect();
    assert!(names.len() > 400, "{} zones", names.len());
    let (first, last) = (at("1970-03-01T00:00:00Z"), at("2038-01-01T00:00:00Z"));
    let mut tried = 0;
    for name in &names {
        let zone = tz::TimeZone::get(name).unwrap();
        let periods = all().map(|period| period.in_zone(name).unwrap());
        let start = Timestamp::try_from(SystemTime::UNIX_EPOCH + first).unwrap();
        for set in zone.following(start) {
            let set = Duration::try_from(set.timestamp().as_duration()).unwrap();
            if set >= last {
                break;
            }
            for period in &periods {
                for wall in [set - NANO, set, set + NANO] {
                    assert_tiles(period, wall);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 300_000, "{tried} windows");
}

#[test]
fn day_may_start_at_one_in_the_morning() {
    let day = Period::day().in_zone("America/Sao_Paulo").unwrap();
    let window = assert_tiles(&day, at("2018-11-04T12:00:00Z"));
    assert_eq!(window.start(), at("2018-11-04T03:00:00Z")); // 01:00 by the clocks, which skipped midnight
    assert_eq!(window.end() - window.start(), Duration::from_secs(23 * 3_600));
}

#[test]
fn day_continues_when_clocks_fall_back_over_midnight() {
    // At 00:01 on 1 November 1987 the clocks of St. John's went back to 23:01 on 31 October.
    let day = Period::day().in_zone("America/St_Johns").unwrap();
    let begun = assert_tiles(&day, at("1987-10-25T02:30:30Z"));
    let again = assert_tiles(&day, at("1987-10-25T02:31:30Z"));
    assert_eq!(begun, again);
    assert_eq!(begun.start(), at("1987-10-25T02:30:00Z"));
    let month = Period::month().in_zone("America/St_Johns").unwrap();
    assert_tiles(&month, at("1987-10-25T02:31:30Z"));
}

#[test]
fn skipped_day_is_no_window() {
    // Samoa went from 29 to 31 December 2011.
    let day = Period::day().in_zone("Pacific/Apia").unwrap();
    let last = assert_tiles(&day, at("2011-12-30T09:59:59Z"));
    let next = assert_tiles(&day, at("2011-12-30T10:00:00Z"));
    assert_eq!(last.end(), next.start());
    assert_eq!(next.end() - next.start(), Duration::from_secs(86_400));
}

#[test]
fn repeated_hour_is_two_windows() {
    let hour = Period::hour().in_zone("Europe/Berlin").unwrap();
    let first = assert_tiles(&hour, at("2026-10-25T00:30:00Z"));
    let second = assert_tiles(&hour, at("2026-10-25T01:30:00Z"));
    assert_eq!((first.end(), second.start()), (at("2026-10-25T01:00:00Z"), at("2026-10-25T01:00:00Z")));
    assert_eq!(second.end(), at("2026-10-25T02:00:00Z"));
}

#[test]
fn half_hour_clock_change_cuts_the_hour() {
    // Lord Howe Island goes back from 02:00 to 01:30.
    let hour = Period::hour().in_zone("Australia/Lord_Howe").unwrap();
    let whole = assert_tiles(&hour, at("2026-04-04T14:30:00Z"));
    let half = assert_tiles(&hour, at("2026-04-04T15:15:00Z"));
    assert_eq!(whole.end() - whole.start(), Duration::from_secs(3_600));
    assert_eq!(half.end() - half.start(), Duration::from_secs(1_800));
}

#[test]
fn month_in_a_zone_begins_at_its_midnight() {
    let month = Period::month().in_zone("Asia/Tokyo").unwrap();
    assert_eq!(month.window_at(at("2026-11-30T15:00:00Z")).start(), at("2026-11-30T15:00:00Z"));
    let contract = Period::billing_month(SystemTime::UNIX_EPOCH + at("2026-01-30T20:00:00Z")).unwrap(); // the 31st, 05:00
    let contract = contract.in_zone("Asia/Tokyo").unwrap();
    assert_eq!(contract.window_at(at("2026-03-01T00:00:00Z")).start(), at("2026-02-27T20:00:00Z")); // the 28th, 05:00
}

#[test]
fn no_time_is_out_of_range() {
    for period in all().map(|period| period.in_zone("Europe/Berlin").unwrap()) {
        for wall in
            [Duration::ZERO, NANO, at("9000-01-01T00:00:00Z") - NANO, Duration::from_nanos(u64::MAX), Duration::MAX]
        {
            let _ = period.window_at(wall);
        }
        assert!(period.window_at(Duration::ZERO).contains(Duration::ZERO), "{period}");
    }
    assert!(Period::rolling(Duration::from_secs(60)).in_zone("Europe/Berlin").is_err());
    assert!(Period::day().in_zone("Atlantis").is_err());
}
