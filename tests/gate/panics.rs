//! Panics of services, bodies, permits and observers: each settles its permit once.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody};
use tollgate::{
    Admit, CircuitBreakerLayer, Client, Event, GateLayer, MaybeFuture, Outcome, Permit, Refusal, RequestHead, Trip,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{
    Reply, hello,
    support::gate::{Recorder, get},
};

#[tokio::test]
async fn panic_settles_the_permit_wherever_it_is_caught() {
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
async fn panic_caught_before_the_drop_settles_as_panicked() {
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
async fn panic_in_settle_does_not_reach_the_caller() {
    struct Bomb;
    impl Permit for Bomb {
        type Lasts = tollgate::ToEnd;
        fn settle(self, _: Outcome<'_>) {
            panic!("in settle")
        }
    }
    struct Armed;
    impl Admit for Armed {
        type Permit = Bomb;
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Bomb, Refusal>> {
            MaybeFuture::Ready(Ok(Bomb))
        }
    }
    let observer = |_: &Event<'_>| panic!("in an observer");
    let service = GateLayer::new(Armed).observe(observer).layer(service_fn(hello));
    let body = service.clone().oneshot(get("/")).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "hello");
    drop(service.oneshot(get("/")).await.unwrap());

    let both = GateLayer::new(Armed).layer(service_fn(|_: Request<Full<Bytes>>| async { panic!("in poll") as Reply }));
    let panicked = tokio::spawn(async move { both.oneshot(get("/")).await.map(|_| ()) }).await.unwrap_err();
    assert_eq!(panicked.into_panic().downcast_ref::<&str>(), Some(&"in poll"), "the first panic goes on");
}

/// Panics where it is armed. The service, future, body and data of one test share it.
#[derive(Clone, Default)]
struct Trap(Arc<Mutex<&'static str>>);

impl Trap {
    fn arm(&self, place: &'static str) {
        *self.0.lock().unwrap() = place;
    }

    fn is_armed(&self, place: &str) -> bool {
        *self.0.lock().unwrap() == place
    }

    fn reach(&self, place: &str) {
        assert!(!self.is_armed(place), "trap in {place}");
    }
}

struct Trapped(Trap);

struct TrappedFuture(Trap);

/// One frame of three bytes, of unknown length.
struct TrappedBody(Trap, bool);

struct TrappedData(Option<Trap>, Bytes);

impl Clone for Trapped {
    fn clone(&self) -> Self {
        self.0.reach("clone");
        Self(self.0.clone())
    }
}

impl Drop for Trapped {
    fn drop(&mut self) {
        self.0.reach("drop of the service");
    }
}

impl Service<Request<Full<Bytes>>> for Trapped {
    type Response = Response<TrappedBody>;
    type Error = Infallible;
    type Future = TrappedFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.reach("poll_ready");
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> TrappedFuture {
        self.0.reach("call");
        TrappedFuture(self.0.clone())
    }
}

impl Future for TrappedFuture {
    type Output = Result<Response<TrappedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.reach("poll");
        match self.0.is_armed("nothing yet") {
            true => Poll::Pending,
            false => Poll::Ready(Ok(Response::new(TrappedBody(self.0.clone(), false)))),
        }
    }
}

impl Drop for TrappedFuture {
    fn drop(&mut self) {
        self.0.reach("drop of the future");
    }
}

impl http_body::Body for TrappedBody {
    type Data = TrappedData;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<TrappedData>, Infallible>>> {
        self.0.reach("poll_frame");
        if std::mem::replace(&mut self.1, true) {
            return Poll::Ready(None);
        }
        let data = TrappedData(Some(self.0.clone()), Bytes::from_static(b"abc"));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.reach("is_end_stream");
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.0.reach("size_hint");
        SizeHint::default()
    }
}

impl Drop for TrappedBody {
    fn drop(&mut self) {
        self.0.reach("drop of the body");
    }
}

impl bytes::Buf for TrappedData {
    fn remaining(&self) -> usize {
        self.0.iter().for_each(|trap| trap.reach("remaining"));
        self.1.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.1.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.1.advance(count);
    }
}

impl From<Bytes> for TrappedData {
    fn from(bytes: Bytes) -> Self {
        Self(None, bytes)
    }
}

/// Returns whether `work` panics. The panic is caught, as by an outer layer, and no unwinding continues afterwards.
fn panics(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_err()
}

type Body = tollgate::Body<TrappedBody, crate::support::gate::Held>;

/// Returns the body of a response whose head has been sent.
fn body(layer: &tollgate::GateLayer<Recorder>, trap: &Trap) -> Option<Pin<Box<Body>>> {
    let mut service = layer.layer(Trapped(trap.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = Box::pin(service.call(get("/")));
    let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) else { panic!("not ready") };
    Some(Box::pin(response.into_body()))
}

#[test]
fn panic_before_the_head_settles_as_panicked() {
    for (place, shut) in [
        ("call", false),
        ("poll", false),
        ("is_end_stream", false),
        ("size_hint", false),
        ("clone", true),
        ("poll_ready", true),
        ("call", true),
        ("drop of the service", true),
        ("poll", true),
    ] {
        let (layer, recorder, mut ends) = Recorder::layer();
        let trap = Trap::default();
        let mut service = layer.layer(Trapped(trap.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        recorder.shut.store(shut, Ordering::SeqCst);
        assert!(service.poll_ready(&mut cx).is_ready());

        trap.arm(place);
        let mut future = None;
        let mut panicked = panics(|| future = Some(Box::pin(service.call(get("/")))));
        if let Some(future) = &mut future {
            panicked |= panics(|| drop(future.as_mut().poll(&mut cx)));
        }
        assert!(panicked, "{place}");
        trap.arm("");
        drop(future);
        assert_eq!(ends.now().as_deref(), Some("panicked"), "{place}, shut {shut}");
        assert_eq!(recorder.held(), 0, "{place}, shut {shut}");
    }
}

#[test]
fn panic_in_the_body_settles_as_panicked() {
    type Touch = fn(&mut Option<Pin<Box<Body>>>);
    let poll: Touch = |body| drop(body.as_mut().unwrap().as_mut().poll_frame(&mut Context::from_waker(Waker::noop())));
    let is_end_stream: Touch = |body| assert!(!body.as_ref().unwrap().is_end_stream());
    let size_hint: Touch = |body| assert_eq!(body.as_ref().unwrap().size_hint().exact(), None);
    for (place, touch) in [
        ("poll_frame", poll),
        ("remaining", poll),
        ("is_end_stream", poll),
        ("is_end_stream", is_end_stream),
        ("size_hint", size_hint),
    ] {
        for read_on in [false, true] {
            let (layer, recorder, mut ends) = Recorder::layer();
            let trap = Trap::default();
            let mut body = body(&layer, &trap);
            trap.arm(place);
            assert!(panics(|| touch(&mut body)), "{place}");
            trap.arm("");
            if let Some(body) = body.as_mut().filter(|_| read_on) {
                let mut cx = Context::from_waker(Waker::noop());
                while let Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
                    frame.unwrap();
                }
            }
            drop(body);
            assert_eq!(ends.now().as_deref(), Some("panicked"), "{place}, read on {read_on}");
            assert_eq!(recorder.held(), 0, "{place}");
        }
    }
}

#[test]
fn panic_in_a_drop_settles_as_a_cancellation() {
    let (layer, recorder, mut ends) = Recorder::layer();
    let trap = Trap::default();
    let body = body(&layer, &trap);
    trap.arm("drop of the body");
    assert!(panics(|| drop(body)));
    assert_eq!(ends.now().as_deref(), Some("cancelled after the head"));

    trap.arm("");
    let mut service = layer.layer(Trapped(trap.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let future = Box::pin(service.call(get("/")));
    trap.arm("drop of the future");
    assert!(panics(|| drop(future)));
    assert_eq!(ends.now().as_deref(), Some("cancelled before the head"));
    assert_eq!(recorder.held(), 0);
}

#[test]
fn panic_of_the_caller_is_not_the_services() {
    let (layer, _, mut ends) = Recorder::layer();
    let trap = Trap::default();
    let held = body(&layer, &trap);
    assert!(panics(move || {
        let _held = held;
        panic!("the caller")
    }));
    assert_eq!(ends.now().as_deref(), Some("cancelled after the head"));

    trap.arm("nothing yet");
    let mut service = layer.layer(Trapped(trap));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = Box::pin(service.call(get("/")));
    assert!(future.as_mut().poll(&mut cx).is_pending());
    assert!(panics(move || {
        let _held = future;
        panic!("the caller")
    }));
    assert_eq!(ends.now().as_deref(), Some("cancelled before the head"));
}

#[test]
fn panic_in_size_hint_opens_a_circuit() {
    let layer = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    let trap = Trap::default();
    let mut service = layer.layer(Trapped(trap.clone()));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = Box::pin(service.call(get("/")));
    let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) else { panic!("not ready") };
    trap.arm("size_hint");
    assert!(panics(|| assert_eq!(response.body().size_hint().exact(), None)));
    drop(response);
    assert_eq!(layer.handle().state(), tollgate::CircuitState::Open);
}
