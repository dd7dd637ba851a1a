//! The layer in axum, over sockets: duplicates at once, and streams that are reset.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use futures_util::future::join_all;
use tollgate::idempotency::{IdempotencyHandle, IdempotencyLayer, OnRunning};

use super::place::who;

/// A payment's executions, counted by their keys' order.
type Executions = Arc<AtomicUsize>;

async fn pay(State(executions): State<Executions>, body: String) -> (StatusCode, [(&'static str, String); 1], String) {
    let number = executions.fetch_add(1, SeqCst) + 1;
    tokio::task::yield_now().await;
    (StatusCode::CREATED, [("location", format!("/payments/{number}"))], format!("payment {number} of {body}"))
}

async fn serve(layer: IdempotencyLayer) -> (String, Executions, IdempotencyHandle) {
    let executions = Executions::default();
    let handle = layer.handle();
    let app = Router::new().route("/payments", post(pay)).layer(layer).with_state(Arc::clone(&executions));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/payments", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, executions, handle)
}

/// Sends one payment; returns status, location and body, and whether it was replayed.
async fn paid(client: &reqwest::Client, url: &str, key: &str) -> (u16, String, String, bool) {
    let request = client.post(url).header("x-api-key", "alice").header("idempotency-key", key).body("5 EUR");
    let response = request.send().await.unwrap();
    let text = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (status, location, replayed) = (response.status().as_u16(), text("location"), text("idempotent-replayed"));
    (status, location, response.text().await.unwrap(), replayed == "true")
}

async fn duplicates_at_once(rounds: usize) {
    let layer = IdempotencyLayer::in_memory(who()).on_running(OnRunning::Wait(Duration::from_secs(300)));
    let (url, executions, handle) = serve(layer).await;
    let client = reqwest::Client::new();
    for round in 1..=rounds {
        let key = format!("k-{round}");
        let replies = join_all((0..64).map(|_| paid(&client, &url, &key))).await;
        for (status, location, body, _) in &replies {
            let expected = (&201, &*format!("/payments/{round}"), &*format!("payment {round} of 5 EUR"));
            assert_eq!((status, &**location, &**body), expected);
        }
        assert_eq!(replies.iter().filter(|reply| !reply.3).count(), 1, "one was carried out");
        assert_eq!(executions.load(SeqCst), round);
    }
    assert_eq!(handle.counts().replayed, rounds as u64 * 63);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn duplicates_at_once_get_one_answer() {
    duplicates_at_once(200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "long"]
async fn duplicates_at_once_in_a_thousand_rounds() {
    duplicates_at_once(1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn duplicates_that_are_refused_get_the_answer_later() {
    let (url, executions, _) = serve(IdempotencyLayer::in_memory(who())).await;
    let client = reqwest::Client::new();
    for round in 1..=20 {
        let key = format!("k-{round}");
        let retried = async || {
            loop {
                let reply = paid(&client, &url, &key).await;
                if reply.0 != 409 {
                    return reply;
                }
            }
        };
        let replies = join_all((0..64).map(|_| retried())).await;
        assert!(replies.iter().all(|reply| reply.2 == format!("payment {round} of 5 EUR")), "{replies:?}");
        assert_eq!((replies.iter().filter(|reply| !reply.3).count(), executions.load(SeqCst)), (1, round));
    }
}
