//! The fixed decisions of the gate, on services that are polled by hand.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Waker},
};

use crate::support::gate::{Broken, Ends, Log, NeverReady, Recorder, Strict, get};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tollgate::{
    Admit, CircuitBreakerLayer, Event, GateLayer, MaybeFuture, Outcome, Permit, PolicyName, Rate, Reason, Refusal,
    RequestHead, TokenBucketLayer, Trip,
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

type Reply = Result<Response<Full<Bytes>>, Infallible>;

async fn hello(_: Request<Full<Bytes>>) -> Reply {
    Ok(Response::new(Full::from("hello")))
}

#[tokio::test]
async fn the_service_that_was_polled_ready_is_the_one_that_is_called() {
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
async fn a_caller_that_forgets_to_ask_if_it_is_ready_is_still_served() {
    for (layer, _, _) in [Recorder::layer(), Recorder::later()] {
        let response = layer.layer(Strict::default()).call(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_shut_policy_refuses_before_a_service_that_is_never_ready() {
    for (layer, recorder, _) in [Recorder::layer(), Recorder::later()] {
        recorder.shut.store(true, Ordering::SeqCst);
        recorder.refuse.store(true, Ordering::SeqCst);
        let response = layer.layer(NeverReady).oneshot(get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}

#[tokio::test]
async fn a_probe_that_is_due_by_the_time_of_the_call_makes_the_service_ready_itself() {
    for (layer, recorder, mut ends) in [Recorder::layer(), Recorder::later()] {
        recorder.shut.store(true, Ordering::SeqCst); // shut when asked, open when called
        let response = layer.layer(Strict::default()).oneshot(get("/")).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(ends.next().await, "complete 6");
    }
}

#[tokio::test]
async fn a_strict_service_and_one_that_is_never_ready_under_every_layer() {
    let bucket = TokenBucketLayer::new(Rate::per_hour(2));
    let breaker = CircuitBreakerLayer::new(Trip::consecutive(1));
    let open = CircuitBreakerLayer::new(Trip::consecutive(1));
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
    let under_a_limit = ServiceBuilder::new().layer(TokenBucketLayer::new(Rate::per_hour(2))).layer(open);
    assert_eq!(under_a_limit.service(NeverReady).oneshot(get("/")).await.unwrap().status(), 503);
}

#[test]
fn an_open_policy_waits_for_a_service_that_is_never_ready() {
    let (layer, _, _) = Recorder::layer();
    let mut service = layer.layer(NeverReady);
    let ready = Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(ready.is_pending());
}

#[tokio::test]
async fn a_service_that_fails_before_the_call_is_a_failure() {
    let (layer, recorder, mut ends) = Recorder::layer();
    assert_eq!(layer.layer(Broken).oneshot(get("/")).await.unwrap_err(), "no connection");
    assert_eq!(recorder.unready.load(Ordering::SeqCst), 1);
    assert_eq!(ends.now(), None, "nobody was admitted");

    recorder.shut.store(true, Ordering::SeqCst);
    assert_eq!(layer.layer(Broken).oneshot(get("/")).await.unwrap_err(), "no connection");
    assert_eq!(ends.next().await, "failed");
}

#[tokio::test]
async fn an_error_of_the_service_keeps_its_type_and_settles_as_a_failure() {
    let (layer, _, mut ends) = Recorder::layer();
    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Full<Bytes>>, _>(17_u8) }));
    assert_eq!(service.oneshot(get("/")).await.unwrap_err(), 17);
    assert_eq!(ends.next().await, "failed");
}

#[tokio::test]
async fn what_a_layer_further_in_refuses_is_told_apart() {
    let (outer, _, mut outer_ends) = Recorder::layer();
    let (inner, recorder, _) = Recorder::layer();
    recorder.refuse.store(true, Ordering::SeqCst);
    let service = ServiceBuilder::new().layer(outer).layer(inner).service(service_fn(hello));
    let response = service.oneshot(get("/")).await.unwrap();
    assert!(response.extensions().get::<Refusal>().is_some());
    assert_eq!(outer_ends.now().as_deref(), Some("refused further in"), "at the head, before the body is read");
}

#[tokio::test]
async fn a_panic_settles_whoever_catches_it() {
    let (layer, recorder, mut ends) = Recorder::layer();
    let in_call = service_fn(|_: Request<Full<Bytes>>| -> std::future::Ready<Reply> { panic!("in call") });
    let in_poll = service_fn(|_: Request<Full<Bytes>>| async { panic!("in poll") as Reply });
    let in_body = service_fn(|_: Request<Full<Bytes>>| async {
        let frames = futures_util::stream::once(async { panic!("in body") as Result<Frame<Bytes>, Infallible> });
        Ok::<_, Infallible>(Response::new(StreamBody::new(frames)))
    });
    let call = layer.layer(in_call);
    let poll = layer.layer(in_poll);
    let body = layer.layer(in_body);
    assert!(tokio::spawn(async move { call.oneshot(get("/")).await.map(|_| ()) }).await.is_err());
    assert_eq!(ends.next().await, "panicked");
    assert!(tokio::spawn(async move { poll.oneshot(get("/")).await.map(|_| ()) }).await.is_err());
    assert_eq!(ends.next().await, "panicked");
    let collected = async move { body.oneshot(get("/")).await.unwrap().into_body().collect().await.map(|_| ()) };
    assert!(tokio::spawn(collected).await.is_err());
    assert_eq!(ends.next().await, "panicked");
    assert_eq!(recorder.held(), 0);
}

#[tokio::test]
async fn a_panic_that_somebody_caught_long_ago_is_still_a_panic() {
    let (layer, _, mut ends) = Recorder::layer();
    let mut service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async { panic!("in poll") as Reply }));
    let mut future = Box::pin(service.ready().await.unwrap().call(get("/")));
    let mut cx = Context::from_waker(Waker::noop());
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| future.as_mut().poll(&mut cx).is_ready()));
    assert!(caught.is_err());
    assert_eq!(ends.now(), None);
    drop(future); // nothing is unwinding here
    assert_eq!(ends.now().as_deref(), Some("panicked"));
}

