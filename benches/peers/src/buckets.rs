//! A token bucket in front of a service: added time of an admitted and of a refused request.

use std::fmt::Debug;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use tower::{Layer, Service, limit::ConcurrencyLimitLayer};

use crate::{
    drive::{bare, serve, serve_million},
    lap::{Entry, Lap},
    ours, peers,
    race::{Pace, of, race},
    report::{Goal, Line, Report},
};

/// Contestants that admit each request.
pub const ADMITTED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate, its gate alone", make: || serve(ours::gate().layer(bare::<Body>()), StatusCode::OK) },
    Entry { name: "tollgate", make: || serve(ours::plenty().layer(bare::<Body>()), StatusCode::OK) },
    Entry {
        name: "tollgate, RateLimit fields",
        make: || serve(ours::plenty_told().layer(bare::<Body>()), StatusCode::OK),
    },
    Entry {
        name: "tower_governor",
        make: || serve(peers::tower_governor(false).layer(bare::<Body>()), StatusCode::OK),
    },
    Entry {
        name: "tower_governor, its headers",
        make: || serve(peers::tower_governor_with_headers(false).layer(bare::<Body>()), StatusCode::OK),
    },
    Entry { name: "bare, axum 0.7", make: || serve(bare::<axum07::body::Body>(), StatusCode::OK) },
    Entry {
        name: "axum_gcra",
        make: || {
            serve(peers::axum_gcra(false).default_handle_error().layer(bare::<axum07::body::Body>()), StatusCode::OK)
        },
    },
    Entry {
        name: "tower's ConcurrencyLimit, for scale",
        make: || serve(ConcurrencyLimitLayer::new(1_000).layer(bare::<Body>()), StatusCode::OK),
    },
];

/// Contestants that refuse each request.
pub const REFUSED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate", make: || refused(ours::scarce().layer(bare::<Body>())) },
    Entry { name: "tollgate, RateLimit fields", make: || refused(ours::scarce_told().layer(bare::<Body>())) },
    Entry { name: "tower_governor", make: || refused(peers::tower_governor(true).layer(bare::<Body>())) },
    Entry {
        name: "tower_governor, its headers",
        make: || refused(peers::tower_governor_with_headers(true).layer(bare::<Body>())),
    },
    Entry { name: "bare, axum 0.7", make: || serve(bare::<axum07::body::Body>(), StatusCode::OK) },
    Entry {
        name: "axum_gcra",
        make: || refused(peers::axum_gcra(true).default_handle_error().layer(bare::<axum07::body::Body>())),
    },
];

/// Contestants that admit each request of a million clients.
const MILLION: &[Entry] = &[
    Entry { name: "bare", make: || serve_million(bare::<Body>()) },
    Entry { name: "tollgate", make: || serve_million(ours::million().layer(bare::<Body>())) },
    Entry { name: "tower_governor", make: || serve_million(peers::tower_governor_million().layer(bare::<Body>())) },
];

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(ADMITTED, pace);
    let by = |name| of(&figures, name);
    let (bare, own, told) = (by("bare"), by("tollgate"), by("tollgate, RateLimit fields"));
    let row = "admitted request, overhead";
    let peer = by("tower_governor").over(bare);
    report.line(Line::new(row, own.over(bare), peer, Goal::AtMost(0.8)).no_allocation(own.allocations_over(bare)));
    for (peer, bare_peer, goal) in
        [("tower_governor, its headers", "bare", Goal::AtMost(0.57)), ("axum_gcra", "bare, axum 0.7", Goal::None)]
    {
        let row = format!("admitted request, overhead, with RateLimit fields against {peer}");
        let line = Line::new(&row, told.over(bare), by(peer).over(by(bare_peer)), goal);
        report.line(line.no_allocation(told.allocations_over(bare)));
    }
    report.figures(row, &figures, Some(bare));

    let figures = race(REFUSED, pace);
    let by = |name| of(&figures, name);
    let (bare, own) = (by("bare"), by("tollgate"));
    let row = "refused request, overhead";
    for (peer, bare_peer, goal) in
        [("tower_governor", "bare", Goal::None), ("axum_gcra", "bare, axum 0.7", Goal::AtMost(0.6))]
    {
        let line = Line::new(&format!("{row}, against {peer}"), own.over(bare), by(peer).over(by(bare_peer)), goal);
        report.line(line.allocations(own.allocations_over(bare), 5.0));
    }
    report.figures(row, &figures, Some(bare));

    let figures = race(MILLION, pace);
    let by = |name| of(&figures, name);
    let bare = by("bare");
    let row = "admitted request, overhead, 1 M clients";
    report.line(Line::new(row, by("tollgate").over(bare), by("tower_governor").over(bare), Goal::None));
    report.figures(row, &figures, Some(bare));
}

fn refused<S, R>(service: S) -> Lap
where
    S: Service<Request<Body>, Response = Response<R>> + 'static,
    S::Error: Debug,
{
    serve(service, StatusCode::TOO_MANY_REQUESTS)
}
