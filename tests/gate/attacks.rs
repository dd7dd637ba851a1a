//! Attacks on a whole stack, over real sockets if the transport matters.

use std::{collections::HashMap, convert::Infallible, fmt::Write as _, net::SocketAddr, time::Duration};

use crate::support::gate::Log;
use axum::{
    Router,
    routing::{get, post},
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};
use tollgate::{
    ApiKey, CircuitBreakerLayer, Client, Cost, Event, FakeClock, Identify, OnUnidentified, PeerIp, Principal, Rate,
    RequestHead, TokenBucketLayer, Trip, Unverified,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await.unwrap();
    });
    address
}

#[tokio::test]
async fn each_reset_stream_spends_a_token() {
    const RESETS: u64 = 10_000;
    let layer =
        TokenBucketLayer::new(Rate::per_hour(RESETS + 1)).clock(FakeClock::new()).identify_by(tollgate::peer_ip!(axum));
    let address = serve(Router::new().route("/", get(std::future::pending::<()>)).layer(layer.clone())).await;
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (client, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });

    let buckets = layer.handle();
    let peer = PeerIp::from_extension(|ip: &std::net::IpAddr| Some(*ip));
    let request = Request::builder().extension(address.ip()).body(()).unwrap();
    let me: Client = peer.identify(&RequestHead::of(&request), buckets.digester()).unwrap();
    for n in 1..=RESETS {
        let request = Request::get("http://localhost/").body(()).unwrap();
        let (response, mut stream) = client.clone().ready().await.unwrap().send_request(request, true).unwrap();
        while buckets.peek(&me).remaining > RESETS + 1 - n {
            tokio::task::yield_now().await; // until the handler has begun
        }
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    assert_eq!(buckets.peek(&me).remaining, 1);
}

#[tokio::test]
async fn refused_upload_gets_no_100_continue() {
    let layer = TokenBucketLayer::new(Rate::per_hour(1)).on_unidentified(OnUnidentified::Share).clock(FakeClock::new());
    let address = serve(Router::new().route("/", post(|_: Bytes| async { "taken" })).layer(layer)).await;
    let upload = async || {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\nexpect: 100-continue\r\n\r\n";
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line).await.unwrap();
        line
    };
    assert_eq!(upload().await, "HTTP/1.1 100 Continue\r\n", "who is admitted is asked for its body");
    assert_eq!(upload().await, "HTTP/1.1 429 Too Many Requests\r\n");
}

#[tokio::test]
async fn header_of_400_kb_identifies_no_client() {
    let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme"))]);
    for layer in [
        TokenBucketLayer::new(Rate::per_hour(3)).identify_by(ApiKey::header("x-api-key", keys).or(PeerIp::new())),
        TokenBucketLayer::new(Rate::per_hour(3)).identify_by(Unverified::header("x-api-key").or(PeerIp::new())),
    ] {
        let service = layer
            .layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }));
        let mut passed = 0;
        for n in 0..10 {
            let mut request = Request::get("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap();
            let key = format!("{n}{}", "k".repeat(400_000));
            request.headers_mut().insert("x-api-key", key.parse().unwrap());
            passed += usize::from(service.clone().oneshot(request).await.unwrap().status() == 200);
        }
        assert_eq!(passed, 3);
    }
}

#[tokio::test]
async fn secret_appears_in_no_output() {
    const CANARY: &str = "canary-7f3a9c";
    let log = Log::default();
    let listener = || {
        let log = log.clone();
        move |event: &Event<'_>| log.push(format!("{event:?}"))
    };
    let keys = HashMap::from([(CANARY.to_owned(), Principal::unnamed().in_tier("pro"))]);
    let known = ApiKey::header("x-api-key", keys);
    let trusting = Unverified::header("x-session");
    let mut shown = format!("{known:?} {trusting:?}");
    let limit = TokenBucketLayer::new(Rate::per_hour(2))
        .identify_by(known.or(trusting))
        .refund_on(|_| false)
        .observe(listener());
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1)).observe(listener());
    write!(shown, "{limit:?} {:?} {breaker:?} {:?}", limit.handle(), breaker.handle()).unwrap();
    let failing = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::builder().status(500).body(Full::<Bytes>::default()).unwrap())
    });
    let service = ServiceBuilder::new().layer(limit.clone()).layer(breaker).service(failing);
    for header in ["x-api-key", "x-session"] {
        for grpc in [false, true] {
            for _ in 0..4 {
                let mut request = Request::get("/").header(header, CANARY);
                if grpc {
                    let call = request.method("POST").version(http::Version::HTTP_2);
                    request = call.header("content-type", "application/grpc");
                }
                let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
                write!(shown, "{:?}", response.headers()).unwrap();
                write!(shown, "{:?}", response.extensions().get::<tollgate::Refusal>()).unwrap();
                let body = response.into_body();
                write!(shown, "{body:?}").unwrap();
                write!(shown, "{:?}", body.collect().await.unwrap().to_bytes()).unwrap();
            }
        }
    }
    let client = limit.handle().digester().secret("key", CANARY.as_bytes());
    write!(shown, "{client:?} {:?}", limit.handle().check(&client, Cost::MAX)).unwrap();
    shown.extend(log.lines());
    assert!(shown.contains("RateLimited") && shown.contains("CircuitOpen"), "the test has seen refusals of both kinds");
    assert!(!shown.contains(CANARY));
    assert!(!shown.contains("canary"));
}

#[tokio::test]
async fn refusal_flood_emits_one_event_each_and_logs_nothing() {
    let log = Log::default();
    let heard = log.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(1)).on_unidentified(OnUnidentified::Share);
    let layer = layer.clock(FakeClock::new()).observe(move |event: &Event<'_>| {
        heard.push(match event {
            Event::Admitted { .. } => "admitted",
            Event::Refused { .. } => "refused",
            Event::Unidentified { .. } => "unidentified",
            _ => "other",
        });
    });
    let service = layer
        .layer(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }));
    for _ in 0..1_000 {
        service.clone().oneshot(Request::new(())).await.unwrap();
    }
    let lines = log.lines();
    let count = |what: &str| lines.iter().filter(|line| *line == what).count();
    assert_eq!((count("admitted"), count("refused"), count("unidentified"), lines.len()), (1, 999, 1, 1_001));
}

#[tokio::test]
async fn refusals_of_one_client_open_no_circuit() {
    let limit = TokenBucketLayer::new(Rate::per_hour(1)).on_unidentified(OnUnidentified::Share).clock(FakeClock::new());
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1)).recovery_timeout(Duration::from_secs(5));
    let handle = breaker.handle();
    // The inner limit. Its refusals are not the upstream's failures.
    let service = ServiceBuilder::new()
        .layer(breaker)
        .layer(limit)
        .service(service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) }));
    for n in 0..100 {
        let request = Request::get("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap();
        let status = service.clone().oneshot(request).await.unwrap().status();
        assert_eq!(status, if n == 0 { 200 } else { 429 });
    }
    assert_eq!(handle.state(), tollgate::CircuitState::Closed);
}
