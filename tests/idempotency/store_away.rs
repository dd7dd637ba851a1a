//! Stores that fail: before the handler, and after it.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep};
use tollgate::idempotency::OnStoreFailure;
use tower::Layer;

use super::{
    faulty::Fault,
    place::{Handler, answer, layer, payment, post, send, store},
};

const LEASE: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn store_that_cannot_begin_refuses_or_lets_pass() {
    let (handler, store) = (Handler::default(), store());
    let refusing = handler.echo(&layer(&store));
    store.fail("begin", Fault::Unavailable);
    let reply = send(&refusing, payment("k")).await;
    assert_eq!((reply.status, &reply.headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    assert!(reply.text().contains("The record store is unavailable; nothing was carried out."), "{}", reply.text());
    assert_eq!(handler.calls(), 0);

    let passing = handler.echo(&layer(&store).on_store_failure(OnStoreFailure::PassUnprotected));
    store.fail("begin", Fault::Unavailable);
    assert_eq!(send(&passing, payment("k")).await.text(), "call 1: amount=5");
    assert_eq!(send(&passing, payment("k")).await.text(), "call 2: amount=5", "it was not protected");
    assert!(send(&passing, payment("k")).await.is_replayed());
}

#[tokio::test(start_paused = true)]
async fn lost_replies_of_the_store_change_nothing() {
    let (handler, store) = (Handler::default(), store());
    let service = handler.echo(&layer(&store));
    for call in ["begin", "complete"] {
        store.fail(call, Fault::LostReply);
    }
    assert!(!send(&service, payment("k")).await.is_replayed());
    assert!(send(&service, payment("k")).await.is_replayed());
    assert_eq!(handler.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn answer_that_is_stored_later_is_given_at_once() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store);
    let service = handler.echo(&layer);
    (0..6).for_each(|_| store.fail("complete", Fault::Unavailable));
    assert_eq!(send(&service, payment("k")).await.text(), "call 1: amount=5");
    assert_eq!(layer.handle().counts().not_stored, 1);
    // Until then the operation counts as running, also beyond its lease.
    assert_eq!(send(&service, payment("k")).await.status, StatusCode::CONFLICT);
    assert!(layer.handle().drain(Duration::from_secs(300)).await);
    let again = send(&service, payment("k")).await;
    assert_eq!((again.text(), again.is_replayed(), handler.calls()), ("call 1: amount=5", true, 1));
}

#[tokio::test(start_paused = true)]
async fn store_that_stays_away_leaves_an_unknown_outcome() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store);
    let service = handler.echo(&layer);
    (0..100).for_each(|_| store.fail("complete", Fault::Unavailable));
    assert_eq!(send(&service, payment("k")).await.text(), "call 1: amount=5");
    assert!(layer.handle().drain(Duration::from_secs(3_600)).await);
    sleep(Duration::from_secs(30)).await;
    let again = send(&service, payment("k")).await;
    assert!(again.text().contains("operation_outcome_unknown"), "{}", again.text());
    assert_eq!((handler.calls(), layer.handle().unknown(None, 9).await.unwrap().records.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn full_store_refuses() {
    use std::sync::Arc;

    use tollgate::{idempotency::IdempotencyLayer, key_value::MemoryStore};

    let handler = Handler::default();
    let store = Arc::new(MemoryStore::new().max_records(1));
    let secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
    let service = handler.echo(&IdempotencyLayer::new(super::place::who(), store, &secret));
    assert_eq!(send(&service, payment("a")).await.status, StatusCode::CREATED);
    let full = send(&service, payment("b")).await;
    assert_eq!((full.status, &full.headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"60".parse().unwrap()));
    assert!(full.text().contains("The record store is full"), "{}", full.text());
    assert!(send(&service, payment("a")).await.is_replayed(), "a record that lives is never evicted");
}

#[tokio::test(start_paused = true)]
async fn store_that_hangs_at_the_beginning_refuses_in_time() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store);
    let service = handler.echo(&layer);
    store.fail("begin", Fault::Hangs);
    let asked = Instant::now();
    assert_eq!(send(&service, payment("k")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((asked.elapsed(), handler.calls()), (LEASE, 0));
    assert_eq!(send(&service, payment("k")).await.text(), "call 1: amount=5");
}

#[tokio::test(start_paused = true)]
async fn store_that_hangs_at_the_end_holds_no_answer_and_no_place() {
    let (handler, store) = (Handler::default(), store());
    let layer = layer(&store).max_detached(2);
    let service = handler.echo(&layer);
    store.fail("complete", Fault::Hangs);
    let asked = Instant::now();
    assert_eq!(send(&service, payment("k")).await.text(), "call 1: amount=5");
    assert_eq!(asked.elapsed(), LEASE);
    // It is stored in the background, where handlers have their places.
    (0..50).for_each(|_| store.fail("complete", Fault::Hangs));
    assert_eq!(send(&service, payment("l")).await.text(), "call 2: amount=5");
    assert_eq!(layer.handle().counts().detached, 0);
    assert!(layer.handle().drain(Duration::from_secs(3_600)).await, "it is given up in the end");
    assert_eq!(layer.handle().counts().not_stored, 2);
}

#[tokio::test(start_paused = true)]
async fn end_is_stored_by_a_slow_store_under_its_lease() {
    let (handler, store) = (Handler::default(), store());
    let service = handler.echo(&layer(&store));
    store.fail("complete", Fault::Takes(LEASE - Duration::from_secs(1)));
    assert_eq!(send(&service, payment("k")).await.text(), "call 1: amount=5");
    assert!(send(&service, payment("k")).await.is_replayed());
    assert!(store.calls("renew") >= 2, "the lease is renewed meanwhile");
}

#[tokio::test(start_paused = true)]
async fn answers_of_one_client_leave_room_for_others() {
    use std::sync::Arc;

    use tollgate::{idempotency::IdempotencyLayer, key_value::MemoryStore};

    let handler = Handler::default();
    let store = Arc::new(MemoryStore::new().max_record_bytes(100_000));
    let secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
    let layer = IdempotencyLayer::new(super::place::who(), store, &secret);
    let service = layer.layer(handler.service(|_, _| async { Ok(answer(201, "x".repeat(10_000))) }));
    for number in 0..20 {
        assert_eq!(send(&service, payment(&format!("k-{number}"))).await.status, StatusCode::CREATED);
    }
    assert_eq!(layer.handle().counts().not_retained, 18, "a quarter of the bytes is alice's");
    let bob = || post("bob", "k", "/payments", "");
    assert!(!send(&service, bob()).await.is_replayed());
    assert!(send(&service, bob()).await.is_replayed());
    assert!(send(&service, payment("k-0")).await.is_replayed());
    assert_eq!(send(&service, payment("k-2")).await.status, StatusCode::CONFLICT);
    assert_eq!(handler.calls(), 21);
}
