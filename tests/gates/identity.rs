//! The identity of gates: asked once, for all members that have none of their own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tollgate::{
    Admit, Client, Digester, Event, FakeClock, Forwarded, GateLayer, Gates, Identify, MaybeFuture, PeerIp, Period,
    Plan, Quota, QuotaLayer, Rate, Refusal, RequestHead, TokenBucketLayer,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::gate::{Log, get, now, yield_times};

async fn hello(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    Ok(Response::new(Full::from("hello")))
}

fn bucket(burst: u64) -> TokenBucketLayer {
    TokenBucketLayer::new(Rate::per_hour(burst)).clock(FakeClock::new())
}

fn quota() -> QuotaLayer {
    let plan = Plan::new("free").limit(Quota::requests(9).per(Period::hour()));
    QuotaLayer::new(plan).accept_unverified().clock(FakeClock::new())
}

/// Identifies each request as `name`, and counts how often it does.
fn counted(name: &'static str) -> (impl Identify, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let identify = move |_: &RequestHead<'_>, digester: &Digester| {
        count.fetch_add(1, Ordering::Relaxed);
        Some(digester.named(name))
    };
    (identify, asked)
}

/// Admits each request at the second poll.
struct Later;

impl Admit for Later {
    type Permit = ();

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
        MaybeFuture::future(async {
            yield_times(1).await;
            Ok(())
        })
    }
}

#[tokio::test]
async fn request_is_identified_once_for_all_members_without_identity() {
    let ((shared, asked), (own, asked_own)) = (counted("alice"), counted("bob"));
    let gates = Gates::new((bucket(5), bucket(7).identify_by(own), GateLayer::new(Later), quota())).identify_by(shared);
    let answer = gates.layer(service_fn(hello)).oneshot(get("/")).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!((asked.load(Ordering::Relaxed), asked_own.load(Ordering::Relaxed)), (1, 1), "across a wait too");
    let (first, own, _, quota) = gates.layers();
    let [alice, bob] = ["alice", "bob"].map(Client::named);
    assert_eq!(first.handle().peek(&alice).remaining, 4);
    assert_eq!(own.handle().peek(&bob).remaining, 6);
    assert_eq!(now(quota.handle().usage(&alice)).unwrap().limits[0].used, 1);
}

#[tokio::test]
async fn request_is_not_identified_for_members_that_it_bypasses() {
    let (shared, asked) = counted("alice");
    let exempt = bucket(5).exempt(|request| request.uri.path() == "/health");
    let off = bucket(5).enabled(false);
    let gates = Gates::new((exempt, off)).identify_by(shared);
    let service = gates.layer(service_fn(hello));
    assert_eq!(service.clone().oneshot(get("/health")).await.unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn handle_taken_before_or_after_sees_the_state_of_the_gates() {
    let early = bucket(5).identify_by(counted("alice").0);
    let (before, kept) = (early.handle(), bucket(7));
    let gates = Gates::new((early, kept.clone())).identify_by(counted("alice").0);
    let after = kept.handle();
    assert_eq!(now(gates.layer(service_fn(hello)).oneshot(get("/"))).unwrap().status(), 200);
    let alice = Client::named("alice");
    assert_eq!((before.peek(&alice).remaining, after.peek(&alice).remaining), (4, 6));
}

#[test]
fn fork_of_a_member_keeps_the_identity_of_the_gates() {
    let layer = bucket(5);
    let _gates = Gates::new((layer.clone(), bucket(5))).identify_by(counted("alice").0);
    let fork = layer.fork().named("trial");
    assert_eq!(now(fork.layer(service_fn(hello)).oneshot(get("/"))).unwrap().status(), 200);
    assert_eq!(fork.handle().peek(&Client::named("alice")).remaining, 4);
    assert_eq!(layer.handle().peek(&Client::named("alice")).remaining, 5, "its state is its own");
}

#[test]
fn each_member_reports_unreadable_and_missing_identities() {
    let log = Log::default();
    let observed = |name: &'static str| {
        let log = log.clone();
        bucket(5).named(name).observe(move |event: &Event<'_>| {
            if !matches!(event, Event::Admitted { .. } | Event::Refused { .. }) {
                log.push(format!("{event:?}"));
            }
        })
    };
    let peer = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["192.0.2.0/24"]));
    let on_missing = tollgate::OnUnidentified::Share;
    let gates = Gates::new((observed("a").on_unidentified(on_missing), observed("b").on_unidentified(on_missing)));
    let service = gates.identify_by(peer).layer(service_fn(hello));
    for _ in 0..2 {
        let mut request = get("/");
        request.extensions_mut().insert(SocketAddr::from(([192, 0, 2, 1], 1)));
        request.headers_mut().insert("x-forwarded-for", http::HeaderValue::from_static("unreadable"));
        assert_eq!(now(service.clone().oneshot(request)).unwrap().status(), 200);
        assert_eq!(now(service.clone().oneshot(get("/"))).unwrap().status(), 200);
    }
    let mut lines = log.lines();
    lines.sort();
    let expected = [
        "Unidentified { policy: \"a\" }",
        "Unidentified { policy: \"b\" }",
        "UnreadableForwarded { policy: \"a\", field: \"x-forwarded-for\" }",
        "UnreadableForwarded { policy: \"b\", field: \"x-forwarded-for\" }",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn layer_may_be_a_member_twice() {
    let layer = bucket(5);
    let service = Gates::new((layer.clone(), layer.clone())).identify_by(counted("alice").0).layer(service_fn(hello));
    assert_eq!(now(service.oneshot(get("/"))).unwrap().status(), 200);
    assert_eq!(layer.handle().peek(&Client::named("alice")).remaining, 3);
}

#[test]
fn fork_of_a_member_may_have_the_identity_of_other_gates() {
    let layer = bucket(5);
    let _first = Gates::new((layer.clone(), bucket(5))).identify_by(counted("alice").0);
    let fork = layer.fork();
    let second = Gates::new((fork.clone(), bucket(5))).identify_by(counted("bob").0).layer(service_fn(hello));
    assert_eq!(now(second.oneshot(get("/"))).unwrap().status(), 200);
    assert_eq!(fork.handle().peek(&Client::named("bob")).remaining, 4);
}

#[test]
fn identity_may_be_set_after_a_failed_build() {
    let gates = Gates::new((bucket(5), quota().cost("nope", |_| Some(1))));
    let error = gates.clone().try_build().unwrap_err().to_string();
    assert_eq!(gates.identify_by(counted("alice").0).try_build().unwrap_err().to_string(), error);
}

#[test]
fn identity_of_a_layer_itself_is_asked_by_each_member() {
    let (identity, asked) = counted("alice");
    let outer = bucket(5).identify_by(identity);
    let service = Gates::new((outer.clone(), outer.fork().named("inner"))).layer(service_fn(hello));
    assert_eq!(now(service.oneshot(get("/"))).unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), 2, "extensions between them may change it");
}
