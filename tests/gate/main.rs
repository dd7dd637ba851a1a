//! The gate around services of every kind: readiness, settlement and refusals, by hand and over sockets.

mod attacks;
mod body_table;
mod callers;
mod edges;
mod forks;
mod head_permits;
mod panic_payloads;
mod panics;
mod peer_faults;
mod permit;
mod readiness;
mod service;
mod stacks;
#[path = "../support/mod.rs"]
mod support;
mod unidentified_warning;

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

type Reply = Result<Response<Full<Bytes>>, Infallible>;

async fn hello(_: Request<Full<Bytes>>) -> Reply {
    Ok(Response::new(Full::from("hello")))
}
mod unread_body;
