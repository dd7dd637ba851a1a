//! A call through a closed circuit allocates nothing.

use std::{convert::Infallible, future::Future, pin::pin, task::Context, task::Poll, task::Waker, time::Duration};

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tollgate::{CircuitBreakerLayer, Trip};
use tower::{Layer, Service, service_fn};

async fn hello(_: Request<Empty<Bytes>>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(Response::new(Empty::new()))
}

async fn broken(_: Request<Empty<Bytes>>) -> Result<Response<Empty<Bytes>>, &'static str> {
    Err("connection refused")
}

fn call<S: Service<Request<Empty<Bytes>>>>(service: &mut S) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut context).is_ready());
    let future = service.call(Request::new(Empty::new()));
    assert!(matches!(pin!(future).poll(&mut context), Poll::Ready(_)));
}

fn trips() -> [Trip; 2] {
    let trip = Trip::failure_rate(1.0).or(Trip::slow_rate(1.0)).min_requests(100);
    [trip.over_calls(100), trip.over_time(Duration::from_millis(1))]
}

#[test]
fn call_through_a_closed_circuit_allocates_nothing() {
    for trip in trips() {
        let mut service = CircuitBreakerLayer::for_server().trip(trip).layer(service_fn(hello));
        call(&mut service);
        let seen = measure(|| (0..10_000).for_each(|_| call(&mut service)));
        assert_eq!(seen.count_total, 0);
    }
}

#[test]
fn failed_call_allocates_nothing() {
    for trip in trips() {
        let layer = CircuitBreakerLayer::for_server().trip(trip);
        layer.handle().force_closed();
        let mut service = layer.layer(service_fn(broken));
        call(&mut service);
        let seen = measure(|| (0..10_000).for_each(|_| call(&mut service)));
        assert_eq!(seen.count_total, 0);
        assert!(layer.handle().counts().failures > 0);
    }
}

#[test]
fn guarded_call_allocates_nothing() {
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(3)).handle();
    let run = || {
        let future = pin!(breaker.call(async { Ok::<_, ()>(7) }));
        assert!(future.poll(&mut Context::from_waker(Waker::noop())).is_ready());
    };
    run();
    assert_eq!(measure(|| (0..1_000).for_each(|_| run())).count_total, 0);
}
