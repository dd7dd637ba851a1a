//! axum over loopback: a server on a thread of its own, and keep-alive connections that send as fast as they are
//! answered.

use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use axum::{Router, error_handling::HandleErrorLayer, extract::Request, response::IntoResponse, routing::get};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::{Layer, Service, ServiceBuilder, layer::util::Identity};
use tower_resilience_circuitbreaker::{CircuitBreakerError, SlidingWindowType};

use crate::{
    drive::API_KEY,
    keys::key,
    ours, peers,
    race::{Pace, median},
    report::{Goal, Line, Report},
};

const CONNECTIONS: u64 = 32;

/// A server, the connections to it, and their responses per second in each round.
struct Server {
    name: &'static str,
    status: [u8; 3],
    connections: Vec<TcpStream>,
    rates: Vec<f64>,
}

pub fn rows(report: &mut Report, pace: Pace) {
    let client = runtime();
    let breaker = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: CircuitBreakerError<Infallible>| async { StatusCode::SERVICE_UNAVAILABLE }))
        .layer(peers::tower_resilience(SlidingWindowType::CountBased));
    let mut servers = [
        serve(&client, "bare", b"200", app()),
        serve(&client, "a layer that does nothing", b"200", behind(Identity::new())),
        serve(&client, "tollgate, its gate alone", b"200", behind(ours::gate())),
        serve(&client, "tollgate, admitted", b"200", behind(ours::plenty())),
        serve(&client, "tollgate, admitted, RateLimit fields", b"200", behind(ours::plenty_told())),
        serve(&client, "tower_governor, admitted", b"200", behind(peers::tower_governor(false))),
        serve(&client, "tollgate, refused", b"429", behind(ours::scarce())),
        serve(&client, "tower_governor, refused", b"429", behind(peers::tower_governor(true))),
        serve(&client, "tower-resilience, last 100", b"200", behind(breaker)),
    ];
    for round in 0..pace.rounds / 2 {
        let count = servers.len();
        for turn in 0..count {
            let server = &mut servers[(turn + round) % count];
            let rate = client.block_on(load(server, pace.lap * 8));
            server.rates.push(rate);
        }
    }
    let bare = median(servers[0].rates.clone());
    // Round by round, because the machine's own pace drifts.
    let share =
        |server: &Server| median(server.rates.iter().zip(&servers[0].rates).map(|(own, bare)| own / bare).collect());
    for (name, row, goal) in [
        ("tollgate, admitted", "axum over loopback, admitted, against bare", 0.98),
        ("tollgate, refused", "axum over loopback, refused, against bare 200s", 0.95),
    ] {
        let own = servers.iter().find(|server| server.name == name).expect("a server of that name");
        report.line(Line::new(row, share(own) * bare, bare, Goal::AtLeast(goal)));
    }
    for server in &servers {
        let rate = median(server.rates.clone());
        report.note("axum over loopback", server.name, &format!("{rate:.0}/s, {:.2} of bare", share(server)));
    }
}

fn app() -> Router {
    Router::new().route("/", get(|| async { "ok" }))
}

fn behind<L>(layer: L) -> Router
where
    L: Layer<axum::routing::Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Response: IntoResponse, Error: Into<Infallible>> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Future: Send,
{
    app().layer(layer)
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Serves `app` on a port and connects to it. The server ends with the process.
fn serve(client: &Runtime, name: &'static str, status: &[u8; 3], app: Router) -> Server {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a socket that does not block");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, app).await.expect("no end");
        });
    });
    let mut server = Server { name, status: *status, connections: Vec::new(), rates: Vec::new() };
    server.connections = client.block_on(connect(address));
    // The first requests may still be admitted.
    let status = std::mem::replace(&mut server.status, *b"any");
    client.block_on(load(&mut server, Duration::from_millis(50)));
    server.status = status;
    server
}

async fn connect(address: SocketAddr) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = TcpStream::connect(address).await.expect("a connection");
        connection.set_nodelay(true).expect("a socket option");
        connections.push(connection);
    }
    connections
}

/// Returns the responses per second over all connections.
async fn load(server: &mut Server, time: Duration) -> f64 {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (i, connection) in (0..).zip(server.connections.drain(..)) {
        tasks.spawn(ask(connection, i, server.status, start + time));
    }
    let (connections, answers): (Vec<_>, Vec<u64>) = tasks.join_all().await.into_iter().unzip();
    server.connections = connections;
    answers.iter().sum::<u64>() as f64 / start.elapsed().as_secs_f64()
}

/// Sends one request after another until the time is over.
async fn ask(mut connection: TcpStream, i: u64, status: [u8; 3], until: Instant) -> (TcpStream, u64) {
    let request = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{API_KEY}: {}\r\n\r\n", key(i, &mut [0; 20]));
    let mut buffer = [0; 4_096];
    let mut answers = 0;
    while Instant::now() < until {
        connection.write_all(request.as_bytes()).await.expect("a server that reads");
        let mut filled = 0;
        while !whole(&buffer[..filled]) {
            let read = connection.read(&mut buffer[filled..]).await.expect("a server that answers");
            assert_ne!(read, 0, "the server has gone");
            filled += read;
        }
        let answered = &buffer[9..12];
        assert!(status == *b"any" || answered == status, "{}", String::from_utf8_lossy(&buffer[..filled]));
        answers += 1;
    }
    (connection, answers)
}

/// Returns whether a whole response has arrived; each has a content length.
fn whole(bytes: &[u8]) -> bool {
    let find = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what);
    let Some(head) = find(b"\r\n\r\n") else { return false };
    let length = find(b"content-length: ").map_or(0, |at| {
        let digits = bytes[at + 16..].iter().take_while(|byte| byte.is_ascii_digit());
        digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0'))
    });
    bytes.len() >= head + 4 + length
}
