//! A circuit breaker in front of a service that is well.

use axum::body::Body;
use failsafe::futures::CircuitBreaker as _;
use http::{Request, StatusCode};
use tower::{Layer, Service};
use tower_resilience_circuitbreaker::SlidingWindowType::{CountBased, TimeBased};

use crate::{
    drive::{bare, call, pair, requests, serve},
    peers,
    race::{Entry, Lap, Pace, of, race},
    report::Report,
};

/// One caller after the other.
pub const CLOSED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry {
        name: "tower-resilience, last 100",
        make: || serve(peers::tower_resilience(CountBased).layer(bare::<Body>()), StatusCode::OK),
    },
    Entry {
        name: "tower-resilience, last 10 s",
        make: || serve(peers::tower_resilience(TimeBased).layer(bare::<Body>()), StatusCode::OK),
    },
    Entry { name: "failsafe, last 10 s", make: failsafe },
    Entry { name: "recloser, last 100", make: recloser },
];

/// Two callers at once.
const TWO: &[Entry] = &[
    Entry { name: "bare", make: || two(bare::<Body>()) },
    Entry {
        name: "tower-resilience, last 100",
        make: || two(peers::tower_resilience(CountBased).layer(bare::<Body>())),
    },
    Entry {
        name: "tower-resilience, last 10 s",
        make: || two(peers::tower_resilience(TimeBased).layer(bare::<Body>())),
    },
    Entry { name: "recloser, last 100", make: two_recloser },
];

fn failsafe() -> Lap {
    let (breaker, mut service) = (peers::failsafe(), bare::<Body>());
    requests(move |request| breaker.call(call(&mut service, request)))
}

fn recloser() -> Lap {
    let (breaker, mut service) = (peers::recloser(), bare::<Body>());
    requests(move |request| breaker.call(call(&mut service, request)))
}

fn two_recloser() -> Lap {
    let (breaker, mut service) = (peers::recloser(), bare::<Body>());
    pair(move |request| breaker.call(call(&mut service, request)))
}

fn two<S>(mut service: S) -> Lap
where
    S: Service<Request<Body>> + Clone + Send + 'static,
    S::Future: Future<Output: Send> + Send,
{
    pair(move |request| call(&mut service, request))
}

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(CLOSED, pace);
    let bare = of(&figures, "bare");
    report.figures("breaker closed, overhead", &figures, Some(bare));
    let figures = race(TWO, pace);
    let bare = of(&figures, "bare");
    report.figures("breaker closed, 2 threads", &figures, Some(bare));
}
