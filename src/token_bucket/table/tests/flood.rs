use super::{at, key, unchanged, until};
use crate::{
    cost::Cost,
    sync::Ordering,
    token_bucket::{
        gcra::{Decision, decide, level},
        rate::Rate,
        table::{
            Table, TableError,
            sharded::{LOOK_AT, SWEPT},
        },
    },
};

const SECOND: u64 = 1_000_000_000;

fn ask(table: &Table, rate: &Rate, number: u64, now: u64) -> Result<bool, TableError> {
    let now = at(now);
    table.update(key(number), now, &unchanged(), |entry| {
        match decide(rate, entry.map(|entry| entry.until), Cost::ONE, now) {
            Decision::Admitted { full_at } => (Some(until(full_at)), true),
            _ => (entry, false),
        }
    })
}

fn remaining(table: &Table, rate: &Rate, number: u64, now: u64) -> u64 {
    level(rate, table.peek(key(number), at(now), &unchanged()).unwrap().map(|entry| entry.until), at(now)).remaining
}

/// Known clients, a victim at 95 %, then strangers, all within one lifetime of an entry.
fn flood(capacity: usize, strangers: u64) {
    let rate = Rate::per_minute(1).burst(20);
    let table = Table::new(capacity);
    let victim = u64::MAX;
    assert!((0..19).all(|_| ask(&table, &rate, victim, SECOND) == Ok(true)));
    let known = capacity as u64 / 2;
    for number in 0..known {
        assert_eq!(ask(&table, &rate, number, SECOND), Ok(true));
    }
    let fixed = 64 * capacity + 16_384;
    let mut refused = 0;
    for number in 0..strangers {
        let swept = table.shared.hand.load(Ordering::Relaxed);
        refused += u64::from(ask(&table, &rate, known + number, SECOND + number % 1_000) == Err(TableError::Full));
        assert!(table.shared.hand.load(Ordering::Relaxed) <= swept + LOOK_AT + SWEPT, "work is flat");
    }
    assert!(table.live() <= capacity, "{} clients", table.live());
    assert!(table.allocated_bytes() <= fixed, "{} bytes", table.allocated_bytes());
    assert_eq!(refused, strangers - (capacity as u64 - known - 1), "room for exactly as many as were promised");
    assert_eq!(remaining(&table, &rate, victim, SECOND + 1_000), 1);
    for number in 0..known {
        assert_eq!(remaining(&table, &rate, number, SECOND + 1_000), 19, "client {number}");
    }
    assert_eq!(ask(&table, &rate, victim, SECOND + 1_000), Ok(true), "the last of twenty");
    assert_eq!(ask(&table, &rate, victim, SECOND + 1_000), Ok(false));

    // The entries end. As many requests of one client as the table has room release nearly all of the memory.
    let (peak, later) = (table.allocated_bytes(), SECOND + 1_300 * SECOND);
    for step in 0..2 * capacity as u64 {
        ask(&table, &rate, victim, later + step).unwrap();
    }
    assert!(table.live() < 10, "{} entries are left", table.live());
    let rest = table.allocated_bytes();
    assert!(rest < peak / 8, "{rest} of {peak} bytes are left");
    // And there is room again.
    for number in 0..capacity as u64 - 10 {
        assert_eq!(ask(&table, &rate, number, later + number), Ok(true));
    }
}

#[test]
fn a_flood_of_strangers_moves_nobody_and_goes_away_again() {
    flood(10_000, 200_000);
}

#[test]
#[ignore = "takes a gigabyte-second; run it in release"]
fn a_flood_of_ten_million_moves_nobody() {
    flood(1_000_000, 10_000_000);
}

/// Entries end while the flood goes on: there is always room again, and work stays flat.
#[test]
fn short_lived_strangers_are_forgotten_as_they_come() {
    let (rate, table) = (Rate::per_second(50).burst(100), Table::new(1_000));
    let mut refused = 0;
    for number in 0..100_000_u64 {
        let now = SECOND + number * 100_000; // ten a millisecond; each entry lives 20 ms, 200 live at once
        refused += u64::from(ask(&table, &rate, number, now).is_err());
    }
    assert_eq!(refused, 0);
    assert!(table.live() <= 1_000);
}

