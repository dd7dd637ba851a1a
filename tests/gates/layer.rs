//! Gates as a layer: their settings, their errors, gates within gates, and the clocks of their members.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate::{
    Admit, CircuitBreakerLayer, Client, Cost, FakeClock, GateLayer, Gates, MaybeFuture, OnUnidentified, PeerIp, Period,
    Plan, Quota, QuotaLayer, Rate, Refusal, RequestHead, TokenBucketLayer, Unverified, refusal,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::gate::{Log, Recorder, get, now, yield_times};

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(Response::new(Full::from("hello")))
}

fn bucket(burst: u64) -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_hour(burst)).on_unidentified(OnUnidentified::Share).clock(FakeClock::new())
}

/// Returns what a call panics with.
fn panic_of<T>(call: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| drop(call()))).unwrap_err();
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn identity_for_a_member_in_use_panics() {
    let layer = bucket(5).named("api");
    let _handle = layer.handle();
    let gates = Gates::new((layer, CircuitBreakerLayer::for_server()));
    assert_eq!(
        panic_of(|| gates.identify_by(PeerIp::new())),
        "layer \"api\" is in use, it was built or has a handle or a service; call identify_by of its gates before, or .fork() \
         for a separate layer"
    );
}

#[test]
fn identity_of_other_gates_panics() {
    let layer = bucket(5).named("api");
    let _first = Gates::new((layer.clone(), CircuitBreakerLayer::for_server())).identify_by(PeerIp::new());
    let second = Gates::new((layer, CircuitBreakerLayer::for_server()));
    assert_eq!(
        panic_of(|| second.identify_by(PeerIp::new())),
        "layer \"api\" has the identity of other gates; call .fork() for a separate layer"
    );
}

#[test]
fn identity_that_no_member_uses_is_an_error() {
    let own = bucket(5).identify_by(PeerIp::new());
    let gates = Gates::new((own, CircuitBreakerLayer::for_server())).identify_by(PeerIp::new());
    let text = "the identity of gates is used by no member, because each has an identity of its own or needs none; remove \
                .identify_by(..) of the gates";
    assert_eq!(gates.clone().try_build().unwrap_err().to_string(), text);
    assert_eq!(panic_of(|| gates.layer(service_fn(hello))), text);
    let outer = Gates::new((gates, bucket(3)));
    assert_eq!(outer.try_build().unwrap_err().to_string(), text, "of gates within gates too");
}

#[test]
fn invalid_member_is_an_error() {
    let plan = || Plan::new("paid").limit(Quota::requests(9).per(Period::month()));
    let gates = Gates::new((bucket(5), QuotaLayer::new(plan()))).identify_by(Unverified::header("x-user"));
    let error = gates.try_build().unwrap_err().to_string();
    assert!(error.starts_with("plan \"paid\" has the limit \"requests_per_month\" of a day or longer"), "{error}");
    let gates = Gates::new((bucket(5), QuotaLayer::new(plan()))).identify_by(PeerIp::new());
    assert!(gates.try_build().is_ok(), "the identity of the gates suits the plan");
}

#[tokio::test]
async fn members_keep_their_responders() {
    let plain = bucket(2).refuse_with(refusal::text);
    let gates = Gates::new((plain, bucket(1)));
    let service = gates.layer(service_fn(hello));
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let answer = service.clone().oneshot(get("/")).await.unwrap();
        kinds.push(answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned()));
    }
    let expected = [None, Some("application/problem+json"), Some("text/plain; charset=utf-8")];
    assert_eq!(kinds, expected.map(|kind| kind.map(String::from)));
}

#[tokio::test]
async fn gates_within_gates_are_members_in_place() {
    let (one, _, mut one_ends) = Recorder::layer();
    let (two, _, mut two_ends) = Recorder::layer();
    let (three, recorder, _) = Recorder::layer();
    let inner = Gates::new((two, three));
    let gates = Gates::new((one, inner, bucket(5)));
    recorder.refuse.store(true, std::sync::atomic::Ordering::SeqCst);
    let answer = gates.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(one_ends.now().as_deref(), Some("refused further in"));
    assert_eq!(two_ends.now().as_deref(), Some("refused further in"));
    assert_eq!(gates.layers().2.handle().peek(&Client::named("x")).remaining, 5, "it was not asked");
}

#[tokio::test]
async fn gates_in_a_stack_and_in_an_axum_router() {
    let log = Log::default();
    let seen = log.clone();
    let layer = bucket(3).observe(move |event: &tollgate::Event<'_>| seen.push(format!("{event:?}")));
    let gates = Gates::new((layer, CircuitBreakerLayer::for_server()));
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "hello" }));
    let app = app.layer(ServiceBuilder::new().layer(gates.clone()));
    for expected in [200, 200, 200, 429] {
        let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
        let answer = app.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.status(), expected);
        if expected == 200 {
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
        }
    }
    assert_eq!(log.lines().len(), 5, "an unidentified client, and each decision");
}

/// Pending until the clock was advanced.
struct Slow(FakeClock);

impl Admit for Slow {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        let clock = self.0.clone();
        MaybeFuture::future(async move {
            yield_times(1).await;
            clock.advance(Duration::from_secs(3_600));
            Ok(())
        })
    }
}

#[tokio::test]
async fn clock_is_read_anew_after_a_wait() {
    let clock = FakeClock::new();
    let [outer, inner] = [1, 1].map(|burst| bucket(burst).clock(clock.clone()));
    inner.handle().check(&anonymous(), Cost::ONE).unwrap(); // empty until an hour has passed
    let gates = Gates::new((outer, GateLayer::new(Slow(clock)), inner));
    assert_eq!(gates.layer(service_fn(hello)).oneshot(get("/")).await.unwrap().status(), 200);
}

#[test]
fn members_decide_at_one_time() {
    let clock = FakeClock::new();
    let [outer, inner] = [1, 1].map(|burst| bucket(burst).clock(clock.clone()));
    inner.handle().check(&anonymous(), Cost::ONE).unwrap();
    let later = clock.clone();
    let slow = inner.fork().cost(move |_| {
        later.advance(Duration::from_secs(3_600));
        Cost::ONE
    });
    slow.handle().check(&anonymous(), Cost::ONE).unwrap();
    let status = |gates: Response<_>| gates.status().as_u16();
    let one = Gates::new((outer.fork(), slow.clone())).layer(service_fn(hello));
    assert_eq!(now(async { status(one.oneshot(get("/")).await.unwrap()) }), 429, "at the time of the first");
    let apart = Gates::new((outer.fork().clock(FakeClock::new()), slow)).layer(service_fn(hello));
    assert_eq!(now(async { status(apart.oneshot(get("/")).await.unwrap()) }), 200, "by another clock");
}

/// The client that all requests without an identity share.
fn anonymous() -> Client {
    QuotaLayer::new(Plan::standard()).accept_unverified().handle().anonymous()
}
