//! A circuit breaker in front of a healthy service.

use axum::body::Body;
use failsafe::futures::CircuitBreaker as _;
use http::{Request, StatusCode};
use tower::{Layer, Service};
use tower_resilience_circuitbreaker::SlidingWindowType::{CountBased, TimeBased};

use crate::{
    drive::{bare, call, requests, serve},
    lap::{Entry, Lap},
    ours, peers,
    race::{Pace, of, race},
    report::{Goal, Line, Report},
    threads::pair,
};

/// One caller after another.
pub const CLOSED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate, last 100", make: || serve(ours::last_calls().layer(bare::<Body>()), StatusCode::OK) },
    Entry { name: "tollgate, last 10 s", make: || serve(ours::last_seconds().layer(bare::<Body>()), StatusCode::OK) },
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

/// Two concurrent callers.
const TWO: &[Entry] = &[
    Entry { name: "bare", make: || two(bare::<Body>()) },
    Entry { name: "tollgate, last 100", make: || two(ours::last_calls().layer(bare::<Body>())) },
    Entry { name: "tollgate, last 10 s", make: || two(ours::last_seconds().layer(bare::<Body>())) },
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

/// A breaker inside a bucket.
pub const STACKED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry {
        name: "tollgate, bucket and breaker",
        make: || serve(ours::nested_two().layer(bare::<Body>()), StatusCode::OK),
    },
    Entry {
        name: "tower_governor and tower-resilience",
        make: || {
            let breaker = peers::tower_resilience(CountBased).layer(bare::<Body>());
            serve(peers::tower_governor(false).layer(breaker), StatusCode::OK)
        },
    },
];

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(CLOSED, pace);
    let by = |name| of(&figures, name);
    let bare = by("bare");
    for (own, peer) in [
        ("tollgate, last 100", "tower-resilience, last 100"),
        ("tollgate, last 10 s", "tower-resilience, last 10 s"),
        ("tollgate, last 10 s", "failsafe, last 10 s"),
        ("tollgate, last 100", "recloser, last 100"),
    ] {
        let row = format!("breaker closed, overhead, {own} against {peer}");
        report.line(
            Line::new(&row, by(own).over(bare), by(peer).over(bare), Goal::Nanos(40.0))
                .no_allocation(by(own).allocations_over(bare)),
        );
    }
    report.figures("breaker closed, overhead", &figures, Some(bare));

    let figures = race(TWO, pace);
    let by = |name| of(&figures, name);
    let bare = by("bare");
    for (own, most) in [("tollgate, last 10 s", 1.3), ("tollgate, last 100", 1.8)] {
        let row = format!("breaker closed, 2 threads, {own} against bare");
        report.line(Line::new(&row, by(own).nanos(), bare.nanos(), Goal::AtMost(most)));
    }
    report.figures("breaker closed, 2 threads", &figures, Some(bare));

    let figures = race(STACKED, pace);
    let by = |name| of(&figures, name);
    let (bare, own) = (by("bare"), by("tollgate, bucket and breaker"));
    let row = "bucket and breaker stacked, overhead";
    let peer = by("tower_governor and tower-resilience").over(bare);
    report.line(Line::new(row, own.over(bare), peer, Goal::Nanos(200.0)).no_allocation(own.allocations_over(bare)));
    report.figures(row, &figures, Some(bare));
}
