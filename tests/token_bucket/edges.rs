//! Edge cases: rates that change under load, newcomers with few tokens, two waits at once, full tables.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use proptest::prelude::*;
use tollgate::{Client, Cost, FakeClock, Rate, Reason, TokenBucketLayer};

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn new_global_rate_carries_no_debt_of_a_removed_one() {
    let layer = TokenBucketLayer::new(Rate::per_hour(100)).and_global(Rate::per_hour(1)).clock(FakeClock::new());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    buckets.check(&alice, Cost::ONE).unwrap();
    buckets.set_global(None);
    buckets.set_global(Some(Rate::per_second(1_000)));
    buckets.check(&alice, Cost::ONE).unwrap();
}

#[test]
fn racing_global_rate_change_leaves_no_old_debt() {
    let (slow, fast) = (Rate::per_hour(1).burst(1_000_000), Rate::per_second(1_000_000));
    let layer = TokenBucketLayer::new(Rate::per_second(1_000_000_000)).and_global(slow).clock(FakeClock::new());
    let (buckets, alice, done) = (layer.handle(), Client::named("alice"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // The slow bucket's debt of one hour would take very long in the fast bucket.
                buckets.check(&alice, Cost::ONE).unwrap();
                buckets.give_back(&alice, Cost::ONE);
            }
        });
        for _ in 0..20_000 {
            buckets.set_global(Some(slow));
            buckets.set_global(Some(fast));
        }
        done.store(true, Ordering::Relaxed);
        asker.join().unwrap();
    });
}

#[test]
fn waiting_retry_after_is_admitted_by_both_buckets() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1))
        .and_global(Rate::every(Duration::from_secs(10)))
        .clock(clock.clone());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    buckets.check(&alice, Cost::ONE).unwrap();
    let refusal = buckets.check(&alice, Cost::ONE).unwrap_err();
    assert_eq!(refusal.reason(), Reason::RateLimited);
    let wait = refusal.retry_after().unwrap();
    clock.advance(wait - Duration::from_nanos(1));
    assert!(buckets.check(&alice, Cost::ONE).is_err());
    clock.advance(Duration::from_nanos(1));
    buckets.check(&alice, Cost::ONE).unwrap();
}

#[test]
fn cost_above_the_global_burst_has_no_retry_after() {
    let layer = TokenBucketLayer::new(Rate::per_second(10)).and_global(Rate::per_second(5)).clock(FakeClock::new());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    for _ in 0..5 {
        buckets.check(&alice, Cost::ONE).unwrap();
    }
    let refusal = buckets.check(&alice, Cost::new(6)).unwrap_err();
    assert_eq!((refusal.reason(), refusal.retry_after()), (Reason::TooLarge, None));
}

#[test]
fn cost_above_the_global_burst_hides_its_size() {
    let layer = TokenBucketLayer::new(Rate::per_second(100)).and_global(Rate::per_second(7)).clock(FakeClock::new());
    let refusal = layer.handle().check(&Client::named("alice"), Cost::new(50)).unwrap_err();
    assert_eq!((refusal.reason(), refusal.limit()), (Reason::TooLarge, 0));
    assert_eq!(refusal.to_string(), "policy \"default\": request can never pass");
}

/// A full table; later clients share the overflow bucket.
fn full(layer: TokenBucketLayer) -> tollgate::TokenBuckets {
    let buckets = layer.max_clients(1).handle();
    let _ = buckets.check(&Client::named("first"), Cost::ONE);
    assert_eq!(buckets.live_clients(), 1);
    buckets
}

#[test]
fn overflow_bucket_fills_though_it_begins_empty() {
    let clock = FakeClock::new();
    let rate = Rate::every(HOUR).burst(5).initial_tokens(0);
    let buckets = full(TokenBucketLayer::new(rate).clock(clock.clone()));
    let late = Client::named("late");
    let refusal = buckets.check(&late, Cost::ONE).unwrap_err();
    assert_eq!(refusal.reason(), Reason::Capacity);
    clock.advance(refusal.retry_after().unwrap());
    buckets.check(&late, Cost::ONE).unwrap();
}

