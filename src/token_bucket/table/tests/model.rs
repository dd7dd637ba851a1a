use std::collections::HashMap;

use proptest::prelude::*;

use super::{at, key, unchanged, until};
use crate::token_bucket::table::{Bucket, Table};

#[derive(Clone, Debug)]
enum Step {
    Write { key: u64, lasts: u64 },
    End { key: u64 },
    Leave { key: u64 },
    Look { key: u64 },
    Pass { time: u64 },
}

fn steps(keys: u64, most: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..keys, 0_u64..300).prop_map(|(key, lasts)| Step::Write { key, lasts }),
        1 => (0..keys).prop_map(|key| Step::End { key }),
        1 => (0..keys).prop_map(|key| Step::Leave { key }),
        2 => (0..keys).prop_map(|key| Step::Look { key }),
        1 => (0_u64..200).prop_map(|time| Step::Pass { time }),
    ];
    prop::collection::vec(step, 1..most)
}

/// Runs the steps on a table and on a plain map that forgets nothing before its time.
fn agree(table: &Table, steps: Vec<Step>) {
    let mut model: HashMap<u64, Bucket> = HashMap::new();
    let mut now = 1_u64;
    for step in steps {
        let known = |model: &HashMap<u64, Bucket>, key| model.get(&key).copied().filter(|entry| entry.until > now);
        match step {
            Step::Write { key: number, lasts } => {
                let entry = until(now + lasts);
                let written = table.update(key(number), at(now), &unchanged(), |before| (Some(entry), before));
                match written {
                    Ok(before) => {
                        assert_eq!(before, known(&model, number), "key {number} at {now}");
                        model.insert(number, entry);
                    }
                    Err(_) => {
                        assert_eq!(known(&model, number), None, "a live client of a full table is served");
                        assert_eq!(table.live(), table.capacity());
                    }
                }
            }
            Step::End { key: number } => {
                match table.update(key(number), at(now), &unchanged(), |before| (None, before)) {
                    Ok(before) => {
                        assert_eq!(before, known(&model, number));
                        model.remove(&number);
                    }
                    Err(_) => assert_eq!(known(&model, number), None),
                }
            }
            Step::Leave { key: number } => {
                match table.update(key(number), at(now), &unchanged(), |before| (before, before)) {
                    Ok(before) => assert_eq!(before, known(&model, number)),
                    Err(_) => assert_eq!(known(&model, number), None),
                }
            }
            Step::Look { key: number } => {
                assert_eq!(
                    table.peek(key(number), at(now), &unchanged()).unwrap(),
                    known(&model, number),
                    "key {number} at {now}"
                );
            }
            Step::Pass { time } => now += time,
        }
        assert!(table.live() <= table.capacity());
        assert_eq!(table.live(), table.stored(), "every place is counted, and no other");
    }
    let living = model.values().filter(|entry| entry.until > now).count();
    assert!(living <= table.live(), "{living} live, {} stored", table.live());
    for &number in model.keys() {
        let known = model.get(&number).copied().filter(|entry| entry.until > now);
        assert_eq!(table.peek(key(number), at(now), &unchanged()).unwrap(), known, "key {number} in the end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn many_small_shards_agree_with_a_plain_map(steps in steps(400, 3_000)) {
        agree(&Table::of_shards(1_000, 64), steps);
    }

    #[test]
    fn a_table_under_pressure_agrees_with_a_plain_map(steps in steps(400, 3_000)) {
        agree(&Table::of_shards(100, 8), steps);
    }

    #[test]
    fn one_large_shard_agrees_with_a_plain_map(steps in steps(2_000, 6_000)) {
        agree(&Table::of_shards(1_500, 1), steps);
    }
}
