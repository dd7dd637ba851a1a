//! Allocations of a request through a token bucket and a circuit breaker.

use std::{
    net::SocketAddr,
    task::{Context, Waker},
};

use crate::{answer, support::gate::now};
use http::Request;
use tollgate::{CircuitBreakerLayer, Dialect, Rate, TokenBucketLayer, Trip};
use tower::{Service, ServiceBuilder, service_fn};

/// Returns the allocations of one request of a known client, with `further` hourly rates, beyond those without layers.
fn over_bare(dialect: Dialect, further: u64) -> u64 {
    let request = || Request::get("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap();
    let limit = TokenBucketLayer::new(Rate::per_second(1_000).burst(1_000_000)).rate_limit_headers(dialect);
    let limit = (1..=further).fold(limit, |limit, number| limit.and_rate(Rate::per_hour(1_000 * number)));
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::failure_rate(0.5).or(Trip::consecutive(5)));
    let mut guarded = ServiceBuilder::new().layer(limit).layer(breaker).service(service_fn(answer));
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
