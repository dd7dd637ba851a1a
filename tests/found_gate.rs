//! What careful readers found wrong with the gate.
#![allow(missing_docs)]

mod common;

use std::convert::Infallible;

use bytes::Bytes;
use common::{Log, Recorder, get};
use http::{Request, Response};
use http_body_util::Full;
use tollgate::Event;
use tower::{Layer, ServiceExt, service_fn};

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

#[tokio::test]
async fn an_observer_that_panics_takes_nothing_from_the_others() {
    let (layer, _, _ends) = Recorder::layer();
    let log = Log::default();
    let heard = log.clone();
    let layer =
        layer.observe(|_: &Event<'_>| panic!("the first is broken")).observe(move |_: &Event<'_>| heard.push("second"));
    layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(log.lines(), ["second"]);
}
