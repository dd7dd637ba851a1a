//! Permits of responses whose body is never polled, over a real HTTP/2 connection with a window of 0 bytes.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tollgate::{Admit, Client, GateLayer, MaybeFuture, Outcome, Permit, PolicyName, Reason, Refusal, RequestHead};
use tower::{Layer, service_fn};

/// Limits requests in flight, until the end of their bodies.
struct InFlight {
    slots: Arc<Semaphore>,
    log: mpsc::UnboundedSender<String>,
}

struct Slot {
    slot: OwnedSemaphorePermit,
    log: mpsc::UnboundedSender<String>,
}

impl Admit for InFlight {
    type Permit = Slot;

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Slot, Refusal>> {
        MaybeFuture::Ready(match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(slot) => Ok(Slot { slot, log: self.log.clone() }),
            Err(_) => Err(Refusal::new(Reason::Capacity, PolicyName::try_new("in flight").unwrap())),
        })
    }
}

impl Permit for Slot {
    type Lasts = tollgate::ToEnd;
    fn settle(self, outcome: Outcome<'_>) {
        drop(self.slot);
        let _ = self.log.send(format!("{outcome:?}"));
    }
}

async fn serve(slots: usize) -> (SocketAddr, Arc<InFlight>, mpsc::UnboundedReceiver<String>) {
    let (log, heard) = mpsc::unbounded_channel();
    let policy = Arc::new(InFlight { slots: Arc::new(Semaphore::new(slots)), log });
    let layer = GateLayer::from_arc(Arc::clone(&policy));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let answer = |_: Request<Incoming>| async {
                let frames = ["he", "ll", "o"].map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
                Ok::<_, Infallible>(Response::new(StreamBody::new(futures_util::stream::iter(frames))))
            };
            let service = TowerToHyperService::new(layer.layer(service_fn(answer)));
            let server = auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move { drop(server.serve_connection(TokioIo::new(socket), service).await) });
        }
    });
    (address, policy, heard)
}

/// A connection whose streams cannot send data until the client opens the window.
async fn closed_window(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (send, connection) = h2::client::Builder::new().initial_window_size(0).handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    send
}

async fn ask(client: &mut h2::client::SendRequest<Bytes>) -> Response<h2::RecvStream> {
    let request = Request::get("http://localhost/").body(()).unwrap();
    let (response, _) = client.clone().ready().await.unwrap().send_request(request, true).unwrap();
    response.await.unwrap()
}

async fn next(heard: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(Duration::from_secs(300), heard.recv()).await.expect("nothing happened").unwrap()
}

#[tokio::test]
async fn slot_is_held_to_the_end_of_the_body() {
    let (address, policy, mut heard) = serve(2).await;
    let mut client = closed_window(address).await;
    let mut bodies = Vec::new();
    for n in 0..500 {
        let response = ask(&mut client).await;
        assert_eq!(response.status(), if n < 2 { 200 } else { 503 }, "two bodies alive, not five hundred");
        bodies.extend((n < 2).then_some(response)); // a refusal's own body waits for the window too: reset it
    }
    assert_eq!(policy.slots.available_permits(), 0);
    drop(bodies);
    for _ in 0..2 {
        assert_eq!(next(&mut heard).await, "Cancelled { head_sent: true }");
    }
    assert_eq!(policy.slots.available_permits(), 2);
}

async fn resets_leak_no_slot(resets: usize) {
    let (address, policy, mut heard) = serve(4).await;
    let mut client = closed_window(address).await;
    for _ in 0..resets {
        let response = ask(&mut client).await;
        assert_eq!(response.status(), StatusCode::OK);
        drop(response);
        assert_eq!(next(&mut heard).await, "Cancelled { head_sent: true }");
    }
    assert_eq!(policy.slots.available_permits(), 4);
}

#[tokio::test]
async fn ten_thousand_resets_leak_no_slot() {
    resets_leak_no_slot(10_000).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn million_resets_leak_no_slot() {
    resets_leak_no_slot(1_000_000).await;
}