#[test]
fn a_table_holds_its_capacity_whatever_it_is() {
    for capacity in (0..400).chain([500, 900, 1_100, 1_800, 3_600, 7_000, 14_500, 29_000, 57_000]) {
        let table = Table::new(capacity);
        for number in 0..capacity as u64 {
            assert_eq!(
                table.update(key(number), at(1), &unchanged(), |_| (Some(until(9)), ())),
                Ok(()),
                "{number} of {capacity}"
            );
        }
        assert_eq!(table.update(key(1 << 40), at(1), &unchanged(), |_| (Some(until(9)), ())), Err(TableError::Full));
        assert_eq!(table.live(), capacity);
    }
}

/// Digests with equal first bits cannot be made without the digester's key. If they could, they would enlarge their shard
/// and affect no other.
#[test]
fn keys_that_crowd_one_shard_are_served_like_others() {
    let (rate, table) = (Rate::per_second(1), Table::new(10_000));
    let crowd = |number: u64| 0xabcd << 48 | number;
    let now = at(SECOND);
    for number in 0..5_000 {
        assert_eq!(table.update(crowd(number), now, &unchanged(), |_| (Some(until(2 * SECOND)), ())), Ok(()));
    }
    for number in 0..5_000 {
        assert_eq!(ask(&table, &rate, number, SECOND), Ok(true), "client {number}");
    }
    assert!((0..5_000).all(|number| table.peek(crowd(number), now, &unchanged()).unwrap().is_some()));
    assert_eq!(ask(&table, &rate, 5_000, SECOND), Err(TableError::Full));
}

