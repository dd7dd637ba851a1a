//! Rules of calls that name several keys.

use std::sync::Arc;

use bytes::Bytes;

use super::{EmptyStore, MINUTE};
use crate::{
    key_value::{KeyValue, MAX_BATCH, Ttl},
    time::FakeClock,
};

/// `mget` answers for each key in the order in which it is named.
pub async fn mget_answers_in_order(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    scene.set(b"a", b"1", None).await;
    scene.set(b"b", b"two", None).await;
    let values = scene.store.mget(&[b"b", b"missing", b"a", b"b"]).await.unwrap();
    let two = Some(Bytes::from_static(b"two"));
    assert_eq!(values, [two.clone(), None, Some(Bytes::from_static(b"1")), two]);
    assert_eq!(scene.store.mget(&[]).await.unwrap(), []);
}

/// `mset` stores every entry with the time to live; of a key that is named twice the last value.
pub async fn mset_stores_all_or_nothing(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let EmptyStore { store, clock } = EmptyStore::new(make).await;
    let value = |value: &'static str| Bytes::from_static(value.as_bytes());
    store.set(b"b", value("old"), None).await.unwrap();
    store.mset(&[(b"b", value("1")), (b"a", value("x")), (b"b", value("2"))], Some(MINUTE)).await.unwrap();
    assert_eq!(store.mget(&[b"a", b"b"]).await.unwrap(), [Some(value("x")), Some(value("2"))]);
    assert_eq!(store.ttl(b"b").await.unwrap(), Ttl::Left(MINUTE));
    store.mset(&[], None).await.unwrap();
    clock.advance(MINUTE);
    assert_eq!(store.mget(&[b"a", b"b"]).await.unwrap(), [None, None]);

    let keys: Vec<_> = (0..MAX_BATCH).map(|n| format!("many {n:04}").into_bytes()).collect();
    let entries: Vec<_> = keys.iter().map(|key| (&key[..], Bytes::copy_from_slice(key))).collect();
    store.mset(&entries, None).await.unwrap();
    let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
    let values = store.mget(&keys).await.unwrap();
    assert!(values.iter().zip(&keys).all(|(value, key)| value.as_deref() == Some(*key)));

    if store.supports_batch() {
        // Two batches over the same keys, in opposite orders, and readers: each sees one of them as a whole.
        let writer = |store: Arc<dyn KeyValue>, value: &'static [u8], reverse: bool| async move {
            let mut keys = [&b"x"[..], b"y", b"z"];
            if reverse {
                keys.reverse();
            }
            for _ in 0..16 {
                let entries = keys.map(|key| (key, Bytes::from_static(value)));
                store.mset(&entries, None).await.unwrap();
            }
        };
        let one = tokio::spawn(writer(Arc::clone(&store), b"one", false));
        let two = tokio::spawn(writer(Arc::clone(&store), b"two", true));
        for _ in 0..32 {
            let values = store.mget(&[b"x", b"y", b"z"]).await.unwrap();
            assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "a part of a batch: {values:?}");
        }
        one.await.unwrap();
        two.await.unwrap();
    }
}

/// `delete_many` removes every key and counts those that were there, each once.
pub async fn delete_many_counts_what_was_there(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    scene.set(b"a", b"1", None).await;
    scene.set(b"b", b"2", None).await;
    scene.set(b"kept", b"3", None).await;
    scene.set(b"over", b"4", Some(MINUTE)).await;
    scene.clock.advance(MINUTE);
    assert_eq!(scene.store.delete_many(&[b"b", b"missing", b"a", b"b", b"over"]).await.unwrap(), 2);
    assert_eq!(scene.store.mget(&[b"a", b"b"]).await.unwrap(), [None, None]);
    assert_eq!(scene.get(b"kept").await.as_deref(), Some(&b"3"[..]));
    assert_eq!(scene.store.delete_many(&[]).await.unwrap(), 0);
}

/// `scan` lists the keys of a prefix in the order of their bytes, in pages that meet.
pub async fn scan_lists_a_prefix_in_pages(make: impl AsyncFn(FakeClock) -> Arc<dyn KeyValue>) {
    let scene = EmptyStore::new(make).await;
    if !scene.store.supports_scan() {
        return;
    }
    let keys: [&[u8]; 12] =
        [b"%", b"%a", b"_", b"a", b"a\0", b"a%", b"aB", b"a_", b"ab", b"b", b"\xff", b"\xff\xff\x01"];
    for key in keys.iter().rev() {
        scene.set(key, b"value", None).await;
    }
    scene.set(b"a over", b"value", Some(MINUTE)).await;
    scene.clock.advance(MINUTE);
    for prefix in [&b""[..], b"a", b"a_", b"%", b"_", b"\xff", b"\xff\xff", b"ab", b"c"] {
        let expected: Vec<_> = {
            let mut found: Vec<_> = keys.iter().filter(|key| key.starts_with(prefix)).copied().collect();
            found.sort_unstable();
            found
        };
        for limit in [1, 2, 5, 12, MAX_BATCH] {
            let (mut found, mut after): (Vec<Bytes>, Option<Bytes>) = (Vec::new(), None);
            loop {
                let page = scene.store.scan(prefix, after.as_deref(), limit).await.unwrap();
                assert!(page.keys.len() <= limit);
                found.extend(page.keys);
                after = page.next;
                if after.is_none() {
                    break;
                }
                assert!(found.len() <= keys.len(), "a page begins again: {found:?}");
            }
            assert_eq!(found, expected, "prefix {prefix:?}, pages of {limit}");
        }
    }
}
