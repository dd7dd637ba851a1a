//! Reservations that an inner service makes in `poll_ready`. A call that does not reach the service must release them.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use crate::support::gate::{Recorder, Strict, get};
use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::Semaphore;
use tollgate::{
    CircuitBreakerLayer, FakeClock, OnUnidentified, Period, Plan, Quota, QuotaLayer, Rate, Refusal, TokenBucketLayer,
    Trip, Unverified,
};
use tower::{
    BoxError, Layer, Service, ServiceExt,
    buffer::Buffer,
    limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer},
    service_fn,
    util::BoxCloneService,
};

type Inner = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, BoxError>;
type Gated = BoxCloneService<Request<Full<Bytes>>, Response<()>, BoxError>;

/// A service behind any gate; its response has a body of type `B`.
trait Gates<B>: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError> {}
impl<B, S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = BoxError>> Gates<B> for S {}

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
    Ok(Response::new(Full::from("hello")))
}

fn is_ready<S: Service<Request<Full<Bytes>>>>(service: &mut S) -> bool {
    matches!(service.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(())))
}

/// Services with room for one request, reserved in `poll_ready`. All clones share the room.
fn inners() -> Vec<(&'static str, Inner)> {
    vec![
        ("global concurrency limit", GlobalConcurrencyLimitLayer::new(1).layer(service_fn(hello)).boxed_clone()),
        ("concurrency limit", ConcurrencyLimitLayer::new(1).layer(service_fn(hello)).boxed_clone()),
        ("buffer", Buffer::new(service_fn(hello), 1).boxed_clone()),
    ]
}

/// A policy that admits while the service is polled, and a switch that makes it refuse afterwards.
struct Policy {
    name: &'static str,
    layer: Box<dyn Fn(Inner) -> Gated>,
    refuse: Box<dyn Fn()>,
}

impl Policy {
    fn new<L, B>(name: &'static str, layer: L, refuse: impl Fn() + 'static) -> Self
    where
        L: Layer<Inner, Service: Gates<B, Future: Send> + Clone + Send + 'static> + 'static,
    {
        let gated = move |inner| layer.layer(inner).map_response(|answer| answer.map(drop)).boxed_clone();
        Self { name, layer: Box::new(gated), refuse: Box::new(refuse) }
    }

    /// Returns each policy with a state of its own.
    fn all() -> Vec<Self> {
        let bucket = TokenBucketLayer::new(Rate::per_hour(1)).on_unidentified(OnUnidentified::Share);
        let plan = Plan::new("one").limit(Quota::requests(1).per(Period::hour()));
        let quota =
            QuotaLayer::new(plan).identify_by(Unverified::header("x-user")).accept_unverified().clock(FakeClock::new());
        let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
        let ((bucket_too, quota_too), circuit) = ((bucket.clone(), quota.clone()), breaker.handle());
        let ((now, refuses_now, _), (later, refuses_later, _)) = (Recorder::layer(), Recorder::later());
        vec![
            Self::new("bucket", bucket, move || spend_one(&bucket_too)),
            Self::new("quota", quota, move || spend_one(&quota_too)),
            Self::new("breaker", breaker, move || circuit.force_open()),
            Self::new("policy", now, move || refuses_now.refuse.store(true, Ordering::SeqCst)),
            Self::new("pending decision", later, move || refuses_later.refuse.store(true, Ordering::SeqCst)),
        ]
    }
}

fn ask() -> Request<Full<Bytes>> {
    let mut request = get("/");
    request.headers_mut().insert("x-user", "alice".parse().unwrap());
    request
}

/// Sends the one request that the layer admits.
fn spend_one<B>(layer: &impl Layer<Inner, Service: Gates<B>>) {
    let answer = layer.layer(service_fn(hello).boxed_clone()).oneshot(ask()).now_or_never();
    assert_eq!(answer.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn refused_call_releases_what_the_service_reserved() {
    for n in 0..Policy::all().len() {
        for (room, inner) in inners() {
            let Policy { name, layer, refuse } = Policy::all().swap_remove(n);
            let (mut gate, mut other) = (layer(inner.clone()), inner);
            assert!(is_ready(&mut gate), "{name}, {room}");
            assert!(!is_ready(&mut other), "{name}, {room}: the gate's service has reserved the only slot");
            refuse();
            let answer = gate.call(ask()).await.unwrap();
            assert!(answer.status().is_client_error() || answer.status().is_server_error(), "{name}, {room}");
            assert!(is_ready(&mut other), "{name}, {room}: the gate still holds the slot");
            drop(other);
            assert!(is_ready(&mut gate), "{name}, {room}: the clone can be polled ready");
        }
    }
}

/// Returns a service with one slot, and the semaphore that counts it.
fn one_slot() -> (GlobalConcurrencyLimitLayer, Arc<Semaphore>) {
    let slots = Arc::new(Semaphore::new(1));
    (GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&slots)), slots)
}

