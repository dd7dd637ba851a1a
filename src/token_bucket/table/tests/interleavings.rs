//! Every interleaving of two or three threads: `RUSTFLAGS="--cfg tollgate_loom" cargo test --release --lib loom_`.

use loom::{sync::Arc, thread};

use super::{at, unchanged, until};
use crate::{
    cost::Cost,
    time::Moment,
    token_bucket::{
        gcra::{Decision, decide},
        rate::Rate,
        table::{Bucket, GlobalBucket, RateChange, Table, TableError},
    },
};

/// Returns a key of the shard with this number; its other bits differ from those of other shards.
fn begins(bits: u8) -> u64 {
    u64::from(bits) << 32 | u64::from(bits) << 24
}

fn write(table: &Table, bits: u8, now: u64, full_at: u64) -> Result<Option<Bucket>, TableError> {
    table.update(begins(bits), at(now), &unchanged(), |before| (Some(until(full_at)), before))
}

fn seen(table: &Table, bits: u8, now: u64) -> Option<Bucket> {
    table.peek(begins(bits), at(now), &unchanged()).unwrap()
}

/// Creates one shard, which the next newcomer makes grow.
fn one_full_shard() -> Arc<Table> {
    let table = Arc::new(Table::of_shards(20, 1));
    for bits in 1..=7 {
        write(&table, bits, 1, 100).unwrap();
    }
    table
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

fn passes(verdict: Decision) -> bool {
    matches!(verdict, Decision::Admitted { .. })
}

#[test]
fn loom_entries_are_seen_and_changed_while_their_shard_grows() {
    model(|| {
        let table = one_full_shard();
        let other = Arc::clone(&table);
        let grows = thread::spawn(move || write(&other, 8, 2, 90));
        assert_eq!(seen(&table, 1, 2), Some(until(100)));
        assert_eq!(write(&table, 7, 2, 200), Ok(Some(until(100))));
        assert_eq!(grows.join().unwrap(), Ok(None));
        assert_eq!([7, 8].map(|bits| seen(&table, bits, 2)), [200, 90].map(|end| Some(until(end))));
        assert_eq!(table.live(), 8);
    });
}

#[test]
fn loom_two_updates_of_one_key_follow_each_other() {
    model(|| {
        let table = Arc::new(Table::of_shards(10, 2));
        let add = |table: &Table| {
            table.update(begins(7), at(1), &unchanged(), |entry| {
                (Some(until(entry.map_or(1, |entry| entry.until) + 1)), ())
            })
        };
        let other = Arc::clone(&table);
        let second = thread::spawn(move || add(&other));
        add(&table).unwrap();
        second.join().unwrap().unwrap();
        assert_eq!((seen(&table, 7, 1), table.live()), (Some(until(3)), 1));
    });
}

#[test]
fn loom_sweep_removes_no_live_or_renewed_entry() {
    model(|| {
        let table = Arc::new(Table::of_shards(10, 1));
        write(&table, 1, 1, 100).unwrap();
        write(&table, 2, 1, 50).unwrap();
        let other = Arc::clone(&table);
        let sweeps = thread::spawn(move || other.sweep_next(60, &unchanged()));
        assert_eq!(write(&table, 2, 60, 70), Ok(None));
        assert_eq!(seen(&table, 1, 60), Some(until(100)));
        sweeps.join().unwrap();
        assert_eq!((seen(&table, 2, 60), table.live()), (Some(until(70)), 2));
    });
}

/// The bound holds at every moment, and a refused call changes nothing.
#[test]
fn loom_the_last_place_goes_once() {
    model(|| {
        let table = Arc::new(Table::of_shards(2, 2));
        write(&table, 1, 1, 100).unwrap();
        let other = Arc::clone(&table);
        let second = thread::spawn(move || write(&other, 2, 1, 100));
        let first = write(&table, 3, 1, 100);
        assert!(table.live() <= 3, "what is about to be stored is counted");
        let second = second.join().unwrap();
        // Each may have seen the other's reservation a moment before it was given back.
        let stored = [first, second].iter().filter(|written| written.is_ok()).count();
        assert!(stored <= 1);
        assert_eq!(table.live(), 1 + stored);
        assert_eq!(seen(&table, 3, 1).is_some(), first.is_ok());
        assert_eq!(seen(&table, 2, 1).is_some(), second.is_ok());
    });
}

/// A full table of two shards, in which one bucket is full: two newcomers sweep each other's shards without a deadlock,
/// which loom would report.
#[test]
fn loom_newcomers_look_for_room_in_each_others_shards() {
    model(|| {
        let table = Arc::new(Table::of_shards(2, 2));
        write(&table, 1, 1, 100).unwrap();
        write(&table, 2, 1, 50).unwrap();
        let other = Arc::clone(&table);
        let second = thread::spawn(move || write(&other, 4, 60, 100).is_ok());
        let first = write(&table, 3, 60, 100).is_ok();
        let second = second.join().unwrap();
        assert!(!(first && second), "one place");
        assert_eq!(seen(&table, 1, 60), Some(until(100)));
        assert!(table.live() <= 2);
    });
}

#[test]
fn loom_the_last_tokens_of_a_cell_go_once() {
    model(|| {
        let cell = Arc::new(GlobalBucket::new(Rate::per_second(1).burst(2)));
        let others = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || u64::from(passes(cell.decide(Cost::ONE, at(9), true))))
        });
        let took = u64::from(passes(cell.decide(Cost::ONE, at(9), true)));
        assert_eq!(took + others.map(|other| other.join().unwrap()).iter().sum::<u64>(), 2);
    });
}

