//! A quota of four limits in front of a service: added time of a request.

use axum::body::Body;
use http::StatusCode;
use tower::Layer;

use crate::{
    breakers::two,
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
];

/// Two concurrent callers.
const TWO: &[Entry] = &[
    Entry { name: "bare", make: || two(bare::<Body>()) },
    Entry { name: "four limits of requests", make: || two(ours::four_counted().layer(bare::<Body>())) },
];

/// Adds the rows of quotas.
pub fn rows(report: &mut Report, pace: Pace) {
    let figures = race(ADMITTED, pace);
    let by = |name| of(&figures, name);
    let bare = by("bare");
    let row = "quota, overhead";
    for (name, most) in [("four limits of requests", Some(140.0)), ("requests, bytes and requests at a time", None)] {
        let own = by(name);
        let line = Line::alone(&format!("{row}, {name}"), own.over(bare));
        let line = if let Some(most) = most { line.at_most(most) } else { line };
        report.line(line.no_allocation(own.allocations_over(bare)));
    }
    report.figures(row, &figures, Some(bare));

    let figures = race(TWO, pace);
    let by = |name| of(&figures, name);
    let row = "quota, 2 threads";
    let own = by("four limits of requests").nanos();
    report.line(Line::new(
        &format!("{row}, four limits of requests against bare"),
        own,
        by("bare").nanos(),
        Goal::None,
    ));
    report.figures(row, &figures, Some(by("bare")));
}
