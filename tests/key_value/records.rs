//! Records: bounds of the store in memory, rows changed by hand, calls that are dropped.

use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration};

use tollgate::{
    FakeClock,
    key_value::{
        AfterLease, Answer, Begun, Claim, Completion, KeyValueErrorKind, MemoryStore, Owner, Ownership, PostgresStore,
        RecordKey, RecordStore, SqliteStore,
    },
};

use crate::support::{directory::Directory, postgres::Postgres};

const LIFE: Duration = Duration::from_secs(86_400);

fn claim(operation: u8, after_lease: AfterLease) -> Claim {
    Claim { after_lease, ..Claim::new(RecordKey([operation; 16]), Owner::random()) }
}

fn of_client(operation: u8, client: u8) -> Claim {
    Claim { client: Some([client; 16]), ..claim(operation, AfterLease::Rerun) }
}

async fn complete(store: &dyn RecordStore, claim: &Claim, body: Vec<u8>) -> Ownership {
    let completion = Completion::Answered(Answer::new(200, body));
    store.complete(&claim.key, &claim.owner, &completion, LIFE).await.unwrap()
}

#[tokio::test]
async fn record_that_lives_is_never_evicted() {
    let clock = FakeClock::new();
    let store = MemoryStore::new().max_records(3).clock(clock.clone());
    let claims = [1, 2, 3].map(|operation| claim(operation, AfterLease::Rerun));
    for claim in &claims {
        assert_eq!(store.begin(claim).await.unwrap(), Begun::Started { attempt: 1 });
    }
    let fourth = claim(4, AfterLease::Rerun);
    let full = store.begin(&fourth).await.unwrap_err();
    assert_eq!(full.kind(), KeyValueErrorKind::Full);
    assert_eq!(full.to_string(), "no room in the store, all 3 records are taken; raise .max_records()");
    assert!(matches!(store.begin(&claim(1, AfterLease::Rerun)).await.unwrap(), Begun::Running { .. }));
    assert_eq!(complete(&store, &claims[0], b"done".into()).await, Ownership::Held);
    assert_eq!(store.abandon(&claims[1].key, &claims[1].owner).await.unwrap(), Ownership::Held);
    assert_eq!(store.begin(&fourth).await.unwrap(), Begun::Started { attempt: 1 });
    clock.advance(2 * LIFE); // all have expired, and make room
    for operation in 5..8 {
        assert_eq!(store.begin(&claim(operation, AfterLease::Rerun)).await.unwrap(), Begun::Started { attempt: 1 });
    }
}

#[tokio::test]
async fn answer_without_room_leaves_the_record_running() {
    let store = MemoryStore::new().max_record_bytes(2 * (128 + 128 + 16) + 100);
    let (first, second) = (claim(1, AfterLease::Hold), claim(2, AfterLease::Hold));
    store.begin(&first).await.unwrap();
    store.begin(&second).await.unwrap();
    assert_eq!(complete(&store, &first, vec![b'x'; 100]).await, Ownership::Held);
    let long = Completion::Answered(Answer::new(200, vec![b'x'; 1]));
    let full = store.complete(&second.key, &second.owner, &long, LIFE).await.unwrap_err();
    assert_eq!(full.to_string(), "no room in the store, all 644 bytes of records are taken; raise .max_record_bytes()");
    // It can still be marked as carried out.
    let marked = store.complete(&second.key, &second.owner, &Completion::NotRetained, LIFE).await.unwrap();
    assert_eq!(marked, Ownership::Held);
    assert_eq!(store.begin(&claim(2, AfterLease::Hold)).await.unwrap(), Begun::NotRetained);
}

