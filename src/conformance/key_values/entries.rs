//! Rules of single entries and of their time to live.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{EmptyStore, MICROSECOND, MINUTE, fails};
use crate::{
    key_value::{KeyValue, KeyValueErrorKind, MAX_BATCH, MAX_KEY, MAX_TTL, Ttl},
    time::FakeClock,
};

/// A value is read back, byte for byte, also beside keys that begin alike.
pub async fn value_is_read_back(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let longest = vec![b'k'; MAX_KEY];
    let entries: [(&[u8], &[u8]); 7] = [
        (b"a", b"one"),
        (b"a\0", b"two"),
        (b"A", b"three"),
        (b"\0", b"\0"),
        (&every_byte, &every_byte),
        (b"\xff\xff", b"not utf-8 \xff"),
        (&longest, b"long key"),
    ];
    for (key, value) in entries {
        scene.set(key, value, None).await;
    }
    for (key, value) in entries {
        assert_eq!(scene.get(key).await.as_deref(), Some(value), "{key:?}");
    }
    let large = vec![7; 1 << 20];
    scene.set(b"a", &large, None).await;
    assert_eq!(scene.get(b"a").await.as_deref(), Some(&*large), "1 MiB");
}

/// A key that is not there has no value, and an empty value is one.
pub async fn missing_key_is_told_from_an_empty_value(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    scene.set(b"empty", b"", None).await;
    assert_eq!(scene.get(b"empty").await.as_deref(), Some(&b""[..]));
    assert!(scene.store.exists(b"empty").await.unwrap());
    assert_eq!(scene.store.ttl(b"empty").await.unwrap(), Ttl::Forever);
    assert_eq!(scene.get(b"missing").await, None);
    assert!(!scene.store.exists(b"missing").await.unwrap());
    assert_eq!(scene.store.ttl(b"missing").await.unwrap(), Ttl::Missing);
}

/// `delete` and `expire` say whether the key was there.
pub async fn calls_say_whether_the_key_was_there(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, clock } = EmptyStore::new(make).await;
    assert!(!store.delete(b"key").await.unwrap());
    assert!(!store.expire(b"key", Some(MINUTE)).await.unwrap());
    assert_eq!(store.ttl(b"key").await.unwrap(), Ttl::Missing, "expire creates nothing");
    store.set(b"key", Bytes::from_static(b"value"), Some(MINUTE)).await.unwrap();
    assert!(store.expire(b"key", Some(MINUTE)).await.unwrap());
    assert!(store.delete(b"key").await.unwrap());
    assert!(!store.delete(b"key").await.unwrap());
    store.set(b"key", Bytes::from_static(b"value"), Some(MINUTE)).await.unwrap();
    clock.advance(MINUTE);
    assert!(!store.expire(b"key", None).await.unwrap(), "an entry that has expired does not come back");
    assert!(!store.delete(b"key").await.unwrap());
}

/// An entry is there up to its time, and as good as none from then on.
pub async fn entry_ends_with_its_time(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    scene.set(b"key", b"value", Some(MINUTE)).await;
    scene.set(b"key forever", b"value", None).await;
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MINUTE));
    scene.clock.advance(MINUTE - MICROSECOND);
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MICROSECOND));
    assert_eq!(scene.get(b"key").await.as_deref(), Some(&b"value"[..]));
    scene.clock.advance(MICROSECOND);
    assert_eq!(scene.get(b"key").await, None);
    assert!(!scene.store.exists(b"key").await.unwrap());
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Missing);
    assert_eq!(scene.store.mget(&[b"key"]).await.unwrap(), [None]);
    assert!(scene.store.scan(b"key", None, 10).await.unwrap().keys.iter().all(|key| &**key != b"key"));
    scene.clock.advance(MAX_TTL);
    assert!(scene.store.exists(b"key forever").await.unwrap());
}

/// `expire` replaces the time to live, in both directions, and keeps the value.
pub async fn expire_replaces_the_time(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    scene.set(b"key", b"value", Some(MINUTE)).await;
    assert!(scene.store.expire(b"key", Some(MINUTE * 3)).await.unwrap());
    scene.clock.advance(MINUTE);
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MINUTE * 2));
    assert!(scene.store.expire(b"key", Some(MINUTE)).await.unwrap());
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MINUTE));
    assert!(scene.store.expire(b"key", None).await.unwrap());
    scene.clock.advance(MINUTE * 5);
    assert_eq!(scene.get(b"key").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Forever);
}

/// `set` replaces the time to live together with the value.
pub async fn set_replaces_the_time(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    scene.set(b"key", b"1", Some(MINUTE)).await;
    scene.set(b"key", b"2", None).await;
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Forever);
    scene.set(b"key", b"3", Some(MINUTE)).await;
    scene.set(b"key", b"4", Some(MINUTE * 2)).await;
    scene.clock.advance(MINUTE);
    assert_eq!(scene.get(b"key").await.as_deref(), Some(&b"4"[..]), "the first time to live is over, and replaced");
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MINUTE));
}

