//! Several layers on one service: added time of an admitted request.

use axum::body::Body;
use http::StatusCode;
use tower::Layer;
use tower_resilience_circuitbreaker::SlidingWindowType::CountBased;

use crate::{
    drive::{bare, serve},
    lap::Entry,
    ours, peers,
    race::{Pace, of, race},
    report::{Goal, Line, Report},
};

/// A breaker inside a bucket.
pub const TWO: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate, nested", make: || serve(ours::nested_two().layer(bare::<Body>()), StatusCode::OK) },
    Entry { name: "tollgate, one gate", make: || serve(ours::gates_two().layer(bare::<Body>()), StatusCode::OK) },
    Entry {
        name: "tower_governor and tower-resilience",
        make: || {
            let breaker = peers::tower_resilience(CountBased).layer(bare::<Body>());
            serve(peers::tower_governor(false).layer(breaker), StatusCode::OK)
        },
    },
];

/// A breaker inside a quota of four limits inside a bucket.
pub const THREE: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate, nested", make: || serve(ours::nested_three().layer(bare::<Body>()), StatusCode::OK) },
    Entry { name: "tollgate, one gate", make: || serve(ours::gates_three().layer(bare::<Body>()), StatusCode::OK) },
];

/// Our contestants, and the most that each may add, in nanoseconds.
const TWO_GOALS: &[(&str, f64)] = &[("tollgate, nested", 155.0), ("tollgate, one gate", 125.0)];
const THREE_GOALS: &[(&str, f64)] = &[("tollgate, nested", 280.0), ("tollgate, one gate", 210.0)];

pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(TWO, pace);
    let by = |name| of(&figures, name);
    let (bare, peer) = (by("bare"), by("tower_governor and tower-resilience"));
    let row = "bucket and breaker, overhead";
    for &(name, most) in TWO_GOALS {
        let own = by(name);
        report.line(
            Line::new(&format!("{row}, {name}"), own.over(bare), peer.over(bare), Goal::None)
                .at_most(most)
                .no_allocation(own.allocations_over(bare)),
        );
    }
    report.figures(row, &figures, Some(bare));

    let figures = race(THREE, pace);
    let by = |name| of(&figures, name);
    let bare = by("bare");
    let row = "bucket, quota and breaker, overhead";
    for &(name, most) in THREE_GOALS {
        let own = by(name);
        report.line(
            Line::alone(&format!("{row}, {name}"), own.over(bare))
                .at_most(most)
                .no_allocation(own.allocations_over(bare)),
        );
    }
    report.figures(row, &figures, Some(bare));
}
