//! Permits that last to the response head, policies without a request, and clients in events.

use std::{
    collections::HashMap,
    convert::Infallible,
    marker::PhantomData,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Waker},
};

use bytes::Bytes;
use futures_util::FutureExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use tollgate::{
    Admit, ApiKey, CircuitBreakerLayer, Client, Cost, Event, GateLayer, Identify, Lasts, MaybeFuture, Outcome, Permit,
    PolicyName, Principal, Rate, Reason, Refusal, RequestHead, ToEnd, ToHead, TokenBucketLayer, Trip, Unverified,
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::support::gate::{Log, get, yield_times};

/// A policy whose permits record their calls. Those that may last to the end of the body do so if the status is 200.
struct Recording<L> {
    log: Log,
    later: bool,
    refuses: bool,
    lasts: PhantomData<fn() -> L>,
}

impl<L> Default for Recording<L> {
    fn default() -> Self {
        Self { log: Log::default(), later: false, refuses: false, lasts: PhantomData }
    }
}

struct Recorded<L> {
    log: Log,
    status: StatusCode,
    lasts: PhantomData<fn() -> L>,
}

impl<L: Lasts> Admit for Recording<L> {
    type Permit = Recorded<L>;

    fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        Unverified::header("x-user").public().identify(request, tollgate::Digester::process())
    }

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Recorded<L>, Refusal>> {
        let decision = if self.refuses {
            Err(Refusal::new(Reason::Capacity, PolicyName::try_new("recording").unwrap()))
        } else {
            Ok(Recorded { log: self.log.clone(), status: StatusCode::OK, lasts: PhantomData })
        };
        if !self.later {
            return MaybeFuture::Ready(decision);
        }
        MaybeFuture::future(async {
            yield_times(2).await;
            decision
        })
    }
}

impl<L: Lasts> Permit for Recorded<L> {
    type Lasts = L;

    fn on_response<B>(&mut self, response: &mut Response<B>) {
        self.status = response.status();
    }

    fn ends_at_head(&self) -> bool {
        self.status != StatusCode::OK
    }

    fn on_body(&mut self) {
        self.log.push("body");
    }

    fn on_data(&mut self, bytes: usize) {
        self.log.push(format!("{bytes} bytes"));
    }

    fn settle(self, outcome: Outcome<'_>) {
        self.log.push(format!("{outcome:?}"));
    }
}

type Stream = StreamBody<futures_util::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, &'static str>>>>;

/// Three frames; the path chooses the status, an error at the end, a panic or a failure.
async fn serve(request: Request<Full<Bytes>>) -> Result<Response<Stream>, &'static str> {
    yield_times(1).await;
    let mut frames: Vec<_> = (0..3).map(|_| Ok(Frame::data(Bytes::from_static(b"abc")))).collect();
    let mut response = Response::new(());
    match request.uri().path() {
        "/panic" => panic!("in the handler"),
        "/fail" => return Err("no response"),
        "/broken" => frames.push(Err("broken")),
        "/500" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "/204" => *response.status_mut() = StatusCode::NO_CONTENT,
        _ => {}
    }
    Ok(response.map(|()| StreamBody::new(futures_util::stream::iter(frames))))
}

async fn outcomes<L: Lasts>(path: &str) -> Vec<String> {
    let policy = Recording::<L>::default();
    let log = policy.log.clone();
    let service = GateLayer::new(policy).layer(service_fn(serve));
    let served = async {
        if let Ok(response) = service.oneshot(get(path)).await {
            let _ = response.into_body().collect().await;
        }
    };
    let _ = AssertUnwindSafe(served).catch_unwind().await;
    log.lines()
}

#[tokio::test]
async fn head_permit_is_settled_at_the_head() {
    for (path, expected) in [
        ("/", "Responded"),
        ("/500", "Responded"),
        ("/204", "Responded"),
        ("/broken", "Responded"),
        ("/fail", "Failed(Any { .. })"),
        ("/panic", "Panicked"),
    ] {
        assert_eq!(outcomes::<ToHead>(path).await, [expected], "{path}");
    }
}

