//! Rules by which a circuit opens, with given counts.

use std::time::Duration;

use crate::circuit_breaker::{trip::Trip, window::Tally};

fn tally(calls: u64, failures: u64, slow: u64) -> Tally {
    Tally { calls, failures, slow }
}

#[test]
fn rate_opens_at_its_share_and_not_below() {
    let trip = Trip::failure_rate(0.07);
    assert_eq!(trip.judge(tally(100, 7, 0), 0), Some("failure_rate"));
    assert_eq!(trip.judge(tally(100, 6, 0), 0), None);
    assert_eq!(trip.judge(tally(19, 19, 0), 0), None, "too few to tell");
    for percent in 1..=99 {
        let share: f64 = format!("0.{percent:02}").parse().unwrap();
        let trip = Trip::failure_rate(share);
        assert!(trip.judge(tally(100, percent, 0), 0).is_some(), "{percent} of 100");
        assert!(trip.judge(tally(100, percent - 1, 0), 0).is_none(), "{percent} of 100");
    }
}

#[test]
fn each_rate_has_its_own_minimum_of_calls() {
    let trip = Trip::failure_rate(0.5).min_requests(4).or(Trip::slow_rate(0.5).min_requests(10));
    assert_eq!(trip.judge(tally(4, 2, 4), 0), Some("failure_rate"));
    assert_eq!(trip.judge(tally(9, 0, 9), 0), None);
    assert_eq!(trip.judge(tally(10, 0, 5), 0), Some("slow_rate"));
    assert_eq!(trip.or(Trip::consecutive(3)).judge(tally(3, 3, 0), 3), Some("consecutive_failures"));
}

#[test]
fn invalid_values_are_rejected_with_value_and_reason() {
    let text = |trip: Trip| trip.check().unwrap_err().to_string();
    for share in [0.0, -0.5, 1.000_1, f64::NAN, f64::INFINITY] {
        let expected = format!("failure rate must be above 0 and at most 1, got {share}");
        assert_eq!(text(Trip::failure_rate(share)), expected);
    }
    let half = Trip::failure_rate(0.5);
    assert_eq!(text(half.over_calls(0)), "window must be from 1 to 1,000,000 calls, got 0");
    assert_eq!(text(half.over_calls(1_000_001)), "window must be from 1 to 1,000,000 calls, got 1000001");
    assert!(half.over_calls(1_000_000).check().is_ok());
    assert_eq!(text(half.over_time(Duration::ZERO)), "window must be positive, got 0s");
    assert_eq!(text(half.min_requests(0)), "min_requests must be positive, got 0");
    assert_eq!(text(half.min_requests(101)), "min_requests must be at most the window of 100, got 101");
    assert!(half.over_calls(5).check().is_ok(), "the default minimum fits every window");
    assert_eq!(text(Trip::consecutive(0)), "consecutive failures must be positive, got 0");
    assert_eq!(text(half.slow_after(Duration::ZERO)), "slow_after must be positive, got 0s");
    let twice = half.over_calls(5).or(Trip::slow_rate(0.5).over_calls(6));
    assert_eq!(text(twice), "window must be set once for all rules, got two values");
}
