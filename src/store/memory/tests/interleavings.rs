//! Every interleaving of two or three threads: `RUSTFLAGS="--cfg tollgate_loom" cargo test --release --lib loom_`.

use loom::{sync::Arc, thread};

use super::{at, until};
use crate::{
    Cost, Digest, Moment, Rate,
    rule::gcra::{Verdict, decide},
    store::memory::{Entry, GlobalCell, Table},
};

/// Pages of four slots, three of which are used.
type Tiny = Table<4>;

/// A key that begins with these eight bits.
fn begins(bits: u8) -> Digest {
    Digest(u128::from(bits) << 120 | u128::from(bits) << 64)
}

fn write(table: &Tiny, bits: u8, now: u64, full_at: u64) -> Option<Entry> {
    table.update(begins(bits), at(now), |before| (Some(until(full_at)), before)).expect("room for all")
}

fn seen(table: &Tiny, bits: u8, now: u64) -> Option<Entry> {
    table.peek(begins(bits), at(now))
}

/// Pages of four slots, three of which are used: the first is full, the second is free.
fn one_full_page() -> Arc<Tiny> {
    let table = Arc::new(Tiny::of_pages(10, 2, 0));
    for bits in [0x00, 0x80, 0xc0] {
        write(&table, bits, 1, 100);
    }
    table
}

/// Two pages that can be joined: one entry that ends at 50, one that ends at 100.
fn two_small_pages() -> Arc<Tiny> {
    let table = one_full_page();
    write(&table, 0x40, 1, 50);
    for bits in [0x00, 0xc0] {
        table.update(begins(bits), at(1), |_| (None, ())).unwrap();
    }
    table
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

fn passes(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Admitted { .. })
}

#[test]
fn loom_an_entry_is_seen_while_its_page_splits() {
    model(|| {
        let table = one_full_page();
        let other = Arc::clone(&table);
        let splits = thread::spawn(move || write(&other, 0x40, 2, 90));
        assert_eq!(seen(&table, 0xc0, 2), Some(until(100)));
        assert_eq!(seen(&table, 0x00, 2), Some(until(100)));
        assert_eq!(splits.join().unwrap(), None);
        assert_eq!(seen(&table, 0x40, 2), Some(until(90)));
    });
}

#[test]
fn loom_an_update_of_an_entry_that_moves_is_not_lost() {
    model(|| {
        let table = one_full_page();
        let other = Arc::clone(&table);
        let splits = thread::spawn(move || write(&other, 0x40, 2, 90));
        assert_eq!(write(&table, 0xc0, 2, 200), Some(until(100)));
        splits.join().unwrap();
        assert_eq!(seen(&table, 0xc0, 2), Some(until(200)));
        assert_eq!(table.live(), 4);
    });
}

#[test]
fn loom_two_newcomers_may_both_need_the_split() {
    model(|| {
        let table = one_full_page();
        let other = Arc::clone(&table);
        let splits = thread::spawn(move || write(&other, 0x40, 2, 90));
        assert_eq!(write(&table, 0xa0, 2, 80), None);
        splits.join().unwrap();
        let ends = [0x00, 0x40, 0x80, 0xa0, 0xc0].map(|bits| seen(&table, bits, 2).unwrap().full_at);
        assert_eq!(ends, [100, 90, 100, 80, 100]);
    });
}

#[test]
fn loom_two_updates_of_one_key_follow_each_other() {
    model(|| {
        let table = Arc::new(Tiny::of_pages(10, 2, 0));
        let add = |table: &Tiny| {
            table.update(begins(7), at(1), |entry| (Some(until(entry.map_or(1, |entry| entry.full_at) + 1)), ()))
        };
        let other = Arc::clone(&table);
        let second = thread::spawn(move || add(&other));
        add(&table).unwrap();
        second.join().unwrap().unwrap();
        assert_eq!((seen(&table, 7, 1), table.live()), (Some(until(3)), 1));
    });
}

