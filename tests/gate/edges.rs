//! Edges of the gate: readiness, layers that only watch, observers that panic.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{Client, Digester, Event, Period, Plan, Quota, QuotaLayer, RequestHead};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{
    hello,
    support::gate::{Log, NeverReady, Recorder, get},
};

#[test]
fn shadow_or_disabled_layer_forwards_readiness() {
    let (layer, recorder, _) = Recorder::layer();
    recorder.shut.store(true, Ordering::SeqCst);
    for layer in [layer.clone().shadow(), layer.enabled(false)] {
        let mut service = layer.layer(NeverReady);
        let ready = Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
        assert!(ready.is_pending(), "a load-shedding outer layer would see no load");
    }
}

#[tokio::test]
async fn panicking_observer_does_not_silence_the_others() {
    let (layer, _, _ends) = Recorder::layer();
    let log = Log::default();
    let heard = log.clone();
    let layer =
        layer.observe(|_: &Event<'_>| panic!("the first is broken")).observe(move |_: &Event<'_>| heard.push("second"));
    layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(log.lines(), ["second"]);
}

/// Ready once, then pending at each later poll.
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
fn shut_policy_does_not_poll_a_ready_service_again() {
    let (layer, recorder, _) = Recorder::layer();
    let mut service = layer.layer(ReadyOnce(true));
    let mut ready =
        || Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(ready().is_ready());
    recorder.shut.store(true, Ordering::SeqCst);
    assert!(ready().is_ready(), "a balancer over several services polls each of them more than once");

    recorder.shut.store(false, Ordering::SeqCst);
    assert!(ready().is_pending(), "it has died since");
    recorder.shut.store(true, Ordering::SeqCst);
    assert!(ready().is_ready());
    let mut probe = std::pin::pin!(service.call(get("/")));
    assert!(probe.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "a probe asks it anew");
}

/// Fails at its first poll, and is ready at each later one.
#[derive(Clone)]
struct FailsOnce(bool);

impl Service<Request<Full<Bytes>>> for FailsOnce {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = std::future::Ready<Result<Self::Response, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(if std::mem::replace(&mut self.0, true) { Ok(()) } else { Err("no connection") })
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        panic!("called without a permit")
    }
}

#[test]
fn poll_after_a_failed_readiness_calls_no_service() {
    for (layer, _, mut ends) in [Recorder::layer(), Recorder::later()] {
        let mut context = Context::from_waker(Waker::noop());
        let mut future = Box::pin(layer.layer(FailsOnce(false)).call(get("/")));
        let failed = std::iter::repeat_with(|| future.as_mut().poll(&mut context)).find_map(|polled| match polled {
            Poll::Ready(answer) => answer.err(),
            Poll::Pending => None,
        });
        assert_eq!((failed, ends.now().as_deref()), (Some("no connection"), Some("failed")));
        let again = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context).is_ready()));
        assert_eq!(again.unwrap_err().downcast_ref::<String>().unwrap(), "polled after completion");
        drop(future);
        assert_eq!(ends.now(), None, "settled once");
    }
}

/// Panics on clone once the switch is set, like a service behind a poisoned lock.
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
fn panic_in_clone_settles_the_permit() {
    let (layer, recorder, mut ends) = Recorder::layer();
    let broken = Arc::new(AtomicBool::new(false));
    let mut service = layer.layer(Brittle(Arc::clone(&broken)));
    broken.store(true, Ordering::SeqCst);
    let call = std::panic::AssertUnwindSafe(|| drop(service.call(get("/"))));
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(recorder.held(), 0);
    assert_eq!(ends.now().as_deref(), Some("panicked"));
}

#[tokio::test]
async fn refusal_of_an_outbound_quota_handle_is_marked() {
    for outbound in [true, false] {
        let layer = QuotaLayer::new(Plan::new("calls").limit(Quota::requests(1).per(Period::day())));
        let quotas = if outbound { layer.outbound() } else { layer }.handle();
        let alice = Client::named("alice");
        let refusal = quotas.check(&alice, ("requests", 2)).await.unwrap_err();
        assert_eq!(refusal.is_outbound(), outbound);
    }
}

#[tokio::test]
async fn client_identified_without_a_tier_has_none_from_then_on() {
    let plan = |calls| Plan::new("calls").limit(Quota::requests(calls).per(Period::day()));
    let layer = QuotaLayer::new(plan(1)).tier_plan("pro", plan(9)).accept_unverified();
    let layer = layer.identify_by(|_: &RequestHead<'_>, _: &Digester| Some(Client::named("alice")));
    let quotas = layer.handle();
    let limit = async || quotas.usage(&Client::named("alice")).await.unwrap().limits[0].limit;
    quotas.charge(&Client::named("alice").with_tier("pro"), ("requests", 1)).await.unwrap();
    assert_eq!(limit().await, 9, "the tier under which it was charged last");
    layer.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(limit().await, 1);
}
