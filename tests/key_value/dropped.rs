//! Futures that are dropped: each operation is carried out as a whole or not at all, and the store stays usable.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use tollgate::key_value::{KeyValue, MemoryStore, PostgresStore, SqliteStore};

use crate::support::{directory::Directory, postgres::Postgres};

/// Polls a future `polls` times, and drops it. Returns whether it had ended.
async fn dropped_after(polls: usize, mut future: Pin<Box<dyn Future<Output = ()> + Send + '_>>) -> bool {
    for _ in 0..polls {
        let ended = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await;
        if ended {
            return true;
        }
        // The store goes on meanwhile.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    false
}

async fn drop_at_every_poll(store: Arc<dyn KeyValue>) {
    let keys = [&b"a"[..], b"b", b"c"];
    store.connect().await.unwrap();
    for polls in 0..12 {
        let value = format!("value {polls}");
        let entries = keys.map(|key| (key, value.clone().into()));
        let whole = |values: &[Option<bytes::Bytes>]| values.windows(2).all(|pair| pair[0] == pair[1]);
        let batch = async { store.mset(&entries, None).await.unwrap() };
        dropped_after(polls, Box::pin(batch)).await;
        let values = store.mget(&keys).await.unwrap();
        assert!(whole(&values), "a part of a batch after {polls} polls: {values:?}");
        let removal = async {
            let _ = store.delete_many(&keys).await.unwrap();
        };
        dropped_after(polls, Box::pin(removal)).await;
        let values = store.mget(&keys).await.unwrap();
        assert!(whole(&values), "a part of a removal after {polls} polls: {values:?}");

        // A key of its own: a call that was dropped may be carried out later.
        let key = format!("count {polls}").into_bytes();
        let count = async {
            let _ = store.incr(&key, None).await.unwrap();
        };
        let ended = dropped_after(polls, Box::pin(count)).await;
        let counted = store.incr(&key, None).await.unwrap().number - 1;
        assert!(counted == 1 || !ended && counted == 0, "counted {counted} after {polls} polls, ended: {ended}");
    }
    store.set(b"key", "value".into(), None).await.unwrap();
    assert_eq!(store.get(b"key").await.unwrap().unwrap(), "value");
}

#[tokio::test]
async fn in_memory() {
    drop_at_every_poll(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn in_sqlite() {
    let folder = Directory::new();
    drop_at_every_poll(Arc::new(SqliteStore::open(folder.0.join("store.db")))).await;
}

#[tokio::test]
async fn in_postgres() {
    drop_at_every_poll(Arc::new(PostgresStore::open(&Postgres::shared().database()).unwrap())).await;
}
