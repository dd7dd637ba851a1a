//! Setters of a layer that is in use, and separate layers with the same settings.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{
    Admit, CircuitBreakerLayer, Client, Cost, FakeClock, GateLayer, MaybeFuture, Period, Plan, Quota, QuotaLayer, Rate,
    Refusal, RequestHead, TokenBucketLayer, Trip, Unverified,
};
use tower::{Layer, service_fn};

use crate::callers::panic_of;

async fn hello(_: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::default()))
}

fn plan() -> Plan {
    Plan::new("free").limit(Quota::requests(1).per(Period::hour()))
}

macro_rules! assert_in_use {
    ($($setter:expr),+ $(,)?) => {$(
        let (text, line) = panic_of(file!(), || drop($setter));
        assert_eq!(text, "layer \"api\" is in use, it was built or has a handle or a service; call setters before, or .fork() for a separate layer");
        assert_ne!(line, 0, "the panic is where the setter is called: {}", stringify!($setter));
    )+};
}

struct AdmitAll;

impl Admit for AdmitAll {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::Ready(Ok(()))
    }
}

#[test]
fn setter_of_a_layer_in_use_panics_at_its_caller() {
    let buckets = TokenBucketLayer::new(Rate::per_second(5)).named("api");
    let _handle = buckets.handle();
    assert_in_use!(
        buckets.clone().rate_for("pro", Rate::per_second(9)),
        buckets.clone().and_global(Rate::per_second(9)),
        buckets.clone().max_clients(7),
        buckets.clone().clock(FakeClock::new()),
        buckets.clone().named("other"),
        buckets.clone().enabled(false),
        buckets.clone().shadow(),
    );
    let quota = QuotaLayer::new(plan()).named("api");
    let _service = quota.clone().layer(service_fn(hello)); // a clone is the same layer
    assert_in_use!(
        quota.clone().tier_plan("pro", plan()),
        quota.clone().share_with_handler(),
        quota.clone().named("b")
    );
    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(3)).named("api");
    let _handle = breaker.handle();
    assert_in_use!(
        breaker.clone().clock(FakeClock::new()),
        breaker.clone().per_host(),
        breaker.clone().trip(Trip::consecutive(2)),
    );
    let built = TokenBucketLayer::new(Rate::per_second(5)).named("api").try_build().unwrap();
    assert_in_use!(built.clone().shadow(), built.clone().max_clients(7));
    let own = GateLayer::new(AdmitAll).named("api");
    let _service = own.layer(service_fn(hello));
    assert_in_use!(own.clone().exempt(|_| true), own.clone().observe(|_: &tollgate::Event<'_>| {}));
}

#[tokio::test]
async fn fork_has_the_settings_and_a_state_of_its_own() {
    let client = Client::named("alice");
    let buckets = TokenBucketLayer::new(Rate::per_hour(1)).clock(FakeClock::new());
    buckets.handle().check(&client, Cost::ONE).unwrap();
    let fork = buckets.fork().named("fork");
    fork.handle().check(&client, Cost::ONE).unwrap();
    assert_eq!((buckets.handle().peek(&client).remaining, fork.handle().peek(&client).remaining), (0, 0));

    let quota = QuotaLayer::new(plan()).clock(FakeClock::new());
    quota.handle().charge(&client, ("requests", 1)).await.unwrap();
    let pro = quota.fork().tier_plan("pro", plan());
    pro.handle().charge(&client, ("requests", 1)).await.unwrap();

    let breaker = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    breaker.handle().force_open();
    assert_eq!(breaker.fork().handle().counts().calls, 0);
    assert_ne!(breaker.fork().handle().state(), breaker.handle().state());
}

/// Settings from a file may not suit each other. A router that wraps the layer would panic.
#[test]
fn settings_that_do_not_suit_are_an_error_when_built() {
    let daily = || Plan::new("free").limit(Quota::requests(9).per(Period::day()));
    let quota = QuotaLayer::new(daily()).identify_by(Unverified::header("x-user"));
    let unknown = QuotaLayer::new(daily()).cost("tokens", |_| Some(1));
    let breaker = CircuitBreakerLayer::for_server().max_open(Duration::from_secs(1));
    for (error, part) in [
        (quota.clone().try_build().unwrap_err(), "call .accept_unverified()"),
        (unknown.clone().try_build().unwrap_err(), "got \"tokens\""),
        (breaker.clone().try_build().unwrap_err(), "max_open must be at least the recovery timeout of 10s, got 1s"),
    ] {
        assert!(error.reason().contains(part), "{error}");
    }
    for refused in
        [panic_of(file!(), || drop(quota.handle())), panic_of(file!(), || drop(unknown.layer(service_fn(hello))))]
    {
        assert_ne!(refused.1, 0, "a panic where the layer is used: {}", refused.0);
    }
    // A layer that did not build is not in use.
    let _ = quota.accept_unverified().try_build().unwrap().layer(service_fn(hello));
    let breaker = breaker.recovery_timeout(Duration::from_secs(1)).try_build().unwrap();
    let (again, clone) = (breaker.clone().try_build().unwrap(), breaker.clone());
    again.handle().force_open();
    assert_eq!(clone.handle().state(), breaker.handle().state(), "it is built once");
    let _ = GateLayer::new(AdmitAll).try_build().unwrap().layer(service_fn(hello));
}
