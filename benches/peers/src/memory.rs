//! Memory of a million clients, and its reuse when they are gone and others come.

use std::{
    hash::RandomState,
    num::NonZeroU64,
    time::{Duration, Instant},
};

use axum_gcra::gcra;
use governor::{
    Quota, RateLimiter, clock::FakeRelativeClock, middleware::NoOpMiddleware, state::keyed::DashMapStateStore,
};
use tollgate::{Cost, FakeClock};

use crate::{
    allocations,
    keys::key,
    ours,
    race::Pace,
    report::{Goal, Line, Report},
};

const CLIENTS: u64 = 1_000_000;

/// Time after which each bucket is full again.
const AWAY: Duration = Duration::from_hours(24);

/// Bytes per client: the peak, and the rest after all have been away and a hundredth as many others sent two requests
/// each.
struct Taken {
    most: f64,
    left: f64,
}

pub fn rows(report: &mut Report, _: Pace) {
    let (own, governor, gcra) = (tollgate(), governor(), gcra());
    report.line(Line::new("memory per client, 1 M clients", own.most, governor.most, Goal::Bytes(64.0)));
    report.line(Line::new("memory still held per gone client", own.left, governor.left, Goal::BytesAtMost(0.1)));
    let row = "memory per client at most, and when all are gone";
    for (name, Taken { most, left }) in [("tollgate", own), ("governor", governor), ("axum_gcra's limiter", gcra)] {
        report.note(row, name, &format!("{most:.1} B, then {left:.1} B"));
    }
}

/// `decide` receives a client and whether all have been away.
fn watched(decide: impl FnOnce() -> Box<dyn FnMut(&str, bool)>) -> Taken {
    let before = allocations::live();
    allocations::watch(true);
    let mut decide = decide();
    let mut text = [0; 20];
    (0..CLIENTS).for_each(|i| decide(key(i, &mut text), false));
    let most = allocations::live() - before;
    for turn in 0..2 * CLIENTS {
        decide(key(CLIENTS + turn % (CLIENTS / 100), &mut text), true);
    }
    let left = allocations::live() - before;
    drop(decide);
    allocations::watch(false);
    Taken { most: most as f64 / CLIENTS as f64, left: left as f64 / CLIENTS as f64 }
}

fn tollgate() -> Taken {
    watched(|| {
        let clock = FakeClock::new();
        let buckets = ours::hourly().clock(clock.clone()).max_clients(CLIENTS as usize).handle();
        let mut away = false;
        Box::new(move |key, gone| {
            if gone && !std::mem::replace(&mut away, gone) {
                clock.advance(AWAY);
            }
            let client = buckets.digester().secret("key", key.as_bytes());
            let _ = buckets.check(&client, Cost::ONE);
        })
    })
}

fn governor() -> Taken {
    watched(|| {
        let clock = FakeRelativeClock::default();
        let quota = Quota::per_hour(60.try_into().expect("positive"));
        let limiter: RateLimiter<_, _, _, NoOpMiddleware<_>> =
            RateLimiter::new(quota, DashMapStateStore::<String>::default(), clock.clone());
        let mut away = false;
        Box::new(move |key, gone| {
            if gone && !std::mem::replace(&mut away, gone) {
                clock.advance(AWAY);
            }
            let _ = limiter.check_key(&key.to_owned());
        })
    })
}

fn gcra() -> Taken {
    watched(|| {
        let limiter = gcra::RateLimiter::<String, RandomState>::default();
        let quota = gcra::Quota::new(Duration::from_mins(1), NonZeroU64::new(60).expect("positive"));
        let start = Instant::now();
        Box::new(move |key, gone| {
            let now = if gone { start + AWAY } else { start };
            let _ = limiter.req_sync(key.to_owned(), quota, now);
        })
    })
}
