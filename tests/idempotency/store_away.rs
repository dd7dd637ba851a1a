//! Stores that fail: before the handler, and after it.

use std::time::Duration;

use http::StatusCode;
use tokio::time::sleep;
use tollgate::idempotency::OnStoreFailure;

use super::{
    faulty::Fault,
    place::{Handler, layer, payment, send, store},
};

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
    assert_eq!(send(&service, payment("b")).await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(send(&service, payment("a")).await.is_replayed(), "a record that lives is never evicted");
}
