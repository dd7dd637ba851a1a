//! Allocations of a known client's request through a quota, and through all three layers.

use std::{
    convert::Infallible,
    net::SocketAddr,
    task::{Context, Waker},
};

use crate::{answer, support::gate::now};
use http::{HeaderValue, Request, Response, header::CONTENT_LENGTH};
use tollgate::{CircuitBreakerLayer, Client, Dialect, Period, Plan, Quota, QuotaLayer, Rate, TokenBucketLayer, Trip};
use tower::{Service, ServiceBuilder, service_fn};

/// Four limits: an hour, a day, bytes, and concurrency.
fn quota(dialect: Dialect) -> QuotaLayer {
    let plan = Plan::new("four")
        .limit(Quota::requests(1 << 40).per(Period::hour()))
        .limit(Quota::requests(1 << 40).per(Period::day()))
        .limit(Quota::bytes(1 << 40).per(Period::day()))
        .limit(Quota::concurrent(100));
    QuotaLayer::new(plan).rate_limit_headers(dialect)
}

fn request() -> Request<()> {
    Request::post("/").extension(SocketAddr::from(([192, 0, 2, 1], 1))).body(()).unwrap()
}

fn with_length() -> Request<()> {
    let mut request = request();
    request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("4096"));
    request
}

/// Returns the allocations of one request of a known client beyond those without layers.
fn over_bare<S, B>(mut guarded: S, request: fn() -> Request<()>) -> u64
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let mut cx = Context::from_waker(Waker::noop());
    let mut through = || {
        assert!(guarded.poll_ready(&mut cx).is_ready());
        drop(now(guarded.call(request())));
    };
    (0..3).for_each(|_| through()); // the client is known from now on
    let with = allocation_counter::measure(through).count_total;
    let without = allocation_counter::measure(|| drop(now(service_fn(answer).call(request())))).count_total;
    with - without
}

#[test]
fn admitted_request_of_known_client_allocates_nothing() {
    let service = || ServiceBuilder::new().layer(quota(Dialect::None)).service(service_fn(answer));
    assert_eq!(over_bare(service(), request), 0);
    assert_eq!(over_bare(service(), with_length), 0, "nor one that says how long it is");
}

#[test]
fn request_without_a_permit_allocates_nothing() {
    let switches: [fn(QuotaLayer) -> QuotaLayer; 2] = [|layer| layer.enabled(false), |layer| layer.exempt(|_| true)];
    for switch in switches {
        let service = ServiceBuilder::new().layer(switch(quota(Dialect::None))).service(service_fn(answer));
        assert_eq!(over_bare(service, request), 0);
    }
}

#[test]
fn request_through_three_layers_allocates_nothing() {
    let limit = TokenBucketLayer::new(Rate::per_second(1_000).burst(1_000_000)).rate_limit_headers(Dialect::None);
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::failure_rate(0.5).or(Trip::consecutive(5)));
    let service =
        ServiceBuilder::new().layer(limit).layer(quota(Dialect::None)).layer(breaker).service(service_fn(answer));
    assert_eq!(over_bare(service, request), 0);
}

#[test]
fn request_with_rate_limit_fields_allocates_once() {
    let service = ServiceBuilder::new().layer(quota(Dialect::Draft11)).service(service_fn(answer));
    assert_eq!(over_bare(service, request), 1);
}

#[test]
fn charge_by_the_handle_allocates_nothing() {
    let quotas = quota(Dialect::None).handle();
    let alice = tollgate::Client::named("alice");
    let charge = || now(quotas.charge(&alice, ("requests", 1))).unwrap();
    charge();
    assert_eq!(allocation_counter::measure(charge).count_total, 0);
}

#[test]
fn plan_of_one_client_copies_no_other() {
    let plan = |limit| Plan::new("own").limit(Quota::requests(limit).per(Period::hour()));
    let bytes = |clients: usize| {
        let layer = (0..clients).map(|client| Client::named(format!("client {client}")));
        let layer = layer.fold(QuotaLayer::new(plan(1)), |layer, client| layer.client_plan(client, plan(2)));
        let (quotas, client) = (layer.handle(), Client::named("client 0"));
        allocation_counter::measure(|| quotas.set_client_plan(&client, plan(3)).unwrap()).bytes_total
    };
    assert_eq!(bytes(1), bytes(10_000));
}
