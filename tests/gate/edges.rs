//! Edges of the gate: readiness, layers that only watch, observers and services that panic.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::support::gate::{Log, NeverReady, Recorder, get};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::Event;
use tower::{Layer, Service, ServiceExt, service_fn};

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

#[test]
fn a_layer_that_only_watches_or_is_switched_off_leaves_readiness_to_the_service() {
    let (layer, recorder, _) = Recorder::layer();
    recorder.shut.store(true, Ordering::SeqCst);
    for layer in [layer.clone().shadow(), layer.enabled(false)] {
        let mut service = layer.layer(NeverReady);
        let ready = Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
        assert!(ready.is_pending(), "whoever sheds load outside would see no load");
    }
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

/// Ready once, then dead: what it says at its next polls.
#[derive(Clone)]
struct ReadyOnce(bool);

impl Service<Request<Full<Bytes>>> for ReadyOnce {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        if std::mem::take(&mut self.0) { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::from("served"))))
    }
}

#[test]
fn a_shut_policy_asks_no_service_that_was_ready_once() {
    let (layer, recorder, _) = Recorder::layer();
    let mut service = layer.layer(ReadyOnce(true));
    let mut ready =
        || Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(ready().is_ready());
    recorder.shut.store(true, Ordering::SeqCst);
    assert!(ready().is_ready(), "who balances over several services polls each of them more than once");

    recorder.shut.store(false, Ordering::SeqCst);
    assert!(ready().is_pending(), "it has died since");
    recorder.shut.store(true, Ordering::SeqCst);
    assert!(ready().is_ready());
    let mut probe = std::pin::pin!(service.call(get("/")));
    assert!(probe.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "a probe asks it anew");
}

/// Cannot be cloned once the switch is set, like a service behind a poisoned lock.
struct Brittle(Arc<AtomicBool>);

impl Clone for Brittle {
    fn clone(&self) -> Self {
        assert!(!self.0.load(Ordering::SeqCst), "poisoned");
        Self(Arc::clone(&self.0))
    }
}

impl Service<Request<Full<Bytes>>> for Brittle {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Ok(Response::new(Full::from("served"))))
    }
}

#[test]
fn a_service_that_cannot_be_cloned_costs_no_permit() {
    let (layer, recorder, mut ends) = Recorder::layer();
    let broken = Arc::new(AtomicBool::new(false));
    let mut service = layer.layer(Brittle(Arc::clone(&broken)));
    broken.store(true, Ordering::SeqCst);
    let call = std::panic::AssertUnwindSafe(|| drop(service.call(get("/"))));
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(recorder.held(), 0);
    assert_eq!(ends.now().as_deref(), Some("panicked"));
}

mod panics {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        pin::Pin,
        sync::Mutex,
    };

    use http_body::{Body as _, Frame, SizeHint};
    use tollgate::{CircuitBreakerLayer, Trip};

    use super::*;

    /// Panics where it is armed. Service, future, body and data of one test share it.
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

    /// Whether `work` panics; it is caught, as an outer layer does, and nothing unwinds any more afterwards.
    fn panics(work: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(work)).is_err()
    }

    type Body = tollgate::Body<TrappedBody, crate::support::gate::Held>;

    /// The body of a response whose head has been sent.
    fn body(layer: &tollgate::GateLayer<Arc<Recorder>>, trap: &Trap) -> Option<Pin<Box<Body>>> {
        let mut service = layer.layer(Trapped(trap.clone()));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = Box::pin(service.call(get("/")));
        let Poll::Ready(Ok(response)) = future.as_mut().poll(&mut cx) else { panic!("not ready") };
        Some(Box::pin(response.into_body()))
    }

    #[test]
    fn panic_before_the_head_is_remembered() {
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
    fn panic_in_the_body_is_remembered() {
        type Touch = fn(&mut Option<Pin<Box<Body>>>);
        let poll: Touch =
            |body| drop(body.as_mut().unwrap().as_mut().poll_frame(&mut Context::from_waker(Waker::noop())));
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
        let layer = CircuitBreakerLayer::new(Trip::consecutive(1));
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
}
