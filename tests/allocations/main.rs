//! Allocations of admitted and refused requests, counted for each thread.

mod circuit_breaker;
mod identity;
mod quota;
mod stack;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::Empty;

type Body = Empty<bytes::Bytes>;

/// A response that has room for a few more fields, as a framework's has.
pub(crate) fn answer(_: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
    let mut response = Response::new(Body::new());
    *response.headers_mut() = HeaderMap::with_capacity(8);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    ready(Ok(response))
}

pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}
