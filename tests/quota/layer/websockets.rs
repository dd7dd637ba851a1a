//! WebSockets of axum over real sockets: each open one has a slot, over HTTP/1.1 and over HTTP/2.

use super::{
    sockets::{h2, until},
    stacks::listen,
    *,
};

use axum::{
    Extension, Router,
    extract::ws::{WebSocket, WebSocketUpgrade},
    response::Response as AxumResponse,
    routing::any,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Echoes messages. The task that serves the socket holds its slot.
async fn chat(Extension(charge): Extension<Charge>, upgrade: WebSocketUpgrade) -> AxumResponse {
    let slot = charge.keep_slot();
    upgrade.on_upgrade(async move |socket: WebSocket| {
        let _slot = slot;
        echo(socket, &charge).await;
    })
}

/// Echoes messages without the slot.
async fn loose(Extension(charge): Extension<Charge>, upgrade: WebSocketUpgrade) -> AxumResponse {
    upgrade.on_upgrade(async move |socket: WebSocket| echo(socket, &charge).await)
}

async fn echo(mut socket: WebSocket, charge: &Charge) {
    while let Some(Ok(message)) = socket.recv().await {
        charge.record("messages", 1);
        if socket.send(message).await.is_err() {
            break;
        }
    }
}

/// Starts a server with two slots for each client; returns its reports of upgrades without a slot too.
async fn start() -> (Scene, Log, SocketAddr) {
    let log = Log::default();
    let heard = log.clone();
    let plan = hourly(99).limit(Quota::concurrent(2)).limit(Quota::units("messages", 100).per(Period::hour()));
    let scene = Scene::new(plan, |layer| {
        layer.share_with_handler().observe(move |event: &Event<'_>| {
            if let Event::UpgradeReleasedSlot { policy } = event {
                heard.push(policy.to_string());
            }
        })
    });
    let app = Router::new().route("/chat", any(chat)).route("/loose", any(loose)).layer(scene.layer.clone());
    let (listener, address) = listen().await;
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (scene, log, address)
}

/// Asks for a WebSocket as alice; returns the status and the connection.
async fn open(address: SocketAddr, path: &str) -> (u16, TcpStream) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nx-user: alice\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap(), socket)
}

/// A text of two letters as a client sends it: the mask is zero.
const MASKED: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
const PLAIN: [u8; 4] = [0x81, 2, b'h', b'i'];

async fn say(socket: &mut TcpStream) {
    socket.write_all(&MASKED).await.unwrap();
    let mut heard = [0; 4];
    socket.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, PLAIN);
}

#[tokio::test]
async fn each_open_socket_has_a_slot() {
    let (scene, log, address) = start().await;
    let (status, mut first) = open(address, "/chat").await;
    let (next, mut second) = open(address, "/chat").await;
    assert_eq!((status, next), (101, 101));
    for _ in 0..3 {
        say(&mut first).await;
        say(&mut second).await;
        assert_eq!((open(address, "/chat").await.0, scene.used("concurrent_requests").await), (429, 2));
    }
    drop(first);
    until(&scene, "concurrent_requests", |held| held == 1).await;
    assert_eq!(scene.used("messages_per_hour").await, 3);
    let (status, mut third) = open(address, "/chat").await;
    assert_eq!((status, open(address, "/chat").await.0), (101, 429));
    say(&mut third).await;
    drop((second, third));
    until(&scene, "concurrent_requests", |held| held == 0).await;
    assert_eq!((scene.used("messages_per_hour").await, scene.used("requests_per_hour").await), (7, 3));
    assert!(log.lines().is_empty());
}

#[tokio::test]
async fn open_socket_without_a_kept_slot_is_reported() {
    let (scene, log, address) = start().await;
    for opened in 1..=3 {
        let (status, mut socket) = open(address, "/loose").await;
        assert_eq!((status, log.lines().len()), (101, opened));
        assert_eq!(scene.used("concurrent_requests").await, 0, "released with the response");
        say(&mut socket).await;
    }
}

/// Asks for a WebSocket as alice by a CONNECT with `:protocol`, as RFC 8441 has it.
async fn connect(
    client: &::h2::client::SendRequest<Bytes>,
    path: &str,
) -> (u16, ::h2::SendStream<Bytes>, ::h2::RecvStream) {
    let request = Request::connect(format!("http://localhost{path}")).header("x-user", "alice");
    let request =
        request.header("sec-websocket-version", "13").extension(::h2::ext::Protocol::from_static("websocket"));
    let mut client = client.clone().ready().await.unwrap();
    let (answer, sends) = client.send_request(request.body(()).unwrap(), false).unwrap();
    let (head, receives) = answer.await.unwrap().into_parts();
    (head.status.as_u16(), sends, receives)
}

/// A client that has read the settings of the server.
async fn client_of(address: SocketAddr) -> ::h2::client::SendRequest<Bytes> {
    let client = h2(address, 65_535).await;
    let request = Request::get("http://localhost/").header("x-user", "bob").body(()).unwrap();
    client.clone().ready().await.unwrap().send_request(request, true).unwrap().0.await.unwrap();
    assert!(client.is_extended_connect_protocol_enabled());
    client
}

#[tokio::test]
async fn each_stream_of_an_extended_connect_has_a_slot() {
    let (scene, log, address) = start().await;
    let client = client_of(address).await;
    let (status, mut first, mut answers) = connect(&client, "/chat").await;
    let second = connect(&client, "/chat").await;
    assert_eq!((status, second.0), (200, 200));
    first.send_data(Bytes::from_static(&MASKED), false).unwrap();
    assert_eq!(answers.data().await.unwrap().unwrap(), &PLAIN[..]);
    assert_eq!((connect(&client, "/chat").await.0, scene.used("concurrent_requests").await), (429, 2));
    first.send_data(Bytes::new(), true).unwrap();
    until(&scene, "concurrent_requests", |held| held == 1).await;
    let third = connect(&client, "/chat").await;
    assert_eq!((third.0, connect(&client, "/chat").await.0), (200, 429));
    drop((second, third)); // resets their streams
    until(&scene, "concurrent_requests", |held| held == 0).await;
    assert_eq!(scene.used("messages_per_hour").await, 1);
    assert!(log.lines().is_empty());
}

#[tokio::test]
async fn extended_connect_without_a_kept_slot_is_reported() {
    let (scene, log, address) = start().await;
    let client = client_of(address).await;
    let (status, mut sends, mut answers) = connect(&client, "/loose").await;
    assert_eq!((status, log.lines().len(), scene.used("concurrent_requests").await), (200, 1, 0));
    sends.send_data(Bytes::from_static(&MASKED), false).unwrap();
    assert_eq!(answers.data().await.unwrap().unwrap(), &PLAIN[..], "the stream goes on");
}
