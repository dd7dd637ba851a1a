//! What careful readers found wrong with the buckets.
#![allow(missing_docs)]

use std::sync::atomic::{AtomicBool, Ordering};

use tollgate::{Client, Cost, FakeClock, Rate, TokenBucketLayer};

#[test]
fn a_global_rate_that_was_ended_punishes_nobody_when_another_begins() {
    let layer = TokenBucketLayer::new(Rate::per_hour(100)).and_global(Rate::per_hour(1)).clock(FakeClock::new());
    let (buckets, alice) = (layer.handle(), Client::named("alice"));
    buckets.check(&alice, Cost::ONE).unwrap();
    buckets.set_global(None);
    buckets.set_global(Some(Rate::per_second(1_000)));
    buckets.check(&alice, Cost::ONE).unwrap();
}

#[test]
fn a_request_under_way_while_the_global_rate_changes_leaves_no_debt_of_the_old_rate() {
    let (slow, fast) = (Rate::per_hour(1).burst(1_000_000), Rate::per_second(1_000_000));
    let layer = TokenBucketLayer::new(Rate::per_second(1_000_000_000)).and_global(slow).clock(FakeClock::new());
    let (buckets, alice, done) = (layer.handle(), Client::named("alice"), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asker = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // An hour, what a request owes the slow bucket, is an age to the fast one.
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