/// A call beyond a bound is an error and stores nothing.
pub async fn bounds_are_errors_that_store_nothing(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, .. } = EmptyStore::new(make).await;
    let (long, value) = (vec![b'k'; MAX_KEY + 1], Bytes::from_static(b"value"));
    let invalid = KeyValueErrorKind::Invalid;
    for key in [&b""[..], &long] {
        let got = format!("got {}", key.len());
        assert!(fails(store.get(key).await, invalid).ends_with(&got));
        assert!(fails(store.set(key, value.clone(), None).await, invalid).ends_with(&got));
        assert!(fails(store.set_nx(key, value.clone(), None).await, invalid).ends_with(&got));
        assert!(fails(store.incr(key, None).await, invalid).ends_with(&got));
        assert!(fails(store.delete(key).await, invalid).ends_with(&got));
        assert!(fails(store.exists(key).await, invalid).ends_with(&got));
        assert!(fails(store.ttl(key).await, invalid).ends_with(&got));
        assert!(fails(store.expire(key, None).await, invalid).ends_with(&got));
        assert!(fails(store.mget(&[b"a", key]).await, invalid).ends_with(&got));
        assert!(fails(store.mset(&[(b"a", value.clone()), (key, value.clone())], None).await, invalid).ends_with(&got));
        assert!(fails(store.delete_many(&[b"a", key]).await, invalid).ends_with(&got));
    }
    let large = Bytes::from(vec![0; (1 << 20) + 1]);
    fails(store.set(b"a", large.clone(), None).await, invalid);
    fails(store.set_nx(b"a", large.clone(), None).await, invalid);
    fails(store.mset(&[(b"a", value.clone()), (b"b", large)], None).await, invalid);
    for ttl in [Duration::ZERO, MAX_TTL + Duration::from_millis(1), Duration::MAX] {
        fails(store.set(b"a", value.clone(), Some(ttl)).await, invalid);
        fails(store.set_nx(b"a", value.clone(), Some(ttl)).await, invalid);
        fails(store.mset(&[(b"a", value.clone())], Some(ttl)).await, invalid);
        fails(store.incr(b"a", Some(ttl)).await, invalid);
        fails(store.expire(b"a", Some(ttl)).await, invalid);
    }
    let many = vec![&b"a"[..]; MAX_BATCH + 1];
    fails(store.mget(&many).await, invalid);
    fails(store.delete_many(&many).await, invalid);
    fails(store.mset(&vec![(&b"a"[..], value.clone()); MAX_BATCH + 1], None).await, invalid);
    for limit in [0, MAX_BATCH + 1, usize::MAX] {
        fails(store.scan(b"", None, limit).await, invalid);
    }
    fails(store.scan(&long, None, 1).await, invalid);
    assert_eq!(store.scan(b"", None, 10).await.unwrap().keys, Vec::<Bytes>::new(), "nothing was stored");
    store.set(b"a", value, Some(MAX_TTL)).await.unwrap();
    assert_eq!(store.ttl(b"a").await.unwrap(), Ttl::Left(MAX_TTL));
}

/// `set_nx` stores a value only where none is, also where one has expired.
pub async fn set_nx_stores_once(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    let (one, two) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
    assert!(scene.store.set_nx(b"key", one.clone(), Some(MINUTE)).await.unwrap());
    assert!(!scene.store.set_nx(b"key", two.clone(), None).await.unwrap());
    assert_eq!(scene.get(b"key").await, Some(one.clone()));
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Left(MINUTE), "neither value nor time is replaced");
    scene.clock.advance(MINUTE);
    assert!(scene.store.set_nx(b"key", two.clone(), None).await.unwrap());
    assert_eq!(scene.get(b"key").await, Some(two));
    assert_eq!(scene.store.ttl(b"key").await.unwrap(), Ttl::Forever);
    scene.store.delete(b"key").await.unwrap();
    assert!(scene.store.set_nx(b"key", one, None).await.unwrap());
}

/// Of many callers at once that store unless the key is there, one stores, also where an entry has expired.
pub async fn many_at_once_store_once(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, clock } = EmptyStore::new(make).await;
    for round in 0..8_u8 {
        let callers: Vec<_> = (0..16_u8)
            .map(|caller| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let value = Bytes::copy_from_slice(&[b'#', caller]);
                    store.set_nx(b"key", value.clone(), Some(MINUTE)).await.unwrap().then_some(value)
                })
            })
            .collect();
        let mut stored = Vec::new();
        for caller in callers {
            stored.extend(caller.await.unwrap());
        }
        assert_eq!(stored.len(), 1, "round {round}");
        assert_eq!(store.get(b"key").await.unwrap(), stored.pop());
        clock.advance(MINUTE);
    }
}
