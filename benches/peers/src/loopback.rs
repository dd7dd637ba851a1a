//! axum over loopback: a server on a thread of its own, and keep-alive connections that send as fast as they are
//! answered.

use std::{
    convert::Infallible,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use axum::{Router, error_handling::HandleErrorLayer};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    task::JoinSet,
};
use tower::{ServiceBuilder, layer::util::Identity};
use tower_resilience_circuitbreaker::{CircuitBreakerError, SlidingWindowType};

use crate::{
    apps::{app, behind},
    drive::{self, API_KEY},
    keys::key,
    lap::Entry,
    ours, peers,
    race::{Pace, median, of, race},
    report::{Goal, Line, Report},
};

const CONNECTIONS: u64 = 32;

/// A server, the connections to it, and its figures of each round.
struct Server {
    name: &'static str,
    status: [u8; 3],
    connections: Vec<TcpStream>,
    /// File in which the kernel counts the processor time of its only thread.
    clock: PathBuf,
    rounds: Vec<Round>,
}

/// Figures of one round.
struct Round {
    per_second: f64,
    /// Processor time of the server, the kernel's part included, in nanoseconds per response. NaN where the kernel does
    /// not count it.
    cpu: f64,
}

/// The same apps without sockets, which cost fifty times as much as a layer and vary more than it costs.
pub const CALLED: &[Entry] = &[
    Entry { name: "bare", make: || drive::serve(app(), StatusCode::OK) },
    Entry { name: IDENTITY, make: || drive::serve(behind(Identity::new()), StatusCode::OK) },
    Entry { name: "tollgate, its gate alone", make: || drive::serve(behind(ours::gate()), StatusCode::OK) },
    Entry { name: "tollgate", make: || drive::serve(behind(ours::plenty()), StatusCode::OK) },
    Entry { name: "tower_governor", make: || drive::serve(behind(peers::tower_governor(false)), StatusCode::OK) },
];

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(CALLED, pace);
    let by = |name| of(&figures, name);
    let identity = by(IDENTITY);
    let row = "axum app called without sockets, admitted, over Identity";
    report.line(Line::new(row, by("tollgate").over(identity), by("tower_governor").over(identity), Goal::None));
    report.figures("axum app called without sockets", &figures, Some(identity));

    let client = runtime();
    let breaker = ServiceBuilder::new()
        .layer(HandleErrorLayer::new(|_: CircuitBreakerError<Infallible>| async { StatusCode::SERVICE_UNAVAILABLE }))
        .layer(peers::tower_resilience(SlidingWindowType::CountBased));
    let mut servers = [
        serve(&client, "bare", b"200", app()),
        serve(&client, IDENTITY, b"200", behind(Identity::new())),
        serve(&client, "Identity once more", b"200", behind(Identity::new())),
        serve(&client, "tollgate, its gate alone", b"200", behind(ours::gate())),
        serve(&client, "tollgate, admitted", b"200", behind(ours::plenty())),
        serve(&client, "tollgate, admitted, RateLimit fields", b"200", behind(ours::plenty_told())),
        serve(&client, "tower_governor, admitted", b"200", behind(peers::tower_governor(false))),
        serve(&client, "tollgate, refused", b"429", behind(ours::scarce())),
        serve(&client, "tower_governor, refused", b"429", behind(peers::tower_governor(true))),
        serve(&client, "tollgate, last 100", b"200", behind(ours::last_calls())),
        serve(&client, "tower-resilience, last 100", b"200", behind(breaker)),
    ];
    for round in 0..pace.rounds {
        let count = servers.len();
        for turn in 0..count {
            let server = &mut servers[(turn + round) % count];
            let round = client.block_on(load(server, pace.lap * 6));
            server.rounds.push(round);
        }
    }
    let find = |name| servers.iter().find(|server| server.name == name).expect("a server of that name");
    // Round by round, because the machine's own pace drifts.
    let share = |own: &Server, base: &Server, figure: fn(&Round) -> f64| {
        median(own.rounds.iter().zip(&base.rounds).map(|(own, base)| figure(own) / figure(base)).collect())
    };
    let middle = |server: &Server, figure: fn(&Round) -> f64| median(server.rounds.iter().map(figure).collect());
    let identity = find(IDENTITY);
    for (name, goal) in [
        ("Identity once more", Goal::None), // the error of measurement
        ("tollgate, admitted", Goal::AtMost(1.01)),
        ("tollgate, admitted, RateLimit fields", Goal::None),
        ("tower_governor, admitted", Goal::None),
        ("tollgate, refused", Goal::None),
    ] {
        let (base, row) = (middle(identity, CPU), format!("axum, CPU per request, {name} against Identity"));
        report.line(Line::new(&row, share(find(name), identity, CPU) * base, base, goal));
    }
    for server in &servers {
        let rate = format!("{:.0}/s, {:.2} of bare", middle(server, RATE), share(server, &servers[0], RATE));
        let cpu = format!("CPU {:.0} ns, {:.3} of Identity", middle(server, CPU), share(server, identity, CPU));
        report.note("axum over loopback", server.name, &format!("{rate}, {cpu}"));
    }
}

/// Any layer costs a box in axum; one that does nothing shows how much.
const IDENTITY: &str = "Identity";

const RATE: fn(&Round) -> f64 = |round| round.per_second;
const CPU: fn(&Round) -> f64 = |round| round.cpu;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Serves `app` on a port and connects to it. The server ends with the process.
fn serve(client: &Runtime, name: &'static str, status: &[u8; 3], app: Router) -> Server {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.set_nonblocking(true).expect("a socket that does not block");
    let address = listener.local_addr().expect("an address");
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        send.send(fs::read_link("/proc/thread-self").unwrap_or_default()).expect("a receiver");
        runtime().block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            axum::serve(listener, app).await.expect("no end");
        });
    });
    let clock = Path::new("/proc").join(receive.recv().expect("a thread")).join("schedstat");
    let mut server = Server { name, status: *status, connections: Vec::new(), clock, rounds: Vec::new() };
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

/// Returns the processor time that a thread has used, in nanoseconds.
fn used(clock: &Path) -> f64 {
    let counters = fs::read_to_string(clock).unwrap_or_default();
    counters.split_whitespace().next().and_then(|used| used.parse().ok()).unwrap_or(f64::NAN)
}

/// Sends requests over all connections and returns the figures.
async fn load(server: &mut Server, time: Duration) -> Round {
    let before = used(&server.clock);
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for (i, connection) in (0..).zip(server.connections.drain(..)) {
        tasks.spawn(ask(connection, i, server.status, start + time));
    }
    let (connections, answers): (Vec<_>, Vec<u64>) = tasks.join_all().await.into_iter().unzip();
    server.connections = connections;
    let answers = answers.iter().sum::<u64>() as f64;
    Round { per_second: answers / start.elapsed().as_secs_f64(), cpu: (used(&server.clock) - before) / answers }
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
