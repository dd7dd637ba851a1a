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
    threads::requests_on,
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
    requests_on(2, move |request| breaker.call(call(&mut service, request)))
}

pub fn two<S>(mut service: S) -> Lap
where
    S: Service<Request<Body>> + Clone + Send + 'static,
{
    requests_on(2, move |request| call(&mut service, request))
}

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(CLOSED, pace);
    let by = |name| of(&figures, name);
    let bare = by("bare");
    for (own, peer, goal) in [
        ("tollgate, last 100", "tower-resilience, last 100", Goal::None),
        ("tollgate, last 100", "recloser, last 100", Goal::AtMost(1.5)),
        ("tollgate, last 10 s", "tower-resilience, last 10 s", Goal::None),
        ("tollgate, last 10 s", "failsafe, last 10 s", Goal::AtMost(0.6)),
    ] {
        let row = format!("breaker closed, overhead, {own} against {peer}");
        report.line(
            Line::new(&row, by(own).over(bare), by(peer).over(bare), goal)
                .at_most(55.0)
                .no_allocation(by(own).allocations_over(bare)),
        );
    }
    report.figures("breaker closed, overhead", &figures, Some(bare));

    let figures = race(TWO, pace);
    let by = |name| of(&figures, name);
    for own in ["tollgate, last 100", "tollgate, last 10 s"] {
        let row = format!("breaker closed, 2 threads, {own} against bare");
        report.line(Line::new(&row, by(own).nanos(), by("bare").nanos(), Goal::AtMost(1.5)));
    }
    report.figures("breaker closed, 2 threads", &figures, Some(by("bare")));
}
