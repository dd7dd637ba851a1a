//! The store on a PostgreSQL server.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tollgate::key_value::{KeyValue, KeyValueErrorKind, PostgresStore, already_processed};

use crate::support::postgres::Postgres;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_of_one_database_meet() {
    let url = Postgres::shared().database();
    let stores: Vec<_> = (0..4).map(|_| Arc::new(PostgresStore::open(&url).unwrap())).collect();
    let mut callers = Vec::new();
    for store in stores.iter().cycle().take(32).cloned() {
        // They also migrate at once.
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

#[tokio::test]
async fn time_of_the_server_expires_entries() {
    let store = PostgresStore::open(&Postgres::shared().database()).unwrap();
    store.set(b"key", "value".into(), Some(Duration::from_millis(1))).await.unwrap();
    while store.exists(b"key").await.unwrap() {
        tokio::task::yield_now().await;
    }
    assert!(store.set_nx(b"key", "again".into(), None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_and_removals_in_any_order_do_not_block() {
    let store = Arc::new(PostgresStore::open(&Postgres::shared().database()).unwrap());
    let mut callers = Vec::new();
    for caller in 0..8 {
        let store = Arc::clone(&store);
        callers.push(tokio::spawn(async move {
            let mut keys: Vec<_> = (0..20_u8).map(|key| [b'k', key]).collect();
            fastrand::Rng::with_seed(caller).shuffle(&mut keys);
            for _ in 0..20 {
                let entries: Vec<_> = keys.iter().map(|key| (&key[..], "value".into())).collect();
                store.mset(&entries, Some(Duration::from_millis(1))).await.unwrap();
                let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
                store.delete_many(&keys).await.unwrap();
            }
        }));
    }
    for caller in callers {
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn killed_server_is_unavailable_until_it_is_back() {
    let server = Postgres::start("");
    let url = server.database();
    let store = PostgresStore::open(&url).unwrap();
    store.set(b"key", "value".into(), None).await.unwrap();
    server.kill();
    let mut kinds = vec![store.get(b"key").await.unwrap_err().kind()];
    kinds.push(store.set(b"key", "other".into(), None).await.unwrap_err().kind());
    let expected = [KeyValueErrorKind::Unavailable, KeyValueErrorKind::Indeterminate];
    assert!(kinds.iter().all(|kind| expected.contains(kind)), "{kinds:?}");
    server.again("");
    assert_eq!(store.get(b"key").await.unwrap().unwrap(), "value");
    assert_eq!(store.incr(b"count", None).await.unwrap().number, 1);
}

#[tokio::test]
async fn server_that_could_lose_entries_is_refused() {
    let server = Postgres::start("-c synchronous_commit=off");
    let error = PostgresStore::open(&server.database()).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Refused);
    assert_eq!(
        error.to_string(),
        "synchronous_commit must be on, got off: entries that were acknowledged could be lost"
    );
}

#[tokio::test]
async fn role_without_rights_is_refused_and_may_get_them() {
    let server = Postgres::shared();
    let url = server.database();
    let database = url.rsplit('/').next().unwrap();
    let store = PostgresStore::open(&url).unwrap();
    store.set(b"key", "value".into(), None).await.unwrap();
    let role = format!("reader_{:08x}", fastrand::u32(..));
    server.sql(database, &format!("CREATE ROLE {role} LOGIN"));
    let of_role = format!("postgres://{role}@127.0.0.1:{}/{database}", server.port());
    let reader = PostgresStore::new(PgPool::connect(&of_role).await.unwrap());
    let error = reader.get(b"key").await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Refused, "{error}");
    server.sql(
        database,
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON tollgate_key_value, tollgate_key_value_version TO {role}"),
    );
    assert_eq!(reader.get(b"key").await.unwrap().unwrap(), "value");
    assert!(reader.delete(b"key").await.unwrap());
}

#[test]
fn invalid_url_is_an_error_without_its_password() {
    let error = PostgresStore::open("postgres://ann:canary@127.0.0.1:port/quota").unwrap_err();
    assert!(error.to_string().starts_with("invalid URL of a key-value store"), "{error}");
    assert!(!error.to_string().contains("canary"), "{error}");
    let store = PostgresStore::open("postgres://ann:canary@127.0.0.1/quota").unwrap();
    assert!(!format!("{store:?}").contains("canary"));
}

#[tokio::test]
async fn write_whose_connection_dies_is_not_repeated() {
    let url = Postgres::shared().database();
    let store = std::sync::Arc::new(PostgresStore::open(&url).unwrap());
    store.set(b"key", "1".into(), None).await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM tollgate_key_value FOR UPDATE").fetch_all(&mut *holder).await.unwrap();
    let waits = {
        let store = std::sync::Arc::clone(&store);
        tokio::spawn(async move { store.incr(b"key", None).await })
    };
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while sqlx::query(end).fetch_all(&pool).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(waits.await.unwrap().unwrap_err().kind(), KeyValueErrorKind::Indeterminate);
    holder.rollback().await.unwrap();
    assert_eq!(store.get(b"key").await.unwrap().unwrap(), "1");
}

#[tokio::test]
async fn lease_counts_from_the_time_at_which_the_row_is_taken() {
    use tollgate::key_value::{AfterLease, Begun, Claim, Owner, RecordKey, RecordStore};

    let url = Postgres::shared().database();
    let store = std::sync::Arc::new(PostgresStore::open(&url).unwrap());
    let claim =
        |lease| Claim { after_lease: AfterLease::Rerun, lease, ..Claim::new(RecordKey([1; 16]), Owner::random()) };
    store.begin(&claim(Duration::from_micros(1))).await.unwrap();
    let pool = sqlx::PgPool::connect(&url).await.unwrap();
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM tollgate_record FOR UPDATE").fetch_all(&mut *holder).await.unwrap();
    let second = {
        let (store, claim) = (std::sync::Arc::clone(&store), claim(Duration::from_secs(300)));
        tokio::spawn(async move { store.begin(&claim).await })
    };
    let waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    while sqlx::query(waits).fetch_all(&pool).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    let freed_at: i64 = sqlx::query_scalar("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)")
        .fetch_one(&pool)
        .await
        .unwrap();
    holder.rollback().await.unwrap();
    assert_eq!(second.await.unwrap().unwrap(), Begun::Started { attempt: 2 });
    let lease_until: i64 =
        sqlx::query_scalar("SELECT lease_until FROM tollgate_record").fetch_one(&pool).await.unwrap();
    assert!(lease_until >= freed_at + 300_000_000, "{lease_until} is before {freed_at} and 300 s");
}
