//! An axum server behind a token bucket and a circuit breaker, with a demonstration of both.
//!
//! ```text
//! cargo run --example quickstart              # plays the demonstration, then serves on 127.0.0.1:3000
//! cargo run --example quickstart -- --serve   # only serves
//! PORT=8080 cargo run --example quickstart    # another port; 0 chooses a free one
//! ```
//!
//! On SIGTERM or Ctrl-C it accepts nothing new and finishes running requests, for at most 10 s.

mod demo;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use axum::{Router, extract::Query, http::StatusCode, routing::get};
use tollgate::{ApiKey, CircuitBreakerLayer, Identify, Principal, Rate, TokenBucketLayer, Trip};

/// Returns the server: each route is behind the layer that it demonstrates.
fn app() -> Router {
    let demo_keys: HashMap<String, Principal> =
        ["alice", "bob", "carol"].map(|key| (String::from(key), Principal::named(key))).into();

    let limit = TokenBucketLayer::new(Rate::per_second(5).burst(10))
        .identify_by(ApiKey::header("x-api-key", demo_keys).or(tollgate::peer_ip!(axum)));
    // A time-out of the handler belongs inside the breaker, with an answer of 504. One outside would not count.
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(3)).recovery_timeout(Duration::from_secs(2));

    Router::new().route("/", get(|| async { "hello\n" }).layer(limit)).route("/flaky", get(flaky).layer(breaker))
}

/// Answers with the requested status, like an unreliable upstream.
async fn flaky(Query(parameters): Query<HashMap<String, String>>) -> (StatusCode, String) {
    let Some(status) = parameters.get("status") else { return (StatusCode::OK, "fine\n".into()) };
    match status.parse().ok().and_then(|code: u16| StatusCode::from_u16(code).ok()) {
        Some(status) if status.as_u16() >= 200 => (status, format!("the handler answered {status}\n")),
        _ => (StatusCode::BAD_REQUEST, format!("status must be from 200 to 999, got {status:?}\n")),
    }
}

#[tokio::main]
async fn main() -> Result<(), support::ExampleError> {
    let serve_only = support::start(include_str!("main.rs"), Some("--serve"))?;
    let listener = support::bind(3000).await?;
    let address = listener.local_addr()?;
    let stop = support::stop_signal()?;
    println!("listening on http://{address}");

    let app = app().into_make_service_with_connect_info::<SocketAddr>();
    let mut server =
        tokio::spawn(support::run(stop, |stop| axum::serve(listener, app).with_graceful_shutdown(stop).into_future()));
    if !serve_only {
        tokio::select! {
            played = demo::play(address) => played?,
            served = &mut server => return Ok(served??), // stopped during the demonstration
        }
    }
    demo::invite(address);
    Ok(server.await??)
}