#[tokio::test]
async fn permit_chooses_its_end_after_the_head() {
    let body = ["body", "3 bytes", "3 bytes", "3 bytes"];
    assert_eq!(outcomes::<ToEnd>("/").await[..4], body);
    assert_eq!(outcomes::<ToEnd>("/").await[4..], ["Complete { trailers: None }"]);
    assert_eq!(outcomes::<ToEnd>("/broken").await[4..], ["BodyFailed(Any { .. })"]);
    assert_eq!(outcomes::<ToEnd>("/500").await, ["Responded"]);
}

#[tokio::test]
async fn head_permit_hears_of_a_refusal_further_in() {
    let outer = Recording::<ToHead>::default();
    let log = outer.log.clone();
    let inner = GateLayer::new(Recording::<ToHead> { refuses: true, ..Default::default() });
    let stack = ServiceBuilder::new().layer(GateLayer::new(outer)).layer(inner).service(service_fn(serve));
    assert_eq!(stack.oneshot(get("/")).await.unwrap().status(), 503);
    assert!(log.lines()[0].starts_with("Refused("), "{:?}", log.lines());
    assert_eq!(log.lines().len(), 1);
}

#[tokio::test]
async fn head_permit_is_settled_once_at_every_cancellation() {
    for later in [false, true] {
        let (mut before, mut after, mut polls) = (0, 0, 0);
        loop {
            let policy = Recording::<ToHead> { later, ..Default::default() };
            let log = policy.log.clone();
            let service = GateLayer::new(policy).layer(service_fn(serve));
            let done = {
                let mut whole = pin!(async {
                    let mut body = service.oneshot(get("/")).await.unwrap().into_body();
                    while body.frame().await.is_some() {
                        yield_times(1).await;
                    }
                });
                (0..polls).any(|_| whole.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready())
            };
            match &log.lines()[..] {
                [] => assert_eq!(before + after, 0, "no permit before the first poll or while the decision is pending"),
                [one] if one == "Cancelled { head_sent: false }" => before += 1,
                [one] if one == "Responded" => after += 1,
                more => panic!("{more:?} after {polls} polls"),
            }
            if done {
                break;
            }
            polls += 1;
        }
        assert!(before > 0 && after > 3, "{before} before the head, {after} after it");
    }
}

#[tokio::test]
async fn policy_decides_without_a_request_if_it_can() {
    struct Budget(AtomicUsize);
    impl Admit for Budget {
        type Permit = ();
        fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<(), Refusal>> {
            self.admit_any().expect("this policy needs no request")
        }
        fn admit_any(self: &Arc<Self>) -> Option<MaybeFuture<Result<(), Refusal>>> {
            let full = || Refusal::new(Reason::Capacity, PolicyName::try_new("budget").unwrap());
            let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            Some(MaybeFuture::Ready(left.map(drop).map_err(|_| full())))
        }
    }
    let budget = Arc::new(Budget(AtomicUsize::new(2)));
    let service = GateLayer::from_arc(Arc::clone(&budget)).layer(service_fn(serve));
    assert!(budget.admit_any().unwrap().await.is_ok());
    assert_eq!(service.clone().oneshot(get("/")).await.unwrap().status(), 200);
    assert!(budget.admit_any().unwrap().await.is_err());
    assert_eq!(service.oneshot(get("/")).await.unwrap().status(), 503);
    assert!(Arc::new(Recording::<ToHead>::default()).admit_any().is_none());
}

/// Returns the events of a layer's requests, with their clients.
fn record(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Admitted { client, .. } => Some(format!("admitted {client:?}")),
        Event::Refused { client, shadow, .. } => Some(format!("refused {client:?} {shadow}")),
        _ => None,
    }
}

