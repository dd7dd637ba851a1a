//! End of a permit over real sockets: {full, empty, stream, stream with length, HEAD, 204, 304, trailers, upgrade,
//! hang-up, reset} x {HTTP/1, HTTP/2}. hyper drops most complete bodies without polling them to their end, which no
//! test of a bare service shows.

use std::{convert::Infallible, net::SocketAddr, pin::Pin, time::Duration};

use crate::support::gate::{Ends, Recorder};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, service_fn};

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type Frames = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send>>;

fn stream_of(frames: impl Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static) -> Body {
    StreamBody::new(Box::pin(frames) as Frames).boxed_unsync()
}

fn data(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

/// Serves each kind of response in the table.
async fn handler(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let full = |text: &'static str| http_body_util::Full::from(text).map_err(|never| match never {}).boxed_unsync();
    let empty = || Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
    let frames = || stream::iter([data("abc"), data("def"), data("ghi")]);
    let response = Response::builder();
    let path = request.uri().path().to_owned();
    if request.method() == Method::CONNECT {
        hold_upgrade(&mut request);
        return Ok(response.body(empty()).unwrap());
    }
    Ok(match path.as_str() {
        "/full" | "/head" => response.body(full("hello")),
        "/empty" => response.body(empty()),
        "/stream" => response.body(stream_of(frames())),
        "/length" => response.header(header::CONTENT_LENGTH, 9).body(stream_of(frames())),
        "/204" => response.status(StatusCode::NO_CONTENT).body(empty()),
        "/304" => response.status(StatusCode::NOT_MODIFIED).header(header::CONTENT_LENGTH, 9).body(empty()),
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "7".parse().unwrap());
            response
                .header(header::TRAILER, "x-sum")
                .body(stream_of(frames().chain(stream::iter([Ok(Frame::trailers(trailers))]))))
        }
        "/upgrade" => {
            hold_upgrade(&mut request);
            response
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "upgrade")
                .header(header::UPGRADE, "chat")
                .body(empty())
        }
        "/endless" => response.body(stream_of(stream::once(async { data("first") }).chain(stream::pending()))),
        "/flood" => response.body(stream_of(stream::repeat_with(|| Ok(Frame::data(Bytes::from_static(&[0; 16_384])))))),
        "/broken" => response.body(stream_of(frames().chain(stream::iter([Err(std::io::Error::other("disk gone"))])))),
        "/never" => std::future::pending().await,
        "/panic" => panic!("handler"),
        other => panic!("no such row: {other}"),
    }
    .unwrap())
}

/// Takes the upgraded connection, as a websocket does.
fn hold_upgrade(request: &mut Request<Incoming>) {
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move { drop(upgrade.await) });
}

async fn serve() -> (SocketAddr, std::sync::Arc<Recorder>, Ends) {
    let (layer, recorder, ends) = Recorder::layer();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let service = TowerToHyperService::new(layer.layer(service_fn(handler)));
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection_with_upgrades(TokioIo::new(socket), service).await;
            });
        }
    });
    (address, recorder, ends)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Version {
    One,
    Two,
}

enum Client {
    One(hyper::client::conn::http1::SendRequest<Empty<Bytes>>),
    Two(hyper::client::conn::http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    /// Returns a connection and the task that drives it; aborting the task closes the connection.
    async fn connect(version: Version, address: SocketAddr) -> (Self, tokio::task::JoinHandle<()>) {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let io = TokioIo::new(socket);
        match version {
            Version::One => {
                let (send, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
                (Self::One(send), tokio::spawn(async move { drop(connection.with_upgrades().await) }))
            }
            Version::Two => {
                // hyper drives an HTTP/2 connection on a task of its own, which must end with its owner.
                let executor = OwnTasks::default();
                let (send, connection) = hyper::client::conn::http2::handshake(executor.clone(), io).await.unwrap();
                let tasks = tokio::spawn(async move {
                    let _owner = Owner(executor);
                    let _ = connection.await;
                    std::future::pending().await
                });
                (Self::Two(send), tasks)
            }
        }
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::One(send) => send.send_request(request).await,
            Self::Two(send) => send.send_request(request).await,
        }
    }
}

/// Runs tasks until the owner is dropped.
#[derive(Clone, Default)]
struct OwnTasks(std::sync::Arc<std::sync::Mutex<tokio::task::JoinSet<()>>>);

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for OwnTasks {
    fn execute(&self, future: F) {
        self.0.lock().unwrap().spawn(async move { drop(future.await) });
    }
}

struct Owner(OwnTasks);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().abort_all();
    }
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    let uri = if method == Method::CONNECT { "localhost:80".into() } else { format!("http://localhost{path}") };
    Request::builder().method(method).uri(uri).header("te", "trailers").body(Empty::new()).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test]