#[test]
fn overflow_bucket_follows_the_rate_unless_it_has_its_own() {
    let taken = |layer: TokenBucketLayer| {
        let buckets = full(layer.clock(FakeClock::new()));
        buckets.set_rate(Rate::per_hour(10));
        (0..100).filter(|_| buckets.check(&Client::named("late"), Cost::ONE).is_ok()).count()
    };
    assert_eq!(taken(TokenBucketLayer::new(Rate::per_hour(2))), 10);
    assert_eq!(taken(TokenBucketLayer::new(Rate::per_hour(2)).overflow(Rate::per_hour(3))), 3);
}

#[test]
fn impossible_table_size_is_rejected_with_a_reason() {
    let layer = std::panic::catch_unwind(|| TokenBucketLayer::new(Rate::per_second(1)).max_clients(usize::MAX));
    let said = layer.unwrap_err().downcast_ref::<String>().unwrap().clone();
    assert_eq!(said, format!("max_clients must be from 1 to 2^32 - 1, got {}", usize::MAX));
}

#[test]
fn two_buckets_that_begin_empty_begin_to_fill_together() {
    let clock = FakeClock::new();
    let layer = TokenBucketLayer::new(Rate::per_second(1).burst(5).initial_tokens(0))
        .and_global(Rate::per_second(1).burst(7).initial_tokens(0))
        .clock(clock.clone());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    let refusal = buckets.check(&alice, Cost::ONE).unwrap_err();
    clock.advance(refusal.retry_after().unwrap());
    buckets.check(&alice, Cost::ONE).unwrap();
}

#[test]
fn waiting_until_full_does_not_make_a_newcomer() {
    for (rate, cost) in [
        (Rate::per_second(50).initial_tokens(0), 1), // full after the second that Retry-After says at least
        (Rate::every(HOUR).initial_tokens(0), 1),
        (Rate::per_second(1).burst(5).initial_tokens(2), 5),
    ] {
        let clock = FakeClock::new();
        let (buckets, alice) = (TokenBucketLayer::new(rate).clock(clock.clone()).handle(), Client::named("alice"));
        let refusal = buckets.check(&alice, Cost::new(cost)).unwrap_err();
        clock.advance(Duration::from_secs(refusal.retry_after_seconds().unwrap()) + Duration::from_millis(30));
        assert_eq!(buckets.peek(&alice).remaining, rate.capacity());
        buckets.check(&alice, Cost::new(cost)).unwrap();
    }
}

fn any_rate() -> impl Strategy<Value = Rate> {
    (1_u64..50, 1_u64..10_000_000_000, 1_u64..20, 0_u64..20).prop_filter_map(
        "a rate",
        |(count, period, burst, initial)| {
            let rate = Rate::try_per(count, Duration::from_nanos(period)).ok()?.try_burst(burst).ok()?;
            rate.try_initial_tokens(initial.min(burst)).ok()
        },
    )
}

proptest! {
    /// The wait of two buckets at once is exact to the nanosecond.
    #[test]
    fn wait_for_both_buckets_is_exact(
        own in any_rate(), all in any_rate(), steps in prop::collection::vec((0_u64..5_000_000_000, 0_u64..25), 1..40),
    ) {
        // During a longer wait for the global bucket the client's own may be evicted, and newcomers get fewer tokens.
        prop_assume!(own.newcomer_tokens() == own.capacity() || all.span() < Duration::from_secs(60));
        let clock = FakeClock::new();
        let buckets = TokenBucketLayer::new(own).and_global(all).clock(clock.clone()).handle();
        let (alice, most) = (Client::named("alice"), own.capacity().min(all.capacity()));
        for (pause, cost) in steps {
            clock.advance(Duration::from_nanos(pause));
            let cost = Cost::try_new(cost).unwrap_or(Cost::PREFLIGHT);
            let Err(refusal) = buckets.check(&alice, cost) else { continue };
            let Some(wait) = refusal.retry_after() else {
                prop_assert!(cost.get() > most);
                continue;
            };
            prop_assert!(cost.get() <= most && !wait.is_zero());
            clock.advance(wait - Duration::from_nanos(1));
            prop_assert!(buckets.check(&alice, cost).is_err());
            clock.advance(Duration::from_nanos(1));
            prop_assert!(buckets.check(&alice, cost).is_ok());
        }
    }
}