#[tokio::test]
async fn reservation_is_released_before_the_answer_is_made() {
    for (layer, recorder, _) in [Recorder::layer(), Recorder::later()] {
        let (limit, slots) = one_slot();
        let free = Arc::clone(&slots);
        let layer = layer.refuse_with(move |_: &Refusal| Response::new(free.available_permits().to_string()));
        recorder.refuse.store(true, Ordering::SeqCst);
        let mut gate = layer.layer(limit.layer(service_fn(hello)));
        assert!(is_ready(&mut gate));
        assert_eq!(slots.available_permits(), 0);
        let answer = gate.call(get("/")).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "1");
    }
}

#[test]
fn future_dropped_while_deciding_releases_the_reservation() {
    let (layer, _, _ends) = Recorder::later();
    let (limit, slots) = one_slot();
    let mut gate = layer.layer(limit.layer(service_fn(hello)));
    assert!(is_ready(&mut gate));
    let mut future = Box::pin(gate.call(get("/")));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert_eq!(slots.available_permits(), 0, "the call will need it");
    drop(future);
    assert_eq!(slots.available_permits(), 1);
}

#[test]
fn shut_policy_releases_a_place_in_the_queue() {
    let (layer, recorder, _) = Recorder::layer();
    let (limit, slots) = one_slot();
    let mut gate = layer.layer(limit.layer(service_fn(hello)));
    let taken = Arc::clone(&slots).try_acquire_owned().unwrap();
    assert!(!is_ready(&mut gate), "it queues for the slot");
    recorder.shut.store(true, Ordering::SeqCst);
    recorder.refuse.store(true, Ordering::SeqCst);
    assert!(is_ready(&mut gate));
    let refused = gate.call(get("/")).now_or_never().unwrap().unwrap();
    assert_eq!(refused.status(), 503);
    drop(taken);
    assert_eq!(slots.available_permits(), 1, "the slot went to the abandoned place in the queue");
}

#[test]
fn panic_of_the_policy_leaves_the_service_ready() {
    let layer =
        TokenBucketLayer::new(Rate::per_hour(9)).on_unidentified(OnUnidentified::Share).cost(|_| panic!("in the cost"));
    let (limit, slots) = one_slot();
    let mut gate = layer.exempt(|request| request.uri.path() == "/free").layer(limit.layer(service_fn(hello)));
    assert!(is_ready(&mut gate));
    let call = std::panic::AssertUnwindSafe(|| drop(gate.call(get("/"))));
    assert!(std::panic::catch_unwind(call).is_err());
    assert_eq!(slots.available_permits(), 0, "the gate was polled ready and has called nothing");
    let answer = gate.call(get("/free")).now_or_never().unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), slots.available_permits()), (200, 1));
}

/// Counts its clones. A clone is ready only after it is polled.
struct Counted {
    service: Strict,
    clones: Arc<AtomicUsize>,
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::SeqCst);
        Self { service: self.service.clone(), clones: Arc::clone(&self.clones) }
    }
}

impl Service<Request<Full<Bytes>>> for Counted {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        self.service.call(request)
    }
}

#[tokio::test]
async fn only_a_refused_call_clones_and_its_clone_is_not_ready() {
    let (layer, recorder, _ends) = Recorder::layer();
    let clones = Arc::new(AtomicUsize::new(0));
    let mut gate = layer.layer(Counted { service: Strict::default(), clones: Arc::clone(&clones) });
    for _ in 0..3 {
        assert_eq!(gate.ready().await.unwrap().call(get("/")).await.unwrap().status(), 200);
    }
    assert_eq!(clones.load(Ordering::SeqCst), 0, "an admitted call clones nothing");

    recorder.refuse.store(true, Ordering::SeqCst);
    assert_eq!(gate.ready().await.unwrap().call(get("/")).await.unwrap().status(), 503);
    assert_eq!(clones.load(Ordering::SeqCst), 1);
    assert_eq!(gate.call(get("/")).await.unwrap().status(), 503);
    assert_eq!(clones.load(Ordering::SeqCst), 1, "the service was not polled, so it holds nothing");

    recorder.refuse.store(false, Ordering::SeqCst);
    // `Strict` panics if the clone is called without being polled.
    assert_eq!(gate.call(get("/")).await.unwrap().status(), 200);
}