async fn response_read_to_its_end_is_complete() {
    let rows = [
        (Method::GET, "/full", "complete 5"),
        (Method::GET, "/empty", "complete 0"),
        (Method::GET, "/stream", "complete 9"),
        (Method::GET, "/length", "complete 9"),
        (Method::HEAD, "/head", "complete 0"),
        (Method::GET, "/204", "complete 0"),
        (Method::GET, "/304", "complete 0"),
        (Method::GET, "/trailers", "complete 9 with trailers"),
        (Method::GET, "/broken", "body failed"),
    ];
    for version in [Version::One, Version::Two] {
        let (address, recorder, mut ends) = serve().await;
        for (method, path, expected) in &rows {
            let (mut client, _task) = Client::connect(version, address).await;
            if let Ok(response) = client.send(request(method.clone(), path)).await {
                let _ = tokio::time::timeout(PATIENCE, response.into_body().collect()).await.unwrap();
            } // a body that breaks at once may take the head with it
            assert_eq!(ends.next().await, *expected, "{method} {path} over {version:?}");
        }
        assert_eq!(recorder.held(), 0);
    }
}

#[tokio::test]
async fn upgraded_connection_holds_no_permit() {
    let (address, recorder, mut ends) = serve().await;
    let (mut client, _task) = Client::connect(Version::One, address).await;
    let mut upgrade = request(Method::GET, "/upgrade");
    upgrade.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
    upgrade.headers_mut().insert(header::UPGRADE, "chat".parse().unwrap());
    let response = client.send(upgrade).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(ends.next().await, "complete 0");
    for version in [Version::One, Version::Two] {
        let (mut client, _task) = Client::connect(version, address).await;
        let response = client.send(request(Method::CONNECT, "")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(ends.next().await, "complete 0", "CONNECT over {version:?}");
    }
    assert_eq!(recorder.held(), 0);
}

#[tokio::test]
async fn client_disconnect_cancels() {
    for version in [Version::One, Version::Two] {
        for (path, expected) in [("/never", "cancelled before the head"), ("/flood", "cancelled after the head")] {
            let (address, recorder, mut ends) = serve().await;
            let (mut client, task) = Client::connect(version, address).await;
            let sending = tokio::spawn(async move { client.send(request(Method::GET, path)).await });
            while recorder.held() == 0 {
                tokio::task::yield_now().await;
            }
            let response = if path == "/flood" { Some(sending.await.unwrap().unwrap()) } else { None };
            task.abort(); // closes the socket
            let _ = task.await;
            assert_eq!(ends.next().await, expected, "{path} over {version:?}");
            assert_eq!(recorder.held(), 0);
            drop(response);
        }
    }
}

#[tokio::test]
async fn reset_stream_cancels_and_keeps_the_connection() {
    let (address, recorder, mut ends) = serve().await;
    let (mut client, _task) = Client::connect(Version::Two, address).await;
    for _ in 0..100 {
        let response = client.send(request(Method::GET, "/endless")).await.unwrap();
        drop(response); // sends RST_STREAM
        assert_eq!(ends.next().await, "cancelled after the head");
    }
    let response = client.send(request(Method::GET, "/full")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    assert_eq!(ends.next().await, "complete 5");
    assert_eq!(recorder.held(), 0);
}

#[tokio::test]
async fn handler_panic_releases_its_permit() {
    for version in [Version::One, Version::Two] {
        let (address, recorder, mut ends) = serve().await;
        let (mut client, _task) = Client::connect(version, address).await;
        assert!(client.send(request(Method::GET, "/panic")).await.is_err());
        assert_eq!(ends.next().await, "panicked");
        assert_eq!(recorder.held(), 0);
    }
}
