//! Token buckets: the handle and the layer.

mod clients;
mod edges;
mod headers;
mod layer;
mod peer_faults;
mod rate_changes;
mod refunds;
mod several_fields;
mod several_rates;
#[path = "../support/mod.rs"]
mod support;

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate::TokenBucketLayer;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::gate::get as request;

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

/// A request from a peer.
fn from(peer: &str) -> Request<Full<Bytes>> {
    let mut request = request("/");
    request.extensions_mut().insert(peer.parse::<SocketAddr>().unwrap());
    request
}

async fn ask(layer: &TokenBucketLayer, request: Request<Full<Bytes>>) -> Response<Bytes> {
    let (head, body) = layer.layer(service_fn(hello)).oneshot(request).await.unwrap().into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

fn field<'a>(response: &'a Response<Bytes>, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}
