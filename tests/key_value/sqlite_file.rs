//! The store in an SQLite file.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use sqlx::{
    ConnectOptions, Connection, Executor, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use tollgate::key_value::{KeyValue, KeyValueErrorKind, SqliteStore, Ttl, already_processed};

use crate::support::directory::Directory;

/// A file of one test.
struct File(Directory);

impl File {
    fn new() -> Self {
        Self(Directory::new())
    }

    fn path(&self) -> PathBuf {
        self.0.0.join("store.db")
    }

    fn store(&self) -> SqliteStore {
        SqliteStore::open(self.path())
    }

    async fn connection(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).connect().await.unwrap()
    }

    async fn pool(&self, busy: Duration) -> SqlitePool {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true).busy_timeout(busy);
        let options = options.synchronous(SqliteSynchronous::Full);
        SqlitePoolOptions::new().connect_with(options).await.unwrap()
    }
}

#[tokio::test]
async fn entries_outlive_the_store() {
    let file = File::new();
    let store = file.store();
    store.set(b"key", "value".into(), None).await.unwrap();
    store.incr(b"count", Some(Duration::from_secs(3_600))).await.unwrap();
    store.disconnect().await.unwrap();
    assert_eq!(store.get(b"key").await.unwrap().unwrap(), "value", "a later operation connects again");
    drop(store);
    let store = file.store();
    assert_eq!(store.get(b"key").await.unwrap().unwrap(), "value");
    assert_eq!(store.incr(b"count", None).await.unwrap().number, 2);
    let Ttl::Left(left) = store.ttl(b"count").await.unwrap() else { panic!("a time to live") };
    assert!(left <= Duration::from_secs(3_600));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_of_one_file_meet() {
    let file = File::new();
    let stores: Vec<_> = (0..4).map(|_| Arc::new(file.store())).collect();
    let mut callers = Vec::new();
    for store in stores.iter().cycle().take(32).cloned() {
        callers.push(tokio::spawn(async move {
            let new = !already_processed(&*store, b"evt_1", Duration::from_secs(3_600)).await.unwrap();
            store.incr(b"count", None).await.unwrap();
            new
        }));
    }
    let mut new = 0;
    for caller in callers {
        new += u32::from(caller.await.unwrap());
    }
    assert_eq!(new, 1);
    assert_eq!(stores[0].get(b"count").await.unwrap().unwrap(), "32");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_that_create_one_file_at_once_meet() {
    for _ in 0..40 {
        let file = File::new();
        let stores: Vec<_> = (0..4).map(|_| Arc::new(file.store())).collect();
        let begun = stores.into_iter().map(|store| tokio::spawn(async move { store.incr(b"count", None).await }));
        let mut numbers = Vec::new();
        for begun in begun.collect::<Vec<_>>() {
            numbers.push(begun.await.unwrap().unwrap().number);
        }
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }
}

#[tokio::test]
async fn time_of_the_database_expires_entries() {
    let file = File::new();
    let store = file.store();
    store.set(b"key", "value".into(), Some(Duration::from_millis(1))).await.unwrap();
    while store.exists(b"key").await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert!(store.set_nx(b"key", "again".into(), None).await.unwrap());
}

#[tokio::test]
async fn write_purges_two_entries_that_have_expired() {
    let file = File::new();
    let clock = tollgate::FakeClock::new();
    let store = file.store().clock(clock.clone());
    for key in [b"a", b"b", b"c", b"d", b"e"] {
        store.set(key, "value".into(), Some(Duration::from_secs(1))).await.unwrap();
    }
    clock.advance(Duration::from_secs(1));
    let mut connection = file.connection().await;
    for left in [4_i64, 2, 1] {
        store.incr(b"count", None).await.unwrap();
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM tollgate_key_value").fetch_one(&mut connection).await.unwrap();
        assert_eq!(rows, left);
    }
}

#[tokio::test]
async fn file_that_another_program_writes_is_unavailable() {
    let file = File::new();
    let store = SqliteStore::new(file.pool(Duration::from_millis(1)).await);
    store.set(b"key", "value".into(), None).await.unwrap();
    let mut other = file.connection().await;
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let error = store.set(b"key", "other".into(), None).await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("locked"), "{error}");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(store.get(b"key").await.unwrap().unwrap(), "value");
    store.set(b"key", "other".into(), None).await.unwrap();
}

#[tokio::test]
async fn row_changed_by_hand_is_an_error_that_names_the_table() {
    let file = File::new();
    let store = file.store();
    store.set(b"key", "value".into(), None).await.unwrap();
    let mut other = file.connection().await;
    other.execute("PRAGMA ignore_check_constraints = 1; UPDATE tollgate_key_value SET value = NULL").await.unwrap();
    let error = store.get(b"key").await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Damaged);
    assert!(error.to_string().ends_with("must have a value or a number, got neither; delete it"), "{error}");
    assert_eq!(store.mget(&[b"key"]).await.unwrap_err().kind(), KeyValueErrorKind::Damaged);
    assert!(store.delete(b"key").await.unwrap());
}

#[tokio::test]
async fn tables_of_a_newer_version_are_not_used() {
    let file = File::new();
    file.store().connect().await.unwrap();
    file.connection().await.execute("INSERT INTO tollgate_key_value_version VALUES (99)").await.unwrap();
    let error = file.store().get(b"key").await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Damaged);
    assert!(error.to_string().contains("got 99") && error.to_string().ends_with("update this program"), "{error}");
}

#[tokio::test]
async fn file_that_could_lose_entries_is_refused() {
    let file = File::new();
    let options = SqliteConnectOptions::new().filename(file.path()).create_if_missing(true);
    let forgetful = options.synchronous(SqliteSynchronous::Normal);
    let store = SqliteStore::new(SqlitePoolOptions::new().connect_with(forgetful).await.unwrap());
    let error = store.connect().await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        "synchronous must be full or extra, got normal: entries that were acknowledged could be lost"
    );
    let memory = SqliteStore::new(SqlitePool::connect("sqlite::memory:").await.unwrap());
    let error = memory.set(b"key", Bytes::new(), None).await.unwrap_err();
    assert_eq!(error.to_string(), "the store must be kept in a file, got a database in memory; use MemoryStore");
}

#[tokio::test]
async fn missing_folder_is_an_error_with_its_cause() {
    let error = SqliteStore::open("/no/such/folder/store.db").get(b"key").await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Refused, "{error}");
    assert!(std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn connection_of_the_program_sees_the_entries() {
    let file = File::new();
    let pool = file.pool(Duration::from_secs(5)).await;
    let store = SqliteStore::new(pool.clone());
    store.mset(&[(b"text", "value".into()), (b"number", "7".into())], None).await.unwrap();
    store.disconnect().await.unwrap(); // the pool stays the program's
    let (value, number): (Option<Vec<u8>>, Option<i64>) =
        sqlx::query_as("SELECT value, number FROM tollgate_key_value WHERE key = x'6e756d626572'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!((value, number), (None, Some(7)));
    file.connection().await.close().await.unwrap();
}
