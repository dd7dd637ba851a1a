//! Stores and pools without transactions that handlers could share.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tollgate::{
    idempotency::{IdempotencyLayer, IdempotentBody, IdempotentExecution},
    key_value::{KeyValueErrorKind, MemoryStore, RecordStore, SqliteStore},
};
use tower::Layer;

use super::place::{Handler, answer, payment, send, who};
use crate::support::directory::Directory;

#[tokio::test]
async fn store_without_transactions_says_so() {
    let handler = Handler::default();
    let inner = handler.service(|_, request: Request<IdempotentBody<Full<Bytes>>>| async move {
        let execution = request.extensions().get::<IdempotentExecution>().unwrap();
        let error = execution.transaction::<sqlx::Sqlite>().await.unwrap_err();
        assert_eq!(error.kind(), KeyValueErrorKind::Refused);
        Ok(answer(201, error.to_string()))
    });
    let secret = "5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap();
    let layer = IdempotencyLayer::new(who(), Arc::new(MemoryStore::new()), &secret);
    let reply = send(&layer.layer(inner), payment("k")).await;
    assert_eq!(reply.text(), "the record store has no transactions; use SqliteStore or PostgresStore");
}

#[tokio::test]
async fn pool_with_too_few_connections_is_an_error() {
    let folder = Directory::new();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.0.join("shop.db")).create_if_missing(true);
    let options = options.synchronous(sqlx::sqlite::SqliteSynchronous::Full);
    let pool = sqlx::sqlite::SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let store = SqliteStore::new(pool);
    let error = store.transactions().unwrap().begin_transaction().await.unwrap_err();
    assert_eq!(error.kind(), KeyValueErrorKind::Refused);
    assert!(error.to_string().contains("must have 3 connections, got 2; raise max_connections"), "{error}");
}
