//! Random histories of a map with due times, against a book that keeps no order of times.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::{quota::account::due_map::DueMap, time::Moment};

/// Each value is the number of its step, so that a value of an earlier entry is seen.
type Book = BTreeMap<u8, (Option<u64>, usize)>;

#[derive(Clone, Debug)]
enum Step {
    Insert { key: u8, due: Option<u64> },
    SetDue { key: u8, due: Option<u64> },
    Change { key: u8 },
    Remove { key: u8 },
    RemoveDue { key: u8 },
    PopFirst,
    Expire { most: usize },
    Advance { by: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few keys and times, so that entries are replaced and many are due at one time.
    let (key, due) = (|| 0..12_u8, || prop::option::weighted(0.8, 0..40_u64));
    let step = prop_oneof![
        6 => (key(), due()).prop_map(|(key, due)| Step::Insert { key, due }),
        3 => (key(), due()).prop_map(|(key, due)| Step::SetDue { key, due }),
        1 => key().prop_map(|key| Step::Change { key }),
        2 => key().prop_map(|key| Step::Remove { key }),
        2 => key().prop_map(|key| Step::RemoveDue { key }),
        1 => Just(Step::PopFirst),
        3 => (0..6_usize).prop_map(|most| Step::Expire { most }),
        3 => (0..8_u64).prop_map(|by| Step::Advance { by }),
    ];
    prop::collection::vec(step, 1..120)
}

fn at(time: u64) -> Moment {
    Moment::from_nanos(time)
}

/// Returns the key that is due first, of several due at one time the least.
fn first(book: &Book) -> Option<(u64, u8)> {
    book.iter().filter_map(|(&key, (due, _))| due.map(|due| (due, key))).min()
}

/// Removes the first entry that `takes` accepts by its due time.
fn pop(book: &mut Book, takes: impl Fn(u64) -> bool) -> Option<(u8, usize)> {
    let (_, key) = first(book).filter(|&(due, _)| takes(due))?;
    book.remove(&key).map(|(_, value)| (key, value))
}

fn is_due(due: Option<u64>, now: u64) -> bool {
    due.is_some_and(|due| now >= due)
}

fn agree(map: &DueMap<u8, usize>, book: &Book, now: u64) -> Result<(), TestCaseError> {
    for key in 0..12 {
        let known = book.get(&key);
        prop_assert_eq!(map.get(key), known.map(|(_, value)| value));
        let live = known.filter(|(due, _)| !is_due(*due, now)).map(|(_, value)| value);
        prop_assert_eq!(map.get_at(key, at(now)), live);
    }
    let timed = book.values().filter(|(due, _)| due.is_some()).count();
    prop_assert_eq!((map.len(), map.len_with_due(), map.is_empty()), (book.len(), timed, book.is_empty()));
    let next = first(book).map(|(due, _)| due);
    prop_assert_eq!(map.next_due(), next.map(at));
    prop_assert_eq!(map.has_due(at(now)), is_due(next, now));
    Ok(())
}

proptest! {
    #[test]
    fn map_agrees_with_a_book_without_an_order_of_times(steps in steps()) {
        let (mut map, mut book, mut now) = (DueMap::default(), Book::new(), 0);
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Insert { key, due } => {
                    map.insert(key, due.map(at), number);
                    book.insert(key, (due, number));
                }
                Step::SetDue { key, due } => {
                    map.set_due(key, due.map(at));
                    book.entry(key).and_modify(|entry| entry.0 = due);
                }
                Step::Change { key } => {
                    map.get_mut(key).into_iter().for_each(|value| *value = number);
                    book.entry(key).and_modify(|entry| entry.1 = number);
                }
                Step::Remove { key } => prop_assert_eq!(map.remove(key), book.remove(&key).map(|(_, value)| value)),
                Step::RemoveDue { key } => {
                    let due = book.get(&key).is_some_and(|(due, _)| is_due(*due, now));
                    let removed = if due { book.remove(&key).map(|(_, value)| value) } else { None };
                    prop_assert_eq!(map.remove_due(key, at(now)), removed);
                }
                Step::PopFirst => prop_assert_eq!(map.pop_first(), pop(&mut book, |_| true)),
                Step::Expire { most } => {
                    let mut expired = Vec::new();
                    let count = map.expire(at(now), most, |key, value| expired.push((key, value)));
                    let expected: Vec<_> = (0..most).map_while(|_| pop(&mut book, |due| now >= due)).collect();
                    prop_assert_eq!(count, expected.len());
                    prop_assert_eq!(expired, expected);
                }
                Step::Advance { by } => now += by,
            }
            agree(&map, &book, now)?;
        }
    }
}

#[test]
fn insert_of_a_known_key_drops_its_earlier_due_time() {
    let mut map = DueMap::default();
    map.insert(1, Some(at(5)), "old");
    map.insert(1, Some(at(9)), "new");
    assert_eq!(map.expire(at(8), 64, |_, _| panic!("it is due at 9")), 0);
    map.insert(1, None, "last");
    assert_eq!((map.next_due(), map.len(), map.get_at(1, at(99))), (None, 1, Some(&"last")));
}
