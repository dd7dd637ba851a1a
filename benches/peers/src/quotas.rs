//! A quota of four limits in front of a service: added time of a request.

use axum::body::Body;
use http::StatusCode;
use tower::Layer;

use crate::{
    drive::{bare, serve},
    lap::Entry,
    ours,
    race::{Pace, of, race},
    report::{Goal, Line, Report},
};

/// Contestants that admit each request.
pub const ADMITTED: &[Entry] = &[
    Entry { name: "bare", make: || serve(bare::<Body>(), StatusCode::OK) },
    Entry { name: "tollgate, its gate alone", make: || serve(ours::gate().layer(bare::<Body>()), StatusCode::OK) },
    Entry {
        name: "four limits of requests",
        make: || serve(ours::four_counted().layer(bare::<Body>()), StatusCode::OK),
    },
    Entry {
        name: "requests, bytes and requests at a time",
        make: || serve(ours::four_mixed().layer(bare::<Body>()), StatusCode::OK),
    },
    Entry {
        name: "bucket, quota and breaker",
        make: || serve(ours::nested_three().layer(bare::<Body>()), StatusCode::OK),
    },
];

/// Adds the rows of quotas.
pub fn rows(report: &mut Report, pace: Pace) {
    let admitted = race(ADMITTED, pace);
    let bare = of(&admitted, "bare");
    for (name, most) in [
        ("four limits of requests", 150.0),
        ("requests, bytes and requests at a time", 150.0),
        ("bucket, quota and breaker", 200.0),
    ] {
        let ours = of(&admitted, name);
        let line = Line::new(&format!("admitted, {name}, over bare"), ours.over(bare), bare.nanos(), Goal::Nanos(most));
        report.line(line.no_allocation(ours.allocations_over(bare)));
    }
    report.figures("quota, admitted", &admitted, Some(bare));
}
