//! HTTP/2 streams that are reset after their handlers have begun.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, routing::post};
use bytes::Bytes;
use http::Request;
use tokio::{net::TcpStream, sync::Semaphore};
use tollgate::{
    idempotency::IdempotencyLayer,
    key_value::{AfterLease, MemoryStore},
};

use super::place::who;

const RESETS: usize = 5_000;
const DETACHED: usize = 64;

/// A handler that is alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Self(Arc::clone(alive))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[tokio::test]
async fn reset_streams_leave_a_bounded_number_of_handlers() {
    let (alive, begun, go_on) = (Arc::default(), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let store = Arc::new(MemoryStore::new());
    let layer = IdempotencyLayer::new(who(), store.clone(), &"5d4fb7f10c3a4c2d9a86e0c1b2f37e58".parse().unwrap())
        .max_detached(2 * DETACHED) // of which one client has half
        .after_lease(AfterLease::Rerun);
    let handler = {
        let (alive, begun, go_on) = (Arc::clone(&alive), Arc::clone(&begun), Arc::clone(&go_on));
        async move |_: Bytes| {
            let _alive = Alive::new(&alive);
            begun.fetch_add(1, SeqCst);
            drop(go_on.acquire().await);
            "paid"
        }
    };
    let handle = layer.handle();
    let app = Router::new().route("/payments", post(handler)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });

    for number in 0..RESETS {
        let request = Request::post("http://localhost/payments").header("x-api-key", "alice");
        let request = request.header("idempotency-key", format!("k-{number}")).body(()).unwrap();
        let (response, mut stream) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(b"5 EUR"), true).unwrap();
        while begun.load(SeqCst) <= number {
            tokio::task::yield_now().await; // until the handler has begun
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    // Those beyond the bound are dropped with their streams.
    while alive.load(SeqCst) > DETACHED {
        tokio::task::yield_now().await;
    }
    let counts = handle.counts();
    assert_eq!((counts.executed, counts.detached, alive.load(SeqCst)), (RESETS as u64, DETACHED, DETACHED));
    go_on.close();
    assert!(handle.drain(Duration::from_secs(300)).await);
    assert_eq!((handle.counts().buffered, alive.load(SeqCst)), (0, 0));
    // Their answers are stored, and nothing of the others stays.
    let shown = format!("records: {DETACHED},");
    while !format!("{store:?}").contains(&shown) {
        tokio::task::yield_now().await; // keys are freed in the background
    }
}