#[tokio::test]
async fn client_with_new_keys_leaves_room_for_others() {
    let clock = FakeClock::new();
    let store = MemoryStore::new().max_records_per_client(2).clock(clock.clone());
    let first = of_client(1, 1);
    store.begin(&first).await.unwrap();
    store.begin(&of_client(2, 1)).await.unwrap();
    let full = store.begin(&of_client(3, 1)).await.unwrap_err();
    assert_eq!(full.kind(), KeyValueErrorKind::Full);
    assert_eq!(
        full.to_string(),
        "no room in the store, the client has 2 records, which is all it may have; raise .max_records_per_client()"
    );
    for (operation, client) in [(4, 2), (5, 2), (6, 3)] {
        assert_eq!(store.begin(&of_client(operation, client)).await.unwrap(), Begun::Started { attempt: 1 });
    }
    // Its records are answered, completed and given back as before.
    assert!(matches!(store.begin(&of_client(1, 1)).await.unwrap(), Begun::Running { .. }));
    assert_eq!(complete(&store, &first, b"done".into()).await, Ownership::Held);
    assert!(store.begin(&of_client(3, 1)).await.is_err(), "an answer is a record too");
    clock.advance(LIFE);
    assert_eq!(store.begin(&of_client(3, 1)).await.unwrap(), Begun::Started { attempt: 1 });
    let second = of_client(7, 1);
    assert!(store.begin(&second).await.is_err(), "the second is there for a life after its lease");
    clock.advance(2 * LIFE);
    for operation in [8, 9] {
        let next = of_client(operation, 1);
        assert_eq!(store.begin(&next).await.unwrap(), Begun::Started { attempt: 1 });
        assert_eq!(store.abandon(&next.key, &next.owner).await.unwrap(), Ownership::Held);
    }
    for operation in [10, 11] {
        assert_eq!(store.begin(&of_client(operation, 1)).await.unwrap(), Begun::Started { attempt: 1 });
    }
}

#[tokio::test]
async fn rows_changed_by_hand_are_errors() {
    let folder = Directory::new();
    let path = folder.0.join("store.db");
    let store = SqliteStore::open(&path);
    let first = claim(1, AfterLease::Hold);
    store.begin(&first).await.unwrap();
    let pool = sqlx::SqlitePool::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    sqlx::query("UPDATE tollgate_record SET format = 2").execute(&pool).await.unwrap();
    let error = store.begin(&claim(1, AfterLease::Hold)).await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Damaged);
    assert_eq!(
        error.to_string(),
        "SQLite: format of a record must be 1, got 2: a newer version of this crate has written it; update this program"
    );
    let refused = sqlx::query("UPDATE tollgate_record SET format = 1, state = 1").execute(&pool).await;
    assert!(refused.is_err(), "an answer without a status");
    let refused = sqlx::query("UPDATE tollgate_record SET owner = x'00'").execute(&pool).await;
    assert!(refused.is_err(), "an owner that is too short");
    sqlx::query("UPDATE tollgate_record SET format = 1, state = 1, status = -1, fields = x'', body = x''")
        .execute(&pool)
        .await
        .unwrap();
    let error = store.begin(&claim(1, AfterLease::Hold)).await.unwrap_err();
    assert_eq!(error.to_string(), "SQLite: a row of tollgate_record must have a status below 65536, got -1; delete it");
}

/// Polls a future `polls` times, and drops it.
async fn dropped_after(polls: usize, mut future: Pin<Box<dyn Future<Output = ()> + Send + '_>>) {
    for _ in 0..polls {
        if poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await {
            return;
        }
        // The store goes on meanwhile.
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Drops each call at each poll. Whatever the store has done, the owner that calls again gets on.
async fn drop_at_every_poll(store: Arc<dyn RecordStore>) {
    for polls in 0..12 {
        let first = claim(polls, AfterLease::Hold);
        let polls = usize::from(polls);
        dropped_after(polls, Box::pin(async { drop(store.begin(&first).await.unwrap()) })).await;
        assert_eq!(store.begin(&first).await.unwrap(), Begun::Started { attempt: 1 });
        dropped_after(polls, Box::pin(async { drop(store.renew(&first.key, &first.owner, LIFE).await) })).await;
        dropped_after(
            polls,
            Box::pin(async { assert_eq!(complete(&*store, &first, b"done".into()).await, Ownership::Held) }),
        )
        .await;
        assert_eq!(complete(&*store, &first, b"done".into()).await, Ownership::Held);
        let second = Claim { owner: Owner::random(), ..first.clone() };
        assert!(matches!(store.begin(&second).await.unwrap(), Begun::Done { .. }));

        let third = claim(100 + first.key.0[0], AfterLease::Hold);
        store.begin(&third).await.unwrap();
        dropped_after(polls, Box::pin(async { drop(store.abandon(&third.key, &third.owner).await) })).await;
        let _ = store.abandon(&third.key, &third.owner).await.unwrap();
        let fourth = Claim { owner: Owner::random(), ..third };
        assert_eq!(store.begin(&fourth).await.unwrap(), Begun::Started { attempt: 1 });
    }
}

#[tokio::test]
async fn dropped_in_memory() {
    drop_at_every_poll(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn dropped_in_sqlite() {
    let folder = Directory::new();
    drop_at_every_poll(Arc::new(SqliteStore::open(folder.0.join("store.db")))).await;
}

#[tokio::test]
async fn dropped_in_postgres() {
    drop_at_every_poll(Arc::new(PostgresStore::open(&Postgres::shared().database()).unwrap())).await;
}
