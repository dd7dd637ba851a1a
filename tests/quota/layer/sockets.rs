//! Quotas over real sockets, where hyper decides when a body is polled or dropped.

use super::{stacks::listen, *};

use axum::{Router, body::Body as AxumBody, routing::post};
use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::wrappers::TcpListenerStream;
use tollgate::RequestBytesLayer;

const MEGABYTE: usize = 1 << 20;

/// Starts an axum server whose routes act as their names say.
async fn serve(scene: &Scene) -> SocketAddr {
    let served = Arc::clone(&scene.served);
    let flood = || async {
        let chunk = Bytes::from_static(&[0; 16_384]);
        AxumBody::from_stream(futures_util::stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone())))
    };
    let ten = || async {
        let chunk = Bytes::from_static(&[0; MEGABYTE]);
        AxumBody::from_stream(futures_util::stream::iter((0..10).map(move |_| Ok::<_, Infallible>(chunk.clone()))))
    };
    let app = Router::new()
        .route("/", post(|| async { "hello" }))
        .route("/never", post(std::future::pending::<()>))
        .route("/flood", post(flood))
        .route("/ten", post(ten))
        .route(
            "/once",
            post(move || async move {
                yield_times(100).await;
                served.fetch_add(1, Ordering::SeqCst);
            }),
        )
        .route("/upload", post(|body: Bytes| async move { body.len().to_string() }))
        .layer(
            ServiceBuilder::new()
                .layer(RequestBytesLayer::new())
                .layer(scene.layer.clone())
                .map_request(|request: Request<tollgate::quota::CountedBody<AxumBody>>| request.map(AxumBody::new)),
        );
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

pub(super) async fn h2(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(window).initial_connection_window_size(window.max(65_535));
    let (client, connection) = builder.handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    client
}

fn post_by_alice(path: &str) -> Request<()> {
    Request::post(format!("http://localhost{path}")).header("x-user", "alice").body(()).unwrap()
}

async fn send(client: &SendRequest<Bytes>, request: Request<()>) -> h2::client::ResponseFuture {
    client.clone().ready().await.unwrap().send_request(request, true).unwrap().0
}

/// Waits until alice has used an amount of a limit.
pub(super) async fn until(scene: &Scene, limit: &str, done: impl Fn(u64) -> bool) -> u64 {
    let patience = async {
        loop {
            let used = scene.used(limit).await;
            if done(used) {
                return used;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(300), patience)
        .await
        .unwrap_or_else(|_| panic!("{limit} never came there"))
}

fn bytes_and_places() -> Plan {
    hourly(1 << 30).limit(Quota::bytes(1 << 40).per(Period::hour())).limit(Quota::concurrent(4))
}

#[tokio::test]
async fn streamed_10_mb_are_charged_as_10_mb() {
    let scene = Scene::new(bytes_and_places(), |layer| layer);
    let address = serve(&scene).await;
    let client = h2(address, 1 << 30).await;
    let mut body = send(&client, post_by_alice("/ten")).await.await.unwrap().into_body();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    until(&scene, "concurrent_requests", |held| held == 0).await;
    assert_eq!(scene.used("bytes_per_hour").await, 10 * MEGABYTE as u64);

    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(b"POST /ten HTTP/1.1\r\nhost: a\r\nx-user: alice\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut all = Vec::new();
    socket.read_to_end(&mut all).await.unwrap();
    until(&scene, "concurrent_requests", |held| held == 0).await;
    assert_eq!(scene.used("bytes_per_hour").await, 20 * MEGABYTE as u64);
}

#[tokio::test]
async fn disconnect_pays_for_the_request_and_the_sent_bytes() {
    let scene = Scene::new(bytes_and_places(), |layer| layer);
    let address = serve(&scene).await;
    for n in 1..=5 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"POST /flood HTTP/1.1\r\nhost: a\r\nx-user: alice\r\n\r\n").await.unwrap();
        let before = scene.used("bytes_per_hour").await;
        let mut read = vec![0; MEGABYTE];
        socket.read_exact(&mut read).await.unwrap();
        drop(socket);
        until(&scene, "concurrent_requests", |held| held == 0).await;
        let passed = scene.used("bytes_per_hour").await - before;
        assert!(passed > MEGABYTE as u64 / 2, "{passed}");
        assert!(passed < 64 * MEGABYTE as u64, "{passed}: not more than the sockets hold");
        assert_eq!(scene.used("requests_per_hour").await, n);
    }
}

#[tokio::test]
async fn disconnects_before_the_head_hold_no_slot() {
    let scene = Scene::new(bytes_and_places(), |layer| layer);
    let address = serve(&scene).await;
    for n in 1..=6 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"POST /never HTTP/1.1\r\nhost: a\r\nx-user: alice\r\n\r\n").await.unwrap();
        until(&scene, "concurrent_requests", |held| held == 1).await;
        drop(socket);
        until(&scene, "concurrent_requests", |held| held == 0).await;
        assert_eq!(scene.used("requests_per_hour").await, n, "and each has paid");
    }
}