#[test]
fn loom_a_sweep_takes_nothing_that_lives_and_nothing_that_is_renewed() {
    model(|| {
        let table = Arc::new(Tiny::of_pages(10, 2, 0));
        write(&table, 0x10, 1, 100);
        write(&table, 0x20, 1, 50);
        let other = Arc::clone(&table);
        let sweeps = thread::spawn(move || other.sweep_next(60, 2));
        assert_eq!(write(&table, 0x20, 60, 70), None);
        assert_eq!(seen(&table, 0x10, 60), Some(until(100)));
        sweeps.join().unwrap();
        assert_eq!((seen(&table, 0x20, 60), table.live()), (Some(until(70)), 2));
    });
}

#[test]
fn loom_an_entry_is_seen_and_changed_while_pages_join() {
    model(|| {
        let table = two_small_pages();
        let other = Arc::clone(&table);
        let joins = thread::spawn(move || other.sweep_next(60, 2));
        assert_eq!(write(&table, 0x80, 60, 200), Some(until(100)));
        joins.join().unwrap();
        assert_eq!((seen(&table, 0x80, 60), table.live()), (Some(until(200)), 1));
    });
}

/// One thread joins the two pages, the other fills one of them: they split again or are not joined. Nobody waits for
/// ever, which loom would report.
#[test]
fn loom_pages_join_and_split_at_once() {
    model(|| {
        let table = two_small_pages();
        let other = Arc::clone(&table);
        let joins = thread::spawn(move || {
            other.sweep_next(60, 2);
            other.sweep_next(60, 2);
        });
        for bits in [0x90, 0xa0, 0x10] {
            write(&table, bits, 60, 200);
        }
        joins.join().unwrap();
        let ends = [0x80, 0x90, 0xa0, 0x10].map(|bits| seen(&table, bits, 60).unwrap().full_at);
        assert_eq!(ends, [100, 200, 200, 200]);
        assert!((4..=5).contains(&table.live()), "what ended may still be stored");
    });
}

#[test]
fn loom_the_last_tokens_of_a_cell_go_once() {
    model(|| {
        let (cell, rate) = (Arc::new(GlobalCell::new()), Rate::per_second(1).burst(2));
        let others = [(); 2].map(|()| {
            let cell = Arc::clone(&cell);
            thread::spawn(move || u64::from(passes(cell.take(&rate, Cost::ONE, at(9)))))
        });
        let took = u64::from(passes(cell.take(&rate, Cost::ONE, at(9))));
        assert_eq!(took + others.map(|other| other.join().unwrap()).iter().sum::<u64>(), 2);
    });
}

#[test]
fn loom_what_is_given_back_is_neither_lost_nor_doubled() {
    model(|| {
        let (cell, rate) = (Arc::new(GlobalCell::new()), Rate::per_second(1).burst(2));
        assert!(passes(cell.take(&rate, Cost::new(2), at(9))));
        let other = Arc::clone(&cell);
        let back = thread::spawn(move || other.give_back(&rate, Cost::ONE, at(9)));
        let took = passes(cell.take(&rate, Cost::ONE, at(9)));
        back.join().unwrap();
        assert_eq!(cell.level(&rate, at(9)).remaining, u64::from(!took));
    });
}

/// RL5 and RL9: with one token for everyone, one of two clients passes and the other is not charged.
#[test]
fn loom_both_buckets_give_or_neither() {
    for keys in [[0x10, 0x90], [0x10, 0x10]] {
        model(move || {
            let table = Arc::new(Tiny::of_pages(10, 2, 1));
            let (cell, one) = (Arc::new(GlobalCell::new()), Rate::per_second(1).burst(1));
            let ask = move |table: &Tiny, cell: &GlobalCell, bits| {
                let look = |entry: Option<Entry>| match client_then_all(entry, cell, &one) {
                    Some(full_at) => (Some(until(full_at)), true),
                    None => (entry, false),
                };
                table.update(begins(bits), Moment::default(), look).unwrap()
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

fn client_then_all(entry: Option<Entry>, cell: &GlobalCell, all: &Rate) -> Option<u64> {
    let client = Rate::per_second(2);
    match decide(&client, entry.map(|entry| entry.full_at), Cost::ONE, Moment::default()) {
        Verdict::Admitted { full_at } if passes(cell.take(all, Cost::ONE, Moment::default())) => Some(full_at),
        _ => None,
    }
}