#[tokio::test]
async fn a_permit_that_panics_while_it_settles_harms_nobody() {
    struct Bomb;
    impl Permit for Bomb {
        fn settle(self, _: Outcome<'_>) {
            panic!("in settle")
        }
    }
    struct Armed;
    impl Admit for Armed {
        type Permit = Bomb;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Bomb, Refusal>> {
            MaybeFuture::Ready(Ok(Bomb))
        }
    }
    let observer = |_: &Event<'_>| panic!("in an observer");
    let service = GateLayer::of(Armed).observe(observer).layer(service_fn(hello));
    let body = service.clone().oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    drop(service.oneshot(get("/")).await.unwrap());

    let both = GateLayer::of(Armed).layer(service_fn(|_: Request<Full<Bytes>>| async { panic!("in poll") as Reply }));
    let panicked = tokio::spawn(async move { both.oneshot(get("/")).await.map(|_| ()) }).await.unwrap_err();
    assert_eq!(panicked.into_panic().downcast_ref::<&str>(), Some(&"in poll"), "the first panic goes on");
}

/// Polls `make`'s future `polls` times, then drops it; says whether it was done by then.
fn drop_after<F: Future>(polls: usize, future: F) -> bool {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    (0..polls).any(|_| future.as_mut().poll(&mut cx).is_ready())
}

#[tokio::test]
async fn a_call_that_is_never_polled_is_cancelled_and_no_panic() {
    let (layer, _, mut ends) = Recorder::layer();
    drop(layer.layer(service_fn(hello)).ready().await.unwrap().call(get("/")));
    assert_eq!(ends.next().await, "cancelled before the head");
}

#[tokio::test]
async fn a_future_dropped_at_any_poll_gives_its_permit_back() {
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
async fn shadow_lets_everyone_pass_and_tells() {
    let (layer, recorder, _) = Recorder::layer();
    recorder.refuse.store(true, Ordering::SeqCst);
    let log = Log::default();
    let heard = log.clone();
    let layer = layer.shadow().observe(move |event: &Event<'_>| {
        if let Event::Refused { refusal, shadow } = event {
            heard.push(format!("{} {shadow}", refusal.reason().as_str()));
        }
    });
    let response = layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(log.lines(), ["capacity true"]);
}

#[tokio::test]
async fn the_exempt_and_the_switched_off_are_not_asked() {
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
async fn services_of_one_layer_and_of_its_clones_share_its_state() {
    struct Count(std::sync::atomic::AtomicUsize);
    impl Admit for Count {
        type Permit = ();
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<(), Refusal>> {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            MaybeFuture::Ready(if n < 2 {
                Ok(())
            } else {
                Err(Refusal::new(Reason::Capacity, PolicyName::try_new("two").unwrap()))
            })
        }
    }
    let layer = GateLayer::of(Count(0.into()));
    let services =
        [layer.layer(service_fn(hello)), layer.clone().layer(service_fn(hello)), layer.layer(service_fn(hello))];
    let mut statuses = Vec::new();
    for service in services {
        statuses.push(service.oneshot(get("/")).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 503], "three services of one layer share its state");
}

#[tokio::test]
async fn size_and_end_of_the_body_are_the_inner_bodys() {
    use http_body::Body as _;
    let (layer, _, _ends): (_, _, Ends) = Recorder::layer();
    let body = layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(5));
    assert!(!body.is_end_stream());
}