#[tokio::test]
async fn event_has_the_client_and_never_its_secret() {
    let keys = HashMap::from([(String::from("s3cret"), Principal::named("acme"))]);
    let (log, texts) = (Log::default(), Arc::new(Mutex::new(String::new())));
    let (heard, all) = (log.clone(), Arc::clone(&texts));
    let layer = TokenBucketLayer::new(Rate::per_hour(1)).identify_by(ApiKey::header("x-api-key", keys));
    let layer = layer.observe(move |event: &Event<'_>| {
        all.lock().unwrap().push_str(&format!("{event:?}"));
        record(event).into_iter().for_each(|line| heard.push(line));
    });
    let ask = |layer: &TokenBucketLayer, key: Option<&str>| {
        let mut request = get("/");
        if let Some(key) = key {
            request.headers_mut().insert("x-api-key", key.parse().unwrap());
        }
        layer
            .layer(service_fn(async |_: Request<Full<Bytes>>| Ok::<_, Infallible>(Response::new(String::new()))))
            .oneshot(request)
    };
    ask(&layer, Some("s3cret")).await.unwrap();
    ask(&layer, Some("s3cret")).await.unwrap();
    ask(&layer, None).await.unwrap();
    layer.handle().check(&Client::named("job"), Cost::ONE).unwrap();
    let shadow = layer.fork().shadow();
    ask(&shadow, Some("s3cret")).await.unwrap();
    ask(&shadow, Some("s3cret")).await.unwrap();
    assert_eq!(
        log.lines(),
        [
            "admitted Some(Client(acme))",
            "refused Some(Client(acme)) false",
            "refused None false",
            "admitted Some(Client(job))",
            "admitted Some(Client(acme))",
            "refused Some(Client(acme)) true",
        ]
    );
    assert!(!texts.lock().unwrap().contains("s3cret"));
}

#[tokio::test]
async fn secret_of_an_unnamed_client_is_in_no_event() {
    let keys = |key: &str| match key {
        "canary-private" => Some(Principal::private("canary@example.org").in_tier("pro")),
        "canary-unnamed" => Some(Principal::unnamed()),
        _ => None,
    };
    let events = Log::default();
    let heard = events.clone();
    let layer = TokenBucketLayer::new(Rate::per_hour(1))
        .identify_by(ApiKey::header("x-api-key", keys).or(Unverified::cookie("sid")).or(Unverified::bearer()))
        .observe(move |event: &Event<'_>| heard.push(format!("{event:?}")));
    let service = layer.layer(service_fn(serve));
    for (name, value) in [
        ("x-api-key", "canary-private"),
        ("x-api-key", "canary-unnamed"),
        ("cookie", "sid=canary"),
        ("authorization", "Bearer canary"),
    ] {
        for _ in 0..2 {
            let mut request = get("/");
            request.headers_mut().insert(name, value.parse().unwrap());
            let _ = service.clone().oneshot(request).await.unwrap();
        }
    }
    assert_eq!(events.lines().iter().filter(|event| event.contains("client: Some(Client(#")).count(), 8);
    assert!(!events.lines().concat().contains("canary"), "{:?}", events.lines());
}

#[tokio::test]
async fn event_of_a_pending_decision_has_the_client() {
    let log = Log::default();
    let heard = log.clone();
    let layer = GateLayer::new(Recording::<ToHead> { later: true, ..Default::default() })
        .observe(move |event: &Event<'_>| record(event).into_iter().for_each(|line| heard.push(line)));
    let mut request = get("/");
    request.headers_mut().insert("x-user", "alice".parse().unwrap());
    layer.layer(service_fn(serve)).oneshot(request).await.unwrap();
    assert_eq!(log.lines(), ["admitted Some(Client(alice))"]);
}

#[tokio::test]
async fn breaker_judges_a_body_after_a_good_head() {
    let layer = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    let service = layer.layer(service_fn(serve));
    let _ = service.clone().oneshot(get("/")).await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(layer.handle().counts().failures, 0);
    let _ = service.oneshot(get("/broken")).await.unwrap().into_body().collect().await;
    assert_eq!(layer.handle().state(), tollgate::CircuitState::Open);
}
