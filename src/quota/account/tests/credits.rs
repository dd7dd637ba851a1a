//! Credits that are forgotten in bursts: a bounded number for each call, and decisions as if all had been in time.

use super::*;
use crate::{
    identity::Digest,
    kind::Kind,
    quota::account::{credits::Credits, due_map::STEPS},
};

const HORIZON: Duration = Duration::from_secs(3_600);

fn after(time: Duration) -> Moment {
    Moment::from_nanos(HOUR) + time
}

/// Credits that are forgotten 1 ns apart, the first one after the horizon.
fn given(count: usize) -> Credits {
    let mut credits = Credits::default();
    for number in 0..count {
        let forgotten = after(HORIZON + Duration::from_nanos(number as u64));
        credits.add(Digest(number as u128), &Kind::Requests, 5, forgotten);
    }
    credits
}

#[test]
fn call_forgets_a_bounded_number_of_credits() {
    let (mut credits, mut calls) = (given(10 * STEPS), 0);
    credits.forget(after(HORIZON - Duration::from_nanos(1)));
    assert!(credits.get(Digest(0), after(Duration::ZERO)).is_some_and(|stands| stands.already));
    while !credits.is_empty() {
        credits.forget(after(2 * HORIZON));
        calls += 1;
    }
    assert_eq!(calls, 10);
}

#[test]
fn credit_whose_time_has_come_is_given_again() {
    let (mut credits, last, later) = (given(3 * STEPS), Digest(3 * STEPS as u128 - 1), after(2 * HORIZON));
    credits.forget(later);
    assert_eq!(credits.get(last, later), None, "it only waits for its turn to be forgotten");
    credits.add(last, &Kind::Requests, 7, later + HORIZON);
    (0..3).for_each(|_| credits.forget(later));
    assert_eq!(credits.get(last, later).map(|stands| stands.amount), Some(7), "its old end does not end it");
    credits.forget(later + HORIZON);
    assert!(credits.is_empty());
}

#[test]
fn full_client_has_room_for_a_credit_after_the_told_time() {
    let (mut credits, settings) = (given(3), settings(false));
    let told = credits.check(&settings, after(Duration::ZERO)).unwrap_err().to_string();
    assert!(told.contains("is forgotten in 3600s"), "{told}");
    credits.forget(after(HORIZON));
    credits.check(&settings, after(HORIZON)).unwrap();
}
