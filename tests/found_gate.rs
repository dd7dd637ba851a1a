//! What careful readers found wrong with the gate.
#![allow(missing_docs)]

mod common;

use std::{
    convert::Infallible,
    sync::atomic::Ordering,
    task::{Context, Waker},
};

use bytes::Bytes;
use common::{Log, NeverReady, Recorder, get};
use http::{Request, Response};
use http_body_util::Full;
use tollgate::Event;
use tower::{Layer, Service, ServiceExt, service_fn};

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

#[test]
fn a_layer_that_only_watches_leaves_readiness_to_the_service() {
    let (layer, recorder, _) = Recorder::layer();
    recorder.shut.store(true, Ordering::SeqCst);
    let mut service = layer.shadow().layer(NeverReady);
    let ready = Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(ready.is_pending(), "whoever sheds load outside would see no load");
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
