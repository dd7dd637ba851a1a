//! Replayed answers, and hits of a guarded cache.

use std::{
    convert::Infallible,
    future::ready,
    hint::black_box,
    sync::LazyLock,
    time::{Duration, Instant},
};

use axum::body::{Body, Bytes};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use tokio::runtime::Runtime;
use tollgate::{
    ApiKey, Principal,
    idempotency::{IdempotencyLayer, IdempotentBody, OnRunning},
    key_value::GuardedCache,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::{
    drive::{API_KEY, bare, call, now, serve},
    keys::{key, keys},
    lap::{Entry, Lap, timed},
    race::{Pace, of, race},
    report::{Goal, Line, Report},
};

/// Keys of requests, and of cached values.
const KEYS: u64 = 1_024;

/// Answers of operations that were carried out.
const REPLAYED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate, replay from memory", make: replay },
];

/// Values that are there.
const HITS: &[Entry] = &[
    Entry { name: "a map behind a lock for reading", make: map },
    Entry { name: "tollgate, guarded hit", make: guarded },
    Entry { name: "moka, get_with", make: moka },
];

/// Timers need a runtime, though none of these futures waits.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));

fn post(i: u64) -> Request<Body> {
    let mut request = Request::new(Body::from("amount=5"));
    *request.method_mut() = Method::POST;
    let headers = request.headers_mut();
    headers.insert(API_KEY, HeaderValue::from_static("alice"));
    let key = HeaderValue::from_str(key(i % KEYS, &mut [0; 20])).expect("visible");
    headers.insert(HeaderName::from_static("idempotency-key"), key);
    request
}

fn replay() -> Lap {
    let known = |key: &str| (key == "alice").then(|| Principal::named("alice"));
    let layer = IdempotencyLayer::in_memory(ApiKey::header("x-api-key", known));
    let handle = layer.handle();
    let answer = |request: Request<IdempotentBody<Body>>| {
        drop(black_box(request));
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        ready(Ok::<_, Infallible>(response))
    };
    let mut service = layer.layer(service_fn(answer));
    let runtime = RUNTIME.enter();
    for i in 0..KEYS {
        now(call(&mut service, post(i))).expect("an answer");
    }
    assert_eq!(handle.counts().executed, KEYS);
    drop(runtime);
    let (mut batch, mut next) = (Vec::with_capacity(64), 0);
    Box::new(move |operations| {
        let _runtime = RUNTIME.enter();
        let mut took = Duration::ZERO;
        let end = next + operations;
        while next < end {
            let until = end.min(next + 64);
            batch.extend((next..until).map(post));
            next = until;
            took += timed(|| batch.drain(..).for_each(|request| drop(black_box(now(call(&mut service, request))))));
        }
        took
    })
}

/// Returns a loop of reads of the keys.
fn reads<T>(mut read: impl FnMut(&'static str) -> T + 'static) -> Lap {
    static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| keys(KEYS));
    TEXTS.iter().for_each(|key| drop(read(key)));
    let mut next = 0;
    Box::new(move |operations| {
        let _runtime = RUNTIME.enter();
        timed(|| {
            for _ in 0..operations {
                next = (next + 1) % TEXTS.len();
                drop(black_box(read(&TEXTS[next])));
            }
        })
    })
}

fn map() -> Lap {
    let map = std::sync::RwLock::new(std::collections::HashMap::<&str, Bytes>::new());
    reads(move |key| {
        let found = map.read().expect("no panic").get(key).cloned();
        found.unwrap_or_else(|| {
            map.write().expect("no panic").insert(key, Bytes::from_static(b"12.50"));
            Bytes::from_static(b"12.50")
        })
    })
}

fn guarded() -> Lap {
    let _runtime = RUNTIME.enter();
    let cache = GuardedCache::<Infallible>::in_memory(Duration::from_secs(3_600));
    reads(move |key| {
        now(cache.guarded_get(key.as_bytes(), async || Ok(Bytes::from_static(b"12.50")))).expect("a value")
    })
}

fn moka() -> Lap {
    let cache = moka::future::Cache::builder().time_to_live(Duration::from_secs(3_600)).max_capacity(100_000).build();
    reads(move |key| now(cache.get_with(key, async { Bytes::from_static(b"12.50") })))
}

/// Duplicates that wait at once, and how often.
const WAITING: usize = 63;
const ROUNDS: u64 = 200;

/// Returns the times from the first answer of an operation until each duplicate that waited has it, in nanoseconds, sorted.
fn waits() -> Vec<u64> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let known = |key: &str| (key == "alice").then(|| Principal::named("alice"));
    let layer = IdempotencyLayer::in_memory(ApiKey::header("x-api-key", known));
    let layer = layer.on_running(OnRunning::Wait(Duration::from_secs(60)));
    let service = layer.layer(service_fn(|request: Request<IdempotentBody<Body>>| async {
        drop(request);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok::<_, Infallible>(Response::new(Body::empty()))
    }));
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let calls: Vec<_> = (0..=WAITING)
            .map(|_| {
                let call = service.clone().oneshot(post(round));
                runtime.spawn(async {
                    let response = call.await.expect("an answer");
                    (response.headers().contains_key("idempotent-replayed"), Instant::now())
                })
            })
            .collect();
        let answered: Vec<_> = calls.into_iter().map(|call| runtime.block_on(call).expect("no panic")).collect();
        let first = answered.iter().find(|(replayed, _)| !replayed).expect("one was carried out").1;
        let nanos = |at: &Instant| u64::try_from(at.saturating_duration_since(first).as_nanos()).unwrap_or(u64::MAX);
        times.extend(answered.iter().filter(|(replayed, _)| *replayed).map(|(_, at)| nanos(at)));
    }
    times.sort_unstable();
    times
}

/// Adds the rows of replays and of guarded hits.
pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(REPLAYED, pace);
    let bare = of(&figures, "bare");
    let row = "replay from memory, overhead";
    let own = of(&figures, "tollgate, replay from memory").over(bare);
    report.line(Line::alone(row, own).at_most(2_000.0));
    report.figures(row, &figures, Some(bare));

    let waits = waits();
    for (name, share) in [("median", 0.5), ("99th percentile", 0.99)] {
        let at = waits[(waits.len() as f64 * share) as usize];
        report.line(Line::alone(&format!("63 waiting duplicates, from the first answer to theirs, {name}"), at as f64));
    }

    let figures = race(HITS, pace);
    let by = |name| of(&figures, name);
    let own = by("tollgate, guarded hit");
    let row = "guarded hit, overhead over a map read";
    report.line(Line::alone(row, own.over(by("a map behind a lock for reading"))).at_most(200.0));
    let row = "guarded hit against moka's get_with";
    report.line(Line::new(row, own.nanos(), by("moka, get_with").nanos(), Goal::None));
    report.figures("guarded hit", &figures, None);
}
