use std::{sync::Barrier, thread};

use super::{at, key, unchanged, until};
use crate::{
    cost::Cost,
    time::Moment,
    token_bucket::{
        gcra::{Decision, decide},
        rate::Rate,
        table::{Bucket, GlobalBucket, Table, TableError},
    },
};

/// Takes from a client's bucket and from the global one, or from neither.
fn both(table: &Table, client: &Rate, all: &GlobalBucket, key: u64, now: Moment) -> bool {
    let look = |entry: Option<Bucket>| match decide(client, entry.map(|entry| entry.until), Cost::ONE, now) {
        Decision::Admitted { full_at } if passes(all.decide(Cost::ONE, now, true)) => (Some(until(full_at)), true),
        _ => (entry, false),
    };
    table.update(key, now, &unchanged(), look).expect("room for all")
}

fn passes(verdict: Decision) -> bool {
    matches!(verdict, Decision::Admitted { .. })
}

fn together(threads: u64, work: impl Fn(u64) -> u64 + Sync) -> u64 {
    let start = Barrier::new(threads as usize);
    thread::scope(|scope| {
        let (start, work) = (&start, &work);
        let run = move |id| {
            start.wait();
            work(id)
        };
        let all: Vec<_> = (0..threads).map(|id| scope.spawn(move || run(id))).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).sum()
    })
}

#[test]
fn threads_at_one_instant_get_exactly_the_burst() {
    for demand in [50, 250, 1_000] {
        let rate = Rate::per_second(1).burst(1_000);
        let (table, cell) = (Table::new(100), GlobalBucket::new(rate));
        let took = together(4, |_| (0..demand).map(|_| u64::from(passes(cell.decide(Cost::ONE, at(9), true)))).sum());
        assert_eq!(took, (4 * demand).min(1_000));
        let free = &GlobalBucket::new(Rate::per_second(1).burst(1 << 20));
        let took = together(4, |_| (0..demand).map(|_| u64::from(both(&table, &rate, free, key(1), at(9)))).sum());
        assert_eq!(took, (4 * demand).min(1_000));
    }
}

/// A client that one of two limits refuses has taken tokens from neither.
#[test]
fn a_half_taken_token_is_never_seen() {
    let (client, all) = (Rate::per_second(1).burst(100), Rate::per_second(1).burst(350));
    for round in 0..20 {
        let (table, cell) = (Table::new(1_000), GlobalBucket::new(all));
        let now = at(1 + round);
        // Four clients want 400 of 350: exactly 350 pass, in any order.
        let took = together(4, |id| (0..200).map(|_| u64::from(both(&table, &client, &cell, key(id), now))).sum());
        assert_eq!(took, 350);
        let left = (0..4).map(|id| {
            let entry = table.peek(key(id), now, &unchanged()).unwrap().expect("each took some");
            crate::token_bucket::gcra::level(&client, Some(entry.until), now).remaining
        });
        assert_eq!(left.sum::<u64>(), 4 * 100 - 350, "clients were charged for exactly what passed");
        // A client above its own limit takes nothing from the global bucket.
        let (table, cell) = (Table::new(1_000), GlobalBucket::new(all));
        let took = together(4, |_| (0..200).map(|_| u64::from(both(&table, &client, &cell, key(1), now))).sum());
        assert_eq!((took, cell.level(now).remaining), (100, 250));
    }
}

/// Shards grow, are swept and shrink under four threads, and no count is lost.
#[test]
fn no_update_is_lost_while_shards_grow_and_shrink() {
    let table = Table::of_shards(20_000, 8);
    let forever = Moment::MAX.as_nanos();
    let added = together(4, |id| {
        for step in 0..20_000_u64 {
            let now = at(1 + step);
            let add = |entry: Option<Bucket>| {
                let count = entry.map_or(0, |entry| entry.limit) + 1;
                (Some(Bucket { until: forever, limit: count }), ())
            };
            table.update(key(step % 1_000), now, &unchanged(), add).unwrap();
            // Short-lived neighbours make shards grow and empty again.
            let _ = table.update(key(1_000_000 * (id + 1) + step), now, &unchanged(), |_| {
                (Some(until(now.as_nanos() + 50)), ())
            });
        }
        20_000
    });
    let counted: u64 = (0..1_000)
        .map(|number| u64::from(table.peek(key(number), at(1), &unchanged()).unwrap().expect("live for ever").limit))
        .sum();
    assert_eq!(counted, added);
}

#[test]
fn a_panic_in_a_change_changes_nothing() {
    let table = Table::new(1);
    let crash = || table.update(key(1), at(2), &unchanged(), |_| -> (Option<Bucket>, ()) { panic!("on purpose") });
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(crash)).is_err());
    assert_eq!((table.live(), table.stored()), (0, 0), "the newcomer's place is free again");
    table.update(key(1), at(1), &unchanged(), |_| (Some(until(50)), ())).unwrap();
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(crash)).is_err());
    assert_eq!(table.update(key(1), at(2), &unchanged(), |entry| (entry, entry)), Ok(Some(until(50))));
}

#[test]
fn a_place_that_is_about_to_be_taken_is_nobody_elses() {
    let table = Table::of_shards(1, 2);
    let (one, other) = (0, 1 << 32); // in two shards
    let write = |key, end| table.update(key, at(1), &unchanged(), |_| (Some(until(end)), ()));
    let meanwhile = table.update(one, at(1), &unchanged(), |_| (None, write(other, 9)));
    assert_eq!(meanwhile, Ok(Err(TableError::Full)));
    assert_eq!(write(other, 9), Ok(()), "but it was not taken");
}

/// A client that is a moment late must not find its bucket changed because a neighbour's is full again.
#[test]
fn a_thread_that_is_a_moment_behind_is_refused_nothing() {
    let table = Table::of_shards(10, 1);
    table.update(key(1), at(5), &unchanged(), |_| (Some(until(50)), ())).unwrap();
    table.update(key(1), at(10), &unchanged(), |_| (Some(until(10)), ())).unwrap(); // all given back
    assert_eq!(table.update(key(1), at(11), &unchanged(), |entry| (None, entry)), Ok(None));
    assert_eq!(table.peek(key(2), at(9), &unchanged()).unwrap(), None);
    assert_eq!(table.peek(key(1), at(9), &unchanged()).unwrap(), Some(until(10)), "but its own is as it was");
    table.update(key(3), at(11), &unchanged(), |_| (Some(until(50)), ())).unwrap();
    assert_eq!(table.update(key(3), at(12), &unchanged(), |entry| (None, entry)), Ok(Some(until(50))));
    assert_eq!(table.peek(key(3), at(12), &unchanged()).unwrap(), None, "what lived is ended at a word");
    table.sweep_next(12, &unchanged());
    assert_eq!(table.live(), 0);
}
