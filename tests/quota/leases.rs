//! A slot is a lease: a reader with a closed window is never polled again, and its slot is taken back by the next one
//! that finds the table full. Over a real HTTP/2 connection whose window is 0.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

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
use tokio::sync::mpsc;
use tollgate::{
    Admit, FakeClock, GateLayer, MaybeFuture, Outcome, Permit, PolicyName, Reason, Refusal, RequestHead,
    rule::{Lease, Leases},
};
use tower::{Layer, service_fn};

/// At most so many requests at a time, until the end of their bodies.
struct InFlight {
    slots: Mutex<Leases>,
    clock: FakeClock,
    log: mpsc::UnboundedSender<String>,
}

struct Slot {
    policy: Arc<InFlight>,
    lease: Lease,
}

impl Admit for InFlight {
    type Permit = Slot;

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Slot, Refusal>> {
        let acquired = self.slots.lock().unwrap().acquire(self.clock.now());
        MaybeFuture::Ready(match acquired {
            Some(acquired) => {
                if acquired.reclaimed {
                    self.log.send("reclaimed".into()).unwrap();
                }
                Ok(Slot { policy: Arc::clone(self), lease: acquired.lease })
            }
            None => Err(Refusal::new(Reason::Capacity, PolicyName::try_new("in flight").unwrap())),
        })
    }
}

impl Permit for Slot {
    fn on_data(&mut self, _: usize) {
        self.policy.slots.lock().unwrap().touch(self.lease, self.policy.clock.now());
    }

    fn settle(self, outcome: Outcome<'_>) {
        let held = self.policy.slots.lock().unwrap().release(self.lease);
        let what = if held { "released" } else { "came too late" };
        let _ = self.policy.log.send(format!("{what}: {outcome:?}"));
    }
}

async fn serve(slots: usize) -> (SocketAddr, Arc<InFlight>, mpsc::UnboundedReceiver<String>, FakeClock) {
    let clock = FakeClock::new();
    let (log, heard) = mpsc::unbounded_channel();
    let slots = Leases::new(slots, Duration::from_secs(3_600), Duration::from_secs(5));
    let policy = Arc::new(InFlight { slots: Mutex::new(slots), clock: clock.clone(), log });
    let layer = GateLayer::shared(Arc::clone(&policy));
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
    (address, policy, heard, clock)
}

/// A connection whose streams may send nothing until the client says so.
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
async fn a_reader_with_a_closed_window_loses_its_slot_to_the_next() {
    let (address, policy, mut heard, clock) = serve(1).await;
    let mut client = closed_window(address).await;

    let stuck = ask(&mut client).await;
    assert_eq!(stuck.status(), StatusCode::OK);
    assert_eq!(ask(&mut client).await.status(), StatusCode::SERVICE_UNAVAILABLE, "the slot is held");
    clock.advance(Duration::from_secs(5));
    assert_eq!(ask(&mut client).await.status(), StatusCode::SERVICE_UNAVAILABLE, "not overdue yet");
    clock.advance(Duration::from_secs(1));
    let next_one = ask(&mut client).await;
    assert_eq!(next_one.status(), StatusCode::OK);
    assert_eq!(next(&mut heard).await, "reclaimed");

    drop(stuck); // resets the stream: its late end frees nobody's slot
    assert_eq!(next(&mut heard).await, "came too late: Cancelled { head_sent: true }");
    assert_eq!(policy.slots.lock().unwrap().held(), 1);
    assert_eq!(ask(&mut client).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop(next_one);
    assert_eq!(next(&mut heard).await, "released: Cancelled { head_sent: true }");
    assert_eq!(policy.slots.lock().unwrap().held(), 0);
}

#[tokio::test]
async fn a_slot_is_held_to_the_end_of_the_body() {
    let (address, policy, mut heard, _) = serve(2).await;
    let mut client = closed_window(address).await;
    let mut bodies = Vec::new();
    for n in 0..500 {
        let response = ask(&mut client).await;
        assert_eq!(response.status(), if n < 2 { 200 } else { 503 }, "two bodies alive, not five hundred");
        bodies.extend((n < 2).then_some(response)); // a refusal's own body waits for the window too: reset it
    }
    assert_eq!(policy.slots.lock().unwrap().held(), 2);
    drop(bodies);
    for _ in 0..2 {
        assert_eq!(next(&mut heard).await, "released: Cancelled { head_sent: true }");
    }
    assert_eq!(policy.slots.lock().unwrap().held(), 0);
}

async fn resets_leak_no_slot(resets: usize) {
    let (address, policy, mut heard, _) = serve(4).await;
    let mut client = closed_window(address).await;
    for _ in 0..resets {
        let response = ask(&mut client).await;
        assert_eq!(response.status(), StatusCode::OK);
        drop(response);
        assert_eq!(next(&mut heard).await, "released: Cancelled { head_sent: true }");
    }
    assert_eq!(policy.slots.lock().unwrap().held(), 0);
}

#[tokio::test]
async fn ten_thousand_resets_leak_no_slot() {
    resets_leak_no_slot(10_000).await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_million_resets_leak_no_slot() {
    resets_leak_no_slot(1_000_000).await;
}
