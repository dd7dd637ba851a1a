use std::time::Duration;

use super::{Bucket, SECOND, at};
use crate::{
    cost::Cost,
    token_bucket::{
        gcra::{self, Decision},
        rate::Rate,
    },
};

#[test]
fn five_at_once_pass_and_refusals_change_nothing() {
    let rate = Rate::per_second(1).burst(5);
    let mut bucket = Bucket::default();
    assert!((0..5).all(|_| bucket.admits(&rate, 1, SECOND)));
    let before = bucket.0;
    assert!((0..1_000).all(|_| !bucket.admits(&rate, 1, SECOND)));
    assert_eq!(bucket.0, before);
    assert!(bucket.admits(&rate, 2, 3 * SECOND));
    assert!(!bucket.admits(&rate, 1, 3 * SECOND));
}

#[test]
fn cost_above_the_burst_never_passes() {
    let rate = Rate::per_second(1).burst(5);
    for cost in [6, 1_844_674_409, Cost::MAX.get()] {
        assert_eq!(gcra::decide(&rate, None, Cost::new(cost), at(SECOND)), Decision::TooLarge);
    }
}

/// A wrapping product of burst and interval admits thousands where a token is a day away.
#[test]
fn large_burst_at_one_a_day_is_held() {
    let day = Duration::from_secs(86_400);
    for burst in [1_000, 50_000] {
        let rate = Rate::every(day).burst(burst);
        let mut bucket = Bucket::default();
        assert!(bucket.admits(&rate, burst, SECOND));
        assert_eq!(bucket.ask(&rate, Cost::ONE, SECOND), Decision::Refused { wait: day });
        assert_eq!(gcra::decide(&rate, None, Cost::new(213_505), at(SECOND)), Decision::TooLarge);
    }
    assert!(Rate::every(day).try_burst(300_000).is_err(), "it would take 821 years to fill");
}

/// An idle bucket is full and not fuller.
#[test]
fn rest_brings_one_burst_and_no_more() {
    let rate = Rate::per_second(10).burst(20);
    for rest in [2, 3, 4, 60, 86_400] {
        let mut bucket = Bucket::default();
        assert!(bucket.admits(&rate, 20, SECOND));
        let passed = (0..100).filter(|_| bucket.admits(&rate, 1, SECOND + rest * SECOND)).count();
        assert_eq!(passed, 20, "after {rest} s");
    }
}

#[test]
fn newcomer_without_tokens_gets_them_in_time() {
    let rate = Rate::per_second(1).burst(5).initial_tokens(0);
    let mut bucket = Bucket::default();
    assert_eq!(bucket.ask(&rate, Cost::new(2), SECOND), Decision::Refused { wait: Duration::from_secs(2) });
    assert!(!bucket.admits(&rate, 2, 3 * SECOND - 1));
    assert!(bucket.admits(&rate, 2, 3 * SECOND));
}

#[test]
fn cost_of_2_to_the_53_less_1_is_counted_exactly() {
    let rate = Rate::per_second(1_000_000_000).burst(Cost::MAX.get());
    let mut bucket = Bucket::default();
    assert!(bucket.admits(&rate, Cost::MAX.get(), SECOND));
    let refused = bucket.ask(&rate, Cost::MAX, SECOND + 1);
    assert_eq!(refused, Decision::Refused { wait: Duration::from_nanos(Cost::MAX.get() - 1) });
}
