//! Allocations of admitted and refused requests, counted for each thread.

mod circuit_breaker;
mod identity;
mod quota;
mod sizes;
mod stack;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::{
    convert::Infallible,
    future::{Ready, ready},
};

use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body_util::Empty;

type Body = Empty<bytes::Bytes>;

/// Answers with room for a few more fields, as frameworks do.
pub(crate) fn answer(_: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
    let mut response = Response::new(Body::new());
    *response.headers_mut() = HeaderMap::with_capacity(8);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    ready(Ok(response))
}
