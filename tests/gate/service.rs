//! Decisions of the gate on services that are polled by hand.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Waker},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tollgate::{
    Admit, CircuitBreakerLayer, Client, Event, GateLayer, MaybeFuture, OnUnidentified, PolicyName, Rate, Reason,
    Refusal, RequestHead, TokenBucketLayer, Trip,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

use crate::{
    hello,
    support::gate::{Broken, Ends, Log, NeverReady, Recorder, Strict, get},
};

#[tokio::test]
async fn polled_service_is_the_one_called() {
    for (layer, _, mut ends) in [Recorder::layer(), Recorder::later()] {
        let mut service = layer.layer(Strict::default());
        for _ in 0..3 {
            let response = service.ready().await.unwrap().call(get("/")).await.unwrap();
            response.into_body().collect().await.unwrap();
            assert_eq!(ends.next().await, "complete 6");
        }
    }
}

#[tokio::test]
async fn call_without_poll_ready_is_served() {
    for (layer, _, _) in [Recorder::layer(), Recorder::later()] {
        let response = layer.layer(Strict::default()).call(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn shut_policy_refuses_before_a_never_ready_service() {
    for (layer, recorder, _) in [Recorder::layer(), Recorder::later()] {
        recorder.shut.store(true, Ordering::SeqCst);
        recorder.refuse.store(true, Ordering::SeqCst);
        let response = layer.layer(NeverReady).oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn probe_due_at_the_call_polls_the_service_ready() {
    for (layer, recorder, mut ends) in [Recorder::layer(), Recorder::later()] {
        recorder.shut.store(true, Ordering::SeqCst); // shut in poll_ready, open in call
        let response = layer.layer(Strict::default()).oneshot(get("/")).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(ends.next().await, "complete 6");
    }
}

#[tokio::test]
async fn strict_and_never_ready_services_under_every_layer() {
    let bucket = TokenBucketLayer::new(Rate::per_hour(2)).on_unidentified(OnUnidentified::Share);
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    let open = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    open.handle().force_open();

    let mut service = ServiceBuilder::new().layer(bucket.clone()).layer(breaker.clone()).service(Strict::default());
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(service.ready().await.unwrap().call(get("/")).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429]);

    let mut cx = Context::from_waker(Waker::noop());
    assert!(bucket.layer(NeverReady).poll_ready(&mut cx).is_pending());
    assert!(breaker.layer(NeverReady).poll_ready(&mut cx).is_pending());
    assert_eq!(open.layer(NeverReady).oneshot(get("/")).await.unwrap().status(), 503);
    let under_a_limit = ServiceBuilder::new()
        .layer(TokenBucketLayer::new(Rate::per_hour(2)).on_unidentified(OnUnidentified::Share))
        .layer(open);
    assert_eq!(under_a_limit.service(NeverReady).oneshot(get("/")).await.unwrap().status(), 503);
}

#[test]
fn open_policy_waits_for_a_never_ready_service() {
    let (layer, _, _) = Recorder::layer();
    let mut service = layer.layer(NeverReady);
    let ready = Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(ready.is_pending());
}

#[tokio::test]
async fn error_of_poll_ready_is_reported_as_a_failure() {
    let (layer, recorder, mut ends) = Recorder::layer();
    assert_eq!(layer.layer(Broken).oneshot(get("/")).await.unwrap_err(), "no connection");
    assert_eq!(recorder.unready.load(Ordering::SeqCst), 1);
    assert_eq!(ends.now(), None, "no request was admitted");

    recorder.shut.store(true, Ordering::SeqCst);
    assert_eq!(layer.layer(Broken).oneshot(get("/")).await.unwrap_err(), "no connection");
    assert_eq!(ends.next().await, "failed");
}

#[tokio::test]
async fn service_error_keeps_its_type_and_settles_as_failed() {
    let (layer, _, mut ends) = Recorder::layer();
    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Full<Bytes>>, _>(17_u8) }));
    assert_eq!(service.oneshot(get("/")).await.unwrap_err(), 17);
    assert_eq!(ends.next().await, "failed");
}

#[tokio::test]
async fn refusal_of_an_inner_layer_settles_as_refused() {
    let (outer, _, mut outer_ends) = Recorder::layer();
    let (inner, recorder, _) = Recorder::layer();
    recorder.refuse.store(true, Ordering::SeqCst);
    let service = ServiceBuilder::new().layer(outer).layer(inner).service(service_fn(hello));
    let response = service.oneshot(get("/")).await.unwrap();
    assert!(response.extensions().get::<Refusal>().is_some());
    assert_eq!(outer_ends.now().as_deref(), Some("refused further in"), "at the head, before the body is read");
}

/// Polls a future at most `polls` times, then drops it; returns whether it was ready.
fn drop_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..polls).any(|_| future.as_mut().poll(&mut cx).is_ready())
}

