//! Random histories of a store beside a naive one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;

use super::EmptyStore;
use crate::{
    key_value::{KeyValue, KeyValueErrorKind, Ttl},
    time::FakeClock,
};

/// Histories, and the calls of each.
const HISTORIES: u64 = 12;
const CALLS: usize = 250;

/// The simplest store: values with the time at which they end.
#[derive(Default)]
struct NaiveStore {
    entries: BTreeMap<Vec<u8>, (Vec<u8>, Option<Duration>)>,
    now: Duration,
}

impl NaiveStore {
    fn get(&self, key: &[u8]) -> Option<&(Vec<u8>, Option<Duration>)> {
        self.entries.get(key).filter(|(_, ends)| ends.is_none_or(|ends| self.now < ends))
    }

    fn set(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) {
        self.entries.insert(key.to_vec(), (value.to_vec(), ttl.map(|ttl| self.now + ttl)));
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        let was_there = self.get(key).is_some();
        self.entries.remove(key);
        was_there
    }

    fn ttl(&self, key: &[u8]) -> Ttl {
        match self.get(key) {
            None => Ttl::Missing,
            Some((_, None)) => Ttl::Forever,
            Some((_, Some(ends))) => Ttl::Left(*ends - self.now),
        }
    }

    fn value(&self, key: &[u8]) -> Option<Bytes> {
        self.get(key).map(|(value, _)| Bytes::copy_from_slice(value))
    }
}

/// Random calls on few keys, with the clock moved in between, answer as a naive book does.
pub async fn histories_equal_a_book(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    for seed in 0..HISTORIES {
        let EmptyStore { store, clock } = EmptyStore::new(&make).await;
        let (mut random, mut book) = (fastrand::Rng::with_seed(seed), NaiveStore::default());
        let keys: [&[u8]; 4] = [b"a", b"b", b"b\0", b"c"];
        let values = ["", "x", "0", "7", "9223372036854775807", "01"];
        for call in 0..CALLS {
            let key = keys[random.usize(..keys.len())];
            let value = values[random.usize(..values.len())].as_bytes();
            let ttl = random.bool().then(|| Duration::from_millis(random.u64(1..4)));
            let stored = Bytes::copy_from_slice(value);
            let at = format!("seed {seed}, call {call}");
            match random.u8(0..13) {
                0 | 1 => {
                    store.set(key, stored, ttl).await.unwrap();
                    book.set(key, value, ttl);
                }
                2 | 3 => {
                    let is_free = book.get(key).is_none();
                    assert_eq!(store.set_nx(key, stored, ttl).await.unwrap(), is_free, "set_nx, {at}");
                    if is_free {
                        book.set(key, value, ttl);
                    }
                }
                4 | 5 => {
                    let present = book.get(key).cloned();
                    let number = present.as_ref().map_or(Some(0), |(value, _)| number(value)).filter(|n| *n < i64::MAX);
                    match (store.incr(key, ttl).await, number) {
                        (Ok(counted), Some(number)) => {
                            let ends = present.map_or_else(|| ttl.map(|ttl| book.now + ttl), |(_, ends)| ends);
                            let text = (number + 1).to_string().into_bytes();
                            book.entries.insert(key.to_vec(), (text, ends));
                            assert_eq!((counted.number, counted.ttl), (number + 1, book.ttl(key)), "incr, {at}");
                        }
                        (Err(error), None) => assert_eq!(error.kind(), KeyValueErrorKind::NotANumber, "incr, {at}"),
                        (counted, number) => panic!("incr of {number:?} gave {counted:?}, {at}"),
                    }
                }
                6 => assert_eq!(store.delete(key).await.unwrap(), book.delete(key), "delete, {at}"),
                7 => {
                    let was_there = book.value(key);
                    assert_eq!(store.expire(key, ttl).await.unwrap(), was_there.is_some(), "expire, {at}");
                    if let Some(value) = was_there {
                        book.set(key, &value, ttl);
                    }
                }
                8 => {
                    let other = keys[random.usize(..keys.len())];
                    let entries = [(key, stored.clone()), (other, stored)];
                    store.mset(&entries, ttl).await.unwrap();
                    entries.iter().for_each(|(key, value)| book.set(key, value, ttl));
                }
                9 => {
                    let other = keys[random.usize(..keys.len())];
                    let removed = u64::from(book.delete(key)) + u64::from(book.delete(other));
                    assert_eq!(store.delete_many(&[key, other]).await.unwrap(), removed, "delete_many, {at}");
                }
                10 => {
                    let expected: Vec<_> = keys.iter().map(|key| book.value(key)).collect();
                    assert_eq!(store.mget(&keys).await.unwrap(), expected, "mget, {at}");
                }
                11 => {
                    let present = keys.iter().filter(|key| key.starts_with(b"b") && book.get(key).is_some());
                    let expected: Vec<_> = present.map(|key| Bytes::copy_from_slice(key)).collect();
                    assert_eq!(store.scan(b"b", None, 9).await.unwrap().keys, expected, "scan, {at}");
                }
                _ => {
                    let passed = Duration::from_micros(random.u64(1..1_500));
                    clock.advance(passed);
                    book.now += passed;
                }
            }
            assert_eq!(store.get(key).await.unwrap(), book.value(key), "get, {at}");
            assert_eq!(store.ttl(key).await.unwrap(), book.ttl(key), "ttl, {at}");
        }
    }
}

fn number(value: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (number.to_string().as_bytes() == value).then_some(number)
}
