//! Allocations of a request through a token bucket and a circuit breaker.

use std::{
    convert::Infallible,
    net::SocketAddr,
    task::{Context, Waker},
};

use crate::{answer, support::gate::now};
use http::{Request, Response};
use tollgate::{
    CircuitBreakerLayer, Dialect, Gates, PeerIp, Period, Plan, Quota, QuotaLayer, Rate, TokenBucketLayer, Trip,
};
use tower::{Layer, Service, ServiceBuilder, service_fn};

/// Returns the allocations of one request of a known client, with `further` hourly rates, beyond those without layers. They
/// are the same for nested layers and for one gate.
fn over_bare(dialect: Dialect, further: u64) -> u64 {
    let [nested, one] = [false, true].map(|one| over_bare_in(dialect, further, one));
    assert_eq!(nested, one);
    one
}

fn over_bare_in(dialect: Dialect, further: u64, one_gate: bool) -> u64 {
    let request = || Request::get("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap();
    let limit = TokenBucketLayer::new(Rate::per_second(1_000).burst(1_000_000)).rate_limit_headers(dialect);
    let limit = (1..=further).fold(limit, |limit, number| limit.and_rate(Rate::per_hour(1_000 * number)));
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::failure_rate(0.5).or(Trip::consecutive(5)));
    if one_gate {
        return measured(Gates::new((limit, breaker)).layer(service_fn(answer)), request);
    }
    measured(ServiceBuilder::new().layer(limit).layer(breaker).service(service_fn(answer)), request)
}

/// Returns the allocations of one request through a service beyond those of the bare one.
fn measured<S, B>(mut guarded: S, request: impl Fn() -> Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let mut bare = service_fn(answer);
    let mut cx = Context::from_waker(Waker::noop());
    let mut through = || {
        assert!(guarded.poll_ready(&mut cx).is_ready());
        drop(now(guarded.call(request())));
    };
    through(); // the client is known from now on
    let with = allocation_counter::measure(through).count_total;
    let without = allocation_counter::measure(|| drop(now(bare.call(request())))).count_total;
    with - without
}

#[test]
fn admitted_request_of_known_client_allocates_nothing() {
    assert_eq!(over_bare(Dialect::None, 0), 0);
}

#[test]
fn request_with_rate_limit_fields_allocates_once() {
    assert_eq!(over_bare(Dialect::Draft11, 0), 1);
}

#[test]
fn further_rates_add_no_allocation() {
    for further in 1..4 {
        assert_eq!((over_bare(Dialect::None, further), over_bare(Dialect::Draft11, further)), (0, 1));
    }
}

#[test]
fn bucket_quota_and_breaker_in_one_gate_allocate_nothing() {
    let plan = Plan::new("free").limit(Quota::requests(1_000).per(Period::hour())).limit(Quota::concurrent(5));
    let layers = (
        TokenBucketLayer::new(Rate::per_second(1_000)).rate_limit_headers(Dialect::None),
        QuotaLayer::new(plan).rate_limit_headers(Dialect::None),
        CircuitBreakerLayer::for_server(),
    );
    let gates = Gates::new(layers).identify_by(PeerIp::new());
    let request = || Request::get("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap();
    assert_eq!(measured(gates.layer(service_fn(answer)), request), 0);
}