#[tokio::test]
async fn unpolled_call_settles_as_cancelled() {
    let (layer, _, mut ends) = Recorder::layer();
    drop(layer.layer(service_fn(hello)).ready().await.unwrap().call(get("/")));
    assert_eq!(ends.next().await, "cancelled before the head");
}

#[tokio::test]
async fn future_dropped_at_any_poll_releases_its_permit() {
    async fn slow(
        _: Request<Full<Bytes>>,
    ) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
        crate::support::gate::yield_times(2).await;
        let frames = futures_util::stream::unfold(0, |n| async move {
            crate::support::gate::yield_times(1).await;
            (n < 3).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"abc"))), n + 1))
        });
        Ok(Response::new(StreamBody::new(frames)))
    }
    for (layer, recorder, mut ends) in [Recorder::layer(), Recorder::later()] {
        for shut in [false, true] {
            recorder.shut.store(shut, Ordering::SeqCst);
            let mut finished = false;
            for polls in 0.. {
                let service = ServiceBuilder::new().layer(layer.clone()).concurrency_limit(1).service_fn(slow);
                finished = drop_after(polls, async move {
                    let body = service.oneshot(get("/")).await.unwrap().into_body();
                    body.collect().await.unwrap()
                });
                assert_eq!(recorder.held(), 0, "dropped after {polls} polls");
                if finished {
                    break;
                }
            }
            assert!(finished);
            let ends: Vec<_> = std::iter::from_fn(|| ends.now()).collect();
            assert!(ends.iter().any(|end| end == "cancelled before the head"), "{ends:?}");
            assert!(ends.iter().any(|end| end == "cancelled after the head"), "{ends:?}");
            assert_eq!(ends.last().map(String::as_str), Some("complete 9"));
        }
    }
}

#[tokio::test]
async fn shadow_admits_and_emits_the_refusal() {
    let (layer, recorder, _) = Recorder::layer();
    recorder.refuse.store(true, Ordering::SeqCst);
    let log = Log::default();
    let heard = log.clone();
    let layer = layer.shadow().observe(move |event: &Event<'_>| {
        if let Event::Refused { refusal, shadow, .. } = event {
            heard.push(format!("{} {shadow}", refusal.reason().as_str()));
        }
    });
    let response = layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(log.lines(), ["capacity true"]);
}

#[tokio::test]
async fn exempt_requests_and_disabled_layers_bypass_the_policy() {
    let (layer, recorder, mut ends) = Recorder::layer();
    recorder.refuse.store(true, Ordering::SeqCst);
    recorder.shut.store(true, Ordering::SeqCst);
    let exempt = layer.clone().exempt(|request| request.uri.path() == "/health").layer(service_fn(hello));
    assert_eq!(exempt.clone().oneshot(get("/health")).await.unwrap().status(), 200);
    assert_eq!(exempt.oneshot(get("/other")).await.unwrap().status(), 503);
    let off = layer.enabled(false).layer(service_fn(hello));
    assert_eq!(off.oneshot(get("/other")).await.unwrap().status(), 200);
    assert_eq!(ends.now(), None);
}

#[tokio::test]
async fn services_of_a_layer_and_its_clones_share_state() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl Admit for Count {
        type Permit = ();
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            MaybeFuture::Ready(if n < 2 {
                Ok(())
            } else {
                Err(Refusal::new(Reason::Capacity, PolicyName::try_new("two").unwrap()))
            })
        }
    }
    let layer = GateLayer::new(Count(0.into()));
    let services =
        [layer.layer(service_fn(hello)), layer.clone().layer(service_fn(hello)), layer.layer(service_fn(hello))];
    let mut statuses = Vec::new();
    for service in services {
        statuses.push(service.oneshot(get("/")).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 503], "three services of one layer share its state");
}

#[tokio::test]
async fn size_hint_and_end_of_stream_are_forwarded() {
    use http_body::Body as _;
    let (layer, _, _ends): (_, _, Ends) = Recorder::layer();
    let body = layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
}

/// A body without a size hint that reports the end of the stream with its last frame.
struct Unmeasured(&'static [&'static [u8]]);

impl http_body::Body for Unmeasured {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let (first, rest) = self.0.split_first().expect("polled past its end");
        self.0 = rest;
        std::task::Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(first)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[tokio::test]
async fn unsized_body_completes_with_its_last_frame() {
    for (frames, end) in [(1, "cancelled after the head"), (2, "complete 6")] {
        let (layer, _, mut ends) = Recorder::layer();
        let serve = |_| async { Ok::<_, Infallible>(Response::new(Unmeasured(&[b"abc", b"def"]))) };
        let mut body = layer.layer(service_fn(serve)).oneshot(get("/")).await.unwrap().into_body();
        for _ in 0..frames {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(ends.next().await, end);
    }
}