#[tokio::test]
async fn closed_window_loses_its_slot_to_the_next_request() {
    let plan = Plan::new("one").limit(Quota::concurrent(1));
    let scene = Scene::new(plan, |layer| layer.max_hold(Duration::from_secs(3_600)).max_stall(Duration::from_secs(5)));
    let address = serve(&scene).await;
    let client = h2(address, 0).await;
    let ask = async || send(&client, post_by_alice("/")).await.await.unwrap();
    let stuck = ask().await;
    assert_eq!(stuck.status(), 200);
    assert_eq!(ask().await.status(), 429);
    scene.clock.advance(Duration::from_secs(6));
    let next = ask().await;
    assert_eq!(next.status(), 200);
    assert_eq!(scene.log.lines(), ["reclaimed"]);
    drop(stuck);
    yield_times(100).await;
    assert_eq!(ask().await.status(), 429, "a late end frees no other slot");
    drop(next);
    until(&scene, "concurrent_requests", |held| held == 0).await;
}

#[tokio::test]
async fn thousand_requests_of_one_job_run_the_handler_once() {
    let plan = hourly(5_000);
    let scene = Scene::new(plan, |layer| layer.job_ids(JobIdSource::header("idempotency-key")));
    let address = serve(&scene).await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        let client = h2(address, 65_535).await;
        for _ in 0..100 {
            let mut request = post_by_alice("/once");
            request.headers_mut().insert("idempotency-key", "\"order-7\"".parse().unwrap());
            answers.push(send(&client, request).await);
        }
    }
    let mut statuses: Vec<_> = Vec::new();
    for answer in answers {
        statuses.push(answer.await.unwrap().status().as_u16());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 999);
    assert_eq!((scene.served(), scene.used("requests_per_hour").await), (1, 1));
}

#[tokio::test]
async fn upload_of_unknown_length_is_charged_as_it_is_read() {
    let plan = Plan::new("uploads").limit(Quota::bytes(100).per(Period::hour()).counting(Direction::Request));
    let scene = Scene::new(plan, |layer| layer);
    let address = serve(&scene).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = "POST /upload HTTP/1.1\r\nhost: a\r\nx-user: alice\r\nconnection: close\r\n";
        let body =
            "transfer-encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n14\r\n01234567890123456789\r\n0\r\n\r\n";
        socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut all = String::new();
        socket.read_to_string(&mut all).await.unwrap();
        statuses.push(all[9..12].to_owned());
    }
    assert_eq!(statuses, ["200", "200", "200", "429"]);
    assert_eq!(scene.used("request_bytes_per_hour").await, 120, "the third came with twenty left");
}

/// Resets a number of streams.
const RESETS: u64 = 10_000;

#[tokio::test]
async fn each_reset_stream_spends_a_token() {
    let scene = Scene::new(hourly(RESETS + 1).limit(Quota::concurrent(4)), |layer| layer);
    let client = h2(serve(&scene).await, 65_535).await;
    for n in 1..=RESETS {
        let (response, mut stream) =
            client.clone().ready().await.unwrap().send_request(post_by_alice("/never"), true).unwrap();
        until(&scene, "requests_per_hour", |used| used == n).await; // until the handler has begun
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        until(&scene, "concurrent_requests", |held| held == 0).await;
    }
    assert_eq!(scene.used("requests_per_hour").await, RESETS);
    assert_eq!(scene.log.lines().len(), 1, "warned of once, nothing reclaimed: {:?}", scene.log.lines());
}

#[tokio::test]
async fn each_reset_grpc_stream_is_charged() {
    let scene = Scene::new(hourly(RESETS + 1).limit(Quota::concurrent(4)), |layer| layer);
    let (listener, address) = listen().await;
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().layer(scene.layer.clone()).add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let client = h2(address, 65_535).await;
    for n in 1..=RESETS {
        let mut request = post_by_alice("/grpc.health.v1.Health/Watch"); // a stream that never ends
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        let (response, mut stream) = client.clone().ready().await.unwrap().send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().get("grpc-status"), None, "it has begun");
        assert_eq!(scene.used("requests_per_hour").await, n);
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        until(&scene, "concurrent_requests", |held| held == 0).await;
    }
    assert_eq!(scene.used("requests_per_hour").await, RESETS);
}
