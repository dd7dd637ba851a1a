//! Members whose code takes time: the time of a call is the same as behind nested gates.

use std::{convert::Infallible, future::pending, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tollgate::{
    CircuitBreakerLayer, CircuitState, Cost, Digester, FakeClock, Gates, Identify, OnUnidentified, Period, Plan, Quota,
    QuotaLayer, Rate, RequestHead, TokenBucketLayer, Trip,
};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneService};

use crate::support::gate::{get, now};

type Stack = BoxCloneService<Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>;

const SECOND: Duration = Duration::from_secs(1);

fn bucket(clock: &FakeClock) -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_hour(5)).clock(clock.clone())
}

/// Identifies all requests as one client, and runs `meanwhile`.
fn slow(meanwhile: impl Fn() + Send + Sync + 'static) -> impl Identify {
    move |_: &RequestHead<'_>, digester: &Digester| {
        meanwhile();
        Some(digester.named("alice"))
    }
}

/// Puts a bucket in front of a breaker: nested, or in one gate.
fn stack<S>(one_gate: bool, bucket: TokenBucketLayer, breaker: &CircuitBreakerLayer, inner: S) -> Stack
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    fn plain<B: http_body::Body<Data = Bytes>>(response: Response<B>) -> Response<Full<Bytes>> {
        response.map(|_| Full::default())
    }
    match one_gate {
        true => BoxCloneService::new(Gates::new((bucket, breaker.clone())).layer(inner).map_response(plain)),
        false => BoxCloneService::new((bucket, breaker.clone()).layer(inner).map_response(plain)),
    }
}

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

async fn fails(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, &'static str> {
    Err("broken")
}

#[test]
fn call_of_a_breaker_begins_after_the_members_outside() {
    for one_gate in [false, true] {
        let clock = FakeClock::new();
        let trip = Trip::slow_rate(0.5).slow_after(5 * SECOND).min_requests(1).over_calls(4);
        let breaker = CircuitBreakerLayer::for_client(5 * SECOND).clock(clock.clone()).trip(trip);
        let identity = {
            let clock = clock.clone();
            slow(move || clock.advance(10 * SECOND))
        };
        let bucket = bucket(&clock).identify_by(identity);
        assert_eq!(now(stack(one_gate, bucket, &breaker, service_fn(hello)).oneshot(get("/"))).unwrap().status(), 200);
        assert_eq!((breaker.handle().counts().slow, breaker.handle().state()), (0, CircuitState::Closed), "{one_gate}");
    }
}

#[test]
fn circuit_that_opens_meanwhile_stays_open_for_its_time() {
    for one_gate in [false, true] {
        let clock = FakeClock::new();
        let breaker = CircuitBreakerLayer::for_server().clock(clock.clone()).trip(Trip::consecutive(1));
        let breaker = breaker.recovery_timeout(10 * SECOND);
        let identity = {
            let (clock, failing) = (clock.clone(), breaker.layer(service_fn(fails)));
            slow(move || {
                clock.advance(10 * SECOND);
                assert!(now(failing.clone().oneshot(get("/"))).is_err());
            })
        };
        let refused = stack(one_gate, bucket(&clock).identify_by(identity), &breaker, service_fn(hello));
        assert_eq!(now(refused.oneshot(get("/"))).unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
        clock.advance(4 * SECOND); // the open time is drawn from half of the 10 s upward
        assert_eq!(breaker.handle().state(), CircuitState::Open, "{one_gate}");
    }
}

#[test]
fn slot_of_a_probe_is_not_aged_by_the_members_outside() {
    for one_gate in [false, true] {
        let clock = FakeClock::new();
        let breaker = CircuitBreakerLayer::for_server().clock(clock.clone()).trip(Trip::consecutive(1));
        assert!(now(breaker.layer(service_fn(fails)).oneshot(get("/"))).is_err());
        while breaker.handle().state() == CircuitState::Open {
            clock.advance(SECOND);
        }
        let identity = {
            let clock = clock.clone();
            slow(move || clock.advance(100 * SECOND))
        };
        let hangs = service_fn(|_: Request<Full<Bytes>>| pending());
        let mut service = stack(one_gate, bucket(&clock).identify_by(identity), &breaker, hangs);
        now(service.ready()).unwrap();
        let probe = service.call(get("/"));
        let second = now(breaker.layer(service_fn(hello)).oneshot(get("/"))).unwrap();
        assert_eq!(second.status(), StatusCode::SERVICE_UNAVAILABLE, "the probe has the only slot: {one_gate}");
        drop(probe);
    }
}

#[test]
fn quota_decides_at_the_time_of_the_bucket_outside() {
    let clock = FakeClock::new();
    let later = clock.clone();
    let cost = move |_: &RequestHead<'_>| {
        later.advance(3_600 * SECOND);
        Cost::ONE
    };
    let plan = Plan::new("free").limit(Quota::requests(1).per(Period::hour()));
    let quota = QuotaLayer::new(plan).accept_unverified().on_unidentified(OnUnidentified::Share).clock(clock.clone());
    let anonymous = quota.handle().anonymous();
    now(quota.handle().record(&anonymous, ("requests", 1))).unwrap();
    let bucket = bucket(&clock).on_unidentified(OnUnidentified::Share).cost(cost);
    let service = Gates::new((bucket, quota)).layer(service_fn(hello));
    assert_eq!(now(service.oneshot(get("/"))).unwrap().status(), 429, "the wall of its moment, too");
}