#[test]
fn a_hit_allocates_nothing() {
    // A token arrives each microsecond: most buckets are full again when their client returns.
    let (rate, table) = (Rate::per_second(1_000_000).burst(5), Table::new(10_000));
    let hits =
        |from: u64| (0..50_000).for_each(|step| assert!(ask(&table, &rate, step % 9_000, from + 100 * step).unwrap()));
    hits(SECOND);
    let allocated = allocation_counter::measure(|| hits(SECOND + 5_000_000));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn the_memory_of_a_client_is_bounded_and_paid_when_it_comes() {
    for capacity in [10_000, 100_000, 200_000] {
        let table = Table::new(capacity);
        let empty = table.allocated_bytes();
        assert!(empty < 5 * capacity, "{empty} bytes without a client");
        let mut most = 0;
        for number in 0..capacity as u64 {
            table.update(key(number), at(1), &unchanged(), |_| (Some(until(9)), ())).unwrap();
            if number % 1_000 == 999 {
                most = most.max(table.allocated_bytes());
            }
        }
        assert!(most <= 64 * capacity, "{most} bytes for {capacity}");
    }
}

/// A shard remembers the end of evicted buckets, for clocks that are set back.
#[test]
fn a_clock_that_was_set_back_finds_no_fresh_buckets() {
    let rate = Rate::per_second(1).burst(10);
    let table = Table::new(1_000);
    assert!((0..10).all(|_| ask(&table, &rate, 1, SECOND) == Ok(true)));
    let full = 11 * SECOND;
    for step in 0..200_000 {
        ask(&table, &rate, 2 + step % 5, full + 2 * SECOND + step).unwrap();
    }
    assert!(table.live() <= 5, "client 1 was dropped");
    assert_eq!(ask(&table, &rate, 1, SECOND), Ok(false));
    assert_eq!(ask(&table, &rate, 1, 2 * SECOND), Ok(true));
    assert_eq!(remaining(&table, &rate, 1, full), 9, "what it took while the clock was behind is counted once");
}

#[test]
fn a_shard_that_grows_and_shrinks_remembers_what_it_dropped() {
    let table = Table::of_shards(100, 1);
    table.update(key(1), at(1), &unchanged(), |_| (Some(until(50)), ())).unwrap();
    table.sweep_next(60, &unchanged());
    let remembered = || {
        (100..200)
            .all(|stranger| table.peek(key(stranger), at(10), &unchanged()).unwrap().is_some_and(|e| e.until >= 50))
    };
    let empty = Table::of_shards(100, 1).allocated_bytes();
    assert!(remembered() && table.allocated_bytes() == empty);
    for number in 2..42 {
        table.update(key(number), at(60), &unchanged(), |_| (Some(until(60 + number)), ())).unwrap();
    }
    let grown = table.allocated_bytes();
    assert!(remembered());
    table.sweep_next(95, &unchanged());
    assert_eq!(table.live(), 6);
    assert!(remembered() && (empty..grown).contains(&table.allocated_bytes()));
    let last_of_all =
        |now, dropped| table.peek(key(300), at(now), &unchanged()).unwrap().is_some_and(|entry| entry.until == dropped);
    assert!(last_of_all(94, 95), "the latest of what it dropped counts");
    assert!((36..42).all(|number| table.peek(key(number), at(95), &unchanged()).unwrap() == Some(until(60 + number))));
    let shrunk = table.allocated_bytes();
    for number in 50..56 {
        table.update(key(number), at(95), &unchanged(), |_| (Some(until(99)), ())).unwrap();
    }
    assert_eq!(table.allocated_bytes(), shrunk, "it does not grow again before it holds twice as much");
    table.sweep_next(200, &unchanged());
    assert!(remembered() && table.allocated_bytes() == empty, "and when it is empty again");
    assert!(last_of_all(100, 101));
}

#[test]
fn a_place_is_free_from_the_moment_on_at_which_its_entry_ends() {
    let table = Table::of_shards(1, 1);
    let write = |number, now, end| table.update(key(number), at(now), &unchanged(), |_| (Some(until(end)), ()));
    assert_eq!(write(1, 1, 50), Ok(()));
    assert_eq!(write(2, 49, 60), Err(TableError::Full));
    assert_eq!(write(2, 50, 60), Ok(()));
    // A bucket that is moved to an earlier end is evicted at that end.
    assert_eq!(write(2, 51, 55), Ok(()));
    assert_eq!(write(3, 54, 60), Err(TableError::Full));
    assert_eq!(write(3, 55, 60), Ok(()));
}

#[test]
fn newcomer_reuses_expired_slots_before_its_shard_grows() {
    let table = Table::of_shards(100, 1);
    let write =
        |number, now, end| table.update(key(number), at(now), &unchanged(), |_| (Some(until(end)), ())).unwrap();
    (0..6).for_each(|number| write(number, 1, 10));
    let full = table.allocated_bytes();
    write(6, 2 * SECOND, 3 * SECOND);
    assert_eq!((table.live(), table.stored(), table.allocated_bytes()), (1, 1, full));
}

#[test]
fn an_entry_that_ends_as_it_comes_takes_no_place() {
    let table = Table::of_shards(2, 1);
    let write = |number, now, end| table.update(key(number), at(now), &unchanged(), |_| (Some(until(end)), ()));
    assert_eq!(write(1, 5, 5), Ok(()));
    assert_eq!((table.live(), table.stored()), (0, 0));
    // At the beginning of time, before which no entry ends.
    assert_eq!((write(1, 0, 5), write(1, 0, 0)), (Ok(()), Ok(())));
    assert_eq!(table.peek(key(1), at(1), &unchanged()).unwrap(), None);
    assert_eq!(table.live(), table.stored());
}

#[test]
fn the_memory_of_what_was_ended_goes_back_before_its_time() {
    let table = Table::of_shards(1_000, 1);
    let empty = table.allocated_bytes();
    for number in 0..1_000 {
        table.update(key(number), at(1), &unchanged(), |_| (Some(until(100)), ())).unwrap();
    }
    for number in 0..1_000 {
        table.update(key(number), at(2), &unchanged(), |_| (None, ())).unwrap();
    }
    table.sweep_next(3, &unchanged());
    assert_eq!((table.live(), table.allocated_bytes()), (0, empty));
}