#[test]
fn loom_what_is_given_back_is_neither_lost_nor_doubled() {
    model(|| {
        let cell = Arc::new(GlobalBucket::new(Rate::per_second(1).burst(2)));
        assert!(passes(cell.decide(Cost::new(2), at(9), true)));
        let other = Arc::clone(&cell);
        let back = thread::spawn(move || other.give_back(Cost::ONE, at(9)));
        let took = passes(cell.decide(Cost::ONE, at(9), true));
        back.join().unwrap();
        assert_eq!(cell.level(at(9)).remaining, u64::from(!took));
    });
}

/// With one token in the global bucket, one of two clients passes and the other is not charged.
#[test]
fn loom_both_buckets_give_or_neither() {
    for keys in [[1, 2], [1, 1]] {
        model(move || {
            let table = Arc::new(Table::of_shards(10, 2));
            let cell = Arc::new(GlobalBucket::new(Rate::per_second(1).burst(1)));
            let ask = move |table: &Table, cell: &GlobalBucket, bits| {
                let look = |entry: Option<Bucket>| match client_then_all(entry, cell) {
                    Some(full_at) => (Some(until(full_at)), true),
                    None => (entry, false),
                };
                table.update(begins(bits), Moment::default(), &unchanged(), look).unwrap()
            };
            let (other_table, other_cell) = (Arc::clone(&table), Arc::clone(&cell));
            let other = thread::spawn(move || ask(&other_table, &other_cell, keys[1]));
            let first = ask(&table, &cell, keys[0]);
            let second = other.join().unwrap();
            assert!(first ^ second, "one token passes one request");
            assert_eq!(table.live(), 1);
            assert_eq!(seen(&table, if first { keys[0] } else { keys[1] }, 0), Some(until(500_000_000)));
        });
    }
}

fn client_then_all(entry: Option<Bucket>, cell: &GlobalBucket) -> Option<u64> {
    let client = Rate::per_second(2);
    match decide(&client, entry.map(|entry| entry.until), Cost::ONE, Moment::default()) {
        Decision::Admitted { full_at } if passes(cell.decide(Cost::ONE, Moment::default(), true)) => Some(full_at),
        _ => None,
    }
}

/// One thread asks while another changes the rate: the bucket is converted once, whichever comes first, and a caller that
/// still has the old rate is sent back.
#[test]
fn loom_change_of_rate_is_applied_once_to_each_bucket() {
    model(|| {
        let (slow, fast) = (Rate::per_second(1).burst(10), Rate::per_second(10));
        let table = Arc::new(Table::of_shards(10, 1));
        table.update(begins(1), at(0), &unchanged(), |_| (Some(until(8_000_000_000)), ())).unwrap();
        let newer = unchanged().after(RateChange { limit: 0, from: slow, to: fast, burst: 10, at: at(0) });
        let (other, changed) = (Arc::clone(&table), newer.clone());
        let change = thread::spawn(move || other.apply(&changed));
        let add = |bucket: Option<Bucket>, rate: &Rate| (Some(until(bucket.unwrap().until + rate.interval_ns())), ());
        if table.update(begins(1), at(0), &unchanged(), |bucket| add(bucket, &slow)) == Err(TableError::Stale) {
            table.update(begins(1), at(0), &newer, |bucket| add(bucket, &fast)).unwrap();
        }
        change.join().unwrap();
        assert_eq!(table.peek(begins(1), at(0), &newer), Ok(Some(until(900_000_000))), "nine tokens are missing");
        assert_eq!(table.peek(begins(1), at(0), &unchanged()), Err(TableError::Stale));
    });
}