/// Says of no frame how long the whole is, and of the last that it was the last.
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
async fn a_body_of_unknown_length_is_complete_with_the_frame_that_says_so() {
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

#[tokio::test]
async fn a_permit_may_add_to_the_request_before_the_service_sees_it() {
    struct Stamp;
    impl Permit for Stamp {
        fn on_request(&mut self, extensions: &mut http::Extensions) {
            extensions.insert("stamped");
        }
        fn settle(self, _: Outcome<'_>) {}
    }
    struct Stamper {
        later: bool,
        shut: bool,
    }
    impl Admit for Stamper {
        type Permit = Stamp;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Stamp, Refusal>> {
            if self.later { MaybeFuture::future(async { Ok(Stamp) }) } else { MaybeFuture::Ready(Ok(Stamp)) }
        }
        fn shut(&self) -> bool {
            self.shut
        }
    }
    for (later, shut) in [(false, false), (false, true), (true, false), (true, true)] {
        let seen = service_fn(|request: Request<Full<Bytes>>| async move {
            let stamp = request.extensions().get::<&str>().copied().unwrap_or_default();
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(stamp)))
        });
        let answer = GateLayer::of(Stamper { later, shut }).layer(seen).oneshot(get("/")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "stamped", "later {later}, shut {shut}");
    }
}

#[tokio::test]
async fn on_bypass_runs_for_every_request_without_a_permit() {
    struct Stamp;
    impl Permit for Stamp {
        fn on_request(&mut self, extensions: &mut http::Extensions) {
            extensions.insert("permit");
        }
        fn settle(self, _: Outcome<'_>) {}
    }
    #[derive(Clone, Copy, Debug)]
    struct Stamper {
        later: bool,
        refuses: bool,
        shut: bool,
    }
    impl Admit for Stamper {
        type Permit = Stamp;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Stamp, Refusal>> {
            let refusal = Refusal::new(Reason::Capacity, PolicyName::try_new("stamper").unwrap());
            let decision = if self.refuses { Err(refusal) } else { Ok(Stamp) };
            if self.later { MaybeFuture::future(async { decision }) } else { MaybeFuture::Ready(decision) }
        }
        fn shut(&self) -> bool {
            self.shut
        }
        fn on_bypass(&self, extensions: &mut http::Extensions) {
            extensions.insert("bypass");
        }
    }
    type Switch = fn(GateLayer<Arc<Stamper>>) -> GateLayer<Arc<Stamper>>;
    let switches: [(Switch, bool); 3] =
        [(|layer| layer.enabled(false), true), (|layer| layer.exempt(|_| true), true), (|layer| layer.shadow(), false)];
    for (switch, always) in switches {
        for bits in 0..8 {
            let policy = Stamper { later: bits & 1 != 0, refuses: bits & 2 != 0, shut: bits & 4 != 0 };
            let seen = service_fn(|request: Request<Full<Bytes>>| async move {
                let stamp = request.extensions().get::<&str>().copied().unwrap_or_default();
                Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(stamp)))
            });
            let layer = switch(GateLayer::of(policy));
            let ready = layer.clone().layer(seen).oneshot(get("/"));
            // Called without having been polled ready, the service is waited for first.
            let unready = layer.layer(seen).call(get("/"));
            for answer in [ready.await.unwrap(), unready.await.unwrap()] {
                let stamp = answer.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(stamp, if always || policy.refuses { "bypass" } else { "permit" }, "{policy:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_permit_hears_of_a_body_only_where_one_follows_the_head() {
    struct Listening(Option<Arc<std::sync::atomic::AtomicUsize>>);
    impl Permit for Listening {
        fn on_body(&mut self) {
            self.0.take().expect("told once").fetch_add(1, Ordering::Relaxed);
        }
        fn settle(self, _: Outcome<'_>) {}
    }
    struct Listener(Arc<std::sync::atomic::AtomicUsize>);
    impl Admit for Listener {
        type Permit = Listening;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>) -> MaybeFuture<Result<Listening, Refusal>> {
            MaybeFuture::Ready(Ok(Listening(Some(Arc::clone(&self.0)))))
        }
    }
    let bodies = Arc::default();
    let layer = GateLayer::of(Listener(Arc::clone(&bodies)));
    let answer = layer.clone().layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(bodies.load(Ordering::Relaxed), 1);
    answer.into_body().collect().await.unwrap();
    let empty = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())) });
    layer.clone().layer(empty).oneshot(get("/")).await.unwrap();
    let head = Request::head("/").body(Full::default()).unwrap();
    layer.layer(service_fn(hello)).oneshot(head).await.unwrap();
    assert_eq!(bodies.load(Ordering::Relaxed), 1, "neither an empty one nor one that is not sent");
}
