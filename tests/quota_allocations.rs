//! How often a request of a known client asks for memory on its way through a quota, counted.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_LENGTH};
use http_body_util::Empty;
use tollgate::{CircuitBreakerLayer, Client, Dialect, Period, Plan, Quota, QuotaLayer, Rate, TokenBucketLayer, Trip};
use tower::{Service, ServiceBuilder, service_fn};

type Body = Empty<bytes::Bytes>;

/// A response that has room for a few more fields, as a framework's has.
fn answer(_: Request<()>) -> Ready<Result<Response<Body>, Infallible>> {
    let mut response = Response::new(Body::new());
    *response.headers_mut() = HeaderMap::with_capacity(8);
    ready(Ok(response))
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("nothing here waits"),
    }
}

fn plan(name: &str) -> Plan {
    Plan::new(name)
        .limit(Quota::requests(1_000_000).per(Period::hour()))
        .limit(Quota::requests(1_000_000).per(Period::day()))
        .limit(Quota::bytes(1 << 40).per(Period::day()))
        .limit(Quota::concurrent(5))
}

fn quota(dialect: Dialect) -> QuotaLayer {
    QuotaLayer::new(plan("four")).fields(dialect)
}

fn request() -> Request<()> {
    Request::post("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap()
}

/// Allocations of one request through a service, over those of the same request without it.
fn over_bare<S>(guarded: S) -> u64
where
    S: Service<Request<()>, Error = Infallible>,
{
    over_bare_of(guarded, request)
}

fn over_bare_of<S>(mut guarded: S, request: fn() -> Request<()>) -> u64
where
    S: Service<Request<()>, Error = Infallible>,
{
    let mut bare = service_fn(answer);
    let mut cx = Context::from_waker(Waker::noop());
    let mut through = || {
        assert!(guarded.poll_ready(&mut cx).is_ready());
        drop(now(guarded.call(request())));
    };
    through(); // the client is known from now on
    let with = allocation_counter::measure(|| (0..100).for_each(|_| through())).count_total;
    let without = allocation_counter::measure(|| (0..100).for_each(|_| drop(now(bare.call(request()))))).count_total;
    with - without
}

#[test]
fn a_request_of_a_known_client_under_four_limits_allocates_nothing() {
    assert_eq!(over_bare(ServiceBuilder::new().layer(quota(Dialect::None)).service(service_fn(answer))), 0);
}

#[test]
fn nor_does_one_that_says_how_long_it_is() {
    let with_length = || {
        let mut request = request();
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("4096"));
        request
    };
    let guarded = ServiceBuilder::new().layer(quota(Dialect::None)).service(service_fn(answer));
    assert_eq!(over_bare_of(guarded, with_length), 0);
}

#[test]
fn nor_does_one_that_also_meets_a_bucket_and_a_breaker() {
    let bucket = TokenBucketLayer::new(Rate::per_second(1_000).burst(1_000_000)).fields(Dialect::None);
    let breaker = CircuitBreakerLayer::new(Trip::consecutive(5));
    let all = ServiceBuilder::new().layer(bucket).layer(quota(Dialect::None)).layer(breaker);
    assert_eq!(over_bare(all.service(service_fn(answer))), 0);
}

#[test]
fn one_that_is_told_of_its_limits_allocates_at_most_twice() {
    let guarded = ServiceBuilder::new().layer(quota(Dialect::Draft11)).service(service_fn(answer));
    assert!(over_bare(guarded) <= 200);
}

#[test]
fn a_charge_by_the_handle_of_a_known_client_allocates_nothing() {
    let quotas = quota(Dialect::None).handle();
    let alice = Client::named("alice");
    let charge = || now(quotas.charge(&alice, ("requests", 1))).unwrap();
    charge();
    assert_eq!(allocation_counter::measure(charge).count_total, 0);
}
