//! The store in memory: its bounds.

use std::time::Duration;

use bytes::Bytes;
use tollgate::{
    FakeClock,
    key_value::{KeyValue, KeyValueError, KeyValueErrorKind, MemoryStore},
};

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));

async fn set(store: &MemoryStore, key: &str, ttl: Option<Duration>) -> Result<(), KeyValueError> {
    store.set(key.as_bytes(), Bytes::from_static(b"value"), ttl).await
}

#[tokio::test]
async fn entry_that_lives_is_never_evicted() {
    let store = MemoryStore::new().max_entries(3);
    for key in ["a", "b", "c"] {
        set(&store, key, MINUTE).await.unwrap();
    }
    for _ in 0..100 {
        let full = set(&store, "d", MINUTE).await.unwrap_err();
        assert_eq!(full.kind(), KeyValueErrorKind::Full);
        assert_eq!(full.to_string(), "no room in the store, all 3 entries are taken; raise .max_entries()");
    }
    assert_eq!(store.incr(b"d", None).await.unwrap_err().kind(), KeyValueErrorKind::Full);
    set(&store, "a", None).await.unwrap(); // replaces
    assert_eq!(store.mget(&[b"a", b"b", b"c", b"d"]).await.unwrap().iter().flatten().count(), 3);
    store.delete(b"b").await.unwrap();
    set(&store, "d", None).await.unwrap();
}

#[tokio::test]
async fn bytes_are_bounded_and_given_back() {
    let store = MemoryStore::new().max_bytes(2 * (128 + 1 + 100));
    let hundred = || Bytes::from(vec![b'x'; 100]);
    store.set(b"a", hundred(), None).await.unwrap();
    store.set(b"b", hundred(), None).await.unwrap();
    let full = store.set(b"b", Bytes::from(vec![b'x'; 101]), None).await.unwrap_err();
    assert_eq!(full.to_string(), "no room in the store, all 458 bytes are taken; raise .max_bytes()");
    assert_eq!(store.get(b"b").await.unwrap().unwrap().len(), 100, "nothing has changed");
    store.set(b"a", Bytes::new(), None).await.unwrap();
    store.set(b"b", Bytes::from(vec![b'x'; 200]), None).await.unwrap();
    store.delete_many(&[b"a", b"b"]).await.unwrap();
    store.mset(&[(b"c", hundred()), (b"d", hundred())], None).await.unwrap();
    assert_eq!(format!("{store:?}"), "MemoryStore { entries: 2, bytes: 458, records: 0, record_bytes: 0, .. }");
}

#[tokio::test]
async fn batch_without_room_stores_nothing() {
    let store = MemoryStore::new().max_entries(3);
    set(&store, "a", None).await.unwrap();
    let value = Bytes::from_static(b"new");
    let entries = [&b"a"[..], b"b", b"c", b"d"].map(|key| (key, value.clone()));
    assert_eq!(store.mset(&entries, None).await.unwrap_err().kind(), KeyValueErrorKind::Full);
    assert_eq!(store.get(b"a").await.unwrap().unwrap(), "value");
    assert_eq!(store.scan(b"", None, 10).await.unwrap().keys, ["a"]);
    store.mset(&entries[..3], None).await.unwrap();
    assert_eq!(store.get(b"a").await.unwrap().unwrap(), "new");
}

#[tokio::test]
async fn expired_entries_go_without_being_asked_for() {
    let clock = FakeClock::new();
    let store = MemoryStore::new().clock(clock.clone());
    for key in 0..100 {
        set(&store, &format!("key {key}"), MINUTE).await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    for _ in 0..50 {
        set(&store, "other", None).await.unwrap();
    }
    assert_eq!(format!("{store:?}"), "MemoryStore { entries: 1, bytes: 138, records: 0, record_bytes: 0, .. }");
}

#[tokio::test]
async fn expired_entries_make_room_at_once() {
    let clock = FakeClock::new();
    let store = MemoryStore::new().max_entries(200).clock(clock.clone());
    for key in 0..200 {
        set(&store, &format!("key {key}"), MINUTE).await.unwrap();
    }
    clock.advance(Duration::from_secs(60));
    let keys: Vec<_> = (0..200).map(|key| format!("new {key}").into_bytes()).collect();
    let entries: Vec<_> = keys.iter().map(|key| (&key[..], Bytes::from_static(b"value"))).collect();
    store.mset(&entries, None).await.unwrap();
    assert_eq!(format!("{store:?}"), "MemoryStore { entries: 200, bytes: 27890, records: 0, record_bytes: 0, .. }");
}

#[tokio::test]
async fn replaced_times_leave_nothing_behind() {
    let clock = FakeClock::new();
    let store = MemoryStore::new().clock(clock.clone());
    for round in 1..=1_000 {
        set(&store, "key", Some(Duration::from_secs(round))).await.unwrap();
    }
    clock.advance(Duration::from_secs(999));
    assert!(store.exists(b"key").await.unwrap());
    set(&store, "other", None).await.unwrap();
    assert!(store.exists(b"key").await.unwrap(), "a time that was replaced removes nothing");
    clock.advance(Duration::from_secs(1));
    set(&store, "other", None).await.unwrap();
    let shown = format!("{store:?}");
    assert!(
        shown.contains("entries: 1,"),
        "the last time stands first in the order, not behind those replaced: {shown}"
    );
}

#[test]
fn bounds_of_nothing_panic_with_the_value() {
    let panic = std::panic::catch_unwind(|| MemoryStore::new().max_entries(0)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "max_entries must be positive, got 0");
    let panic = std::panic::catch_unwind(|| MemoryStore::new().max_bytes(0)).unwrap_err();
    assert_eq!(panic.downcast_ref::<String>().unwrap(), "max_bytes must be positive, got 0");
}
