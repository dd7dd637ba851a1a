//! Check and charge are one step under real threads.

use std::sync::{
    Barrier,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::support::gate::now;

/// Ten agents see 95 of 105 and charge 10 at the same moment; exactly one is admitted.
fn ten_agents(rounds: u64) {
    let scene = Scene::new(queries(105));
    let clients: Vec<_> = (0..rounds).map(|round| Client::named(format!("client {round}"))).collect();
    let passed: Vec<_> = (0..rounds).map(|_| AtomicU64::new(0)).collect();
    clients.iter().for_each(|client| now(scene.quotas.record(client, ("queries", 95))).unwrap());
    let start = Barrier::new(10);
    std::thread::scope(|threads| {
        for _ in 0..10 {
            threads.spawn(|| {
                for (client, passed) in clients.iter().zip(&passed) {
                    start.wait();
                    if now(scene.quotas.charge(client, ("queries", 10))).is_ok() {
                        passed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    for (client, passed) in clients.iter().zip(passed) {
        assert_eq!(passed.into_inner(), 1);
        assert_eq!(now(scene.limit(client, "queries_per_hour")).used, 105);
    }
}

#[test]
fn ten_threads_at_95_of_105_admit_exactly_one() {
    ten_agents(300);
}

#[test]
#[ignore = "10,000 rounds"]
fn ten_threads_admit_exactly_one_in_ten_thousand_rounds() {
    ten_agents(10_000);
}

/// Limits of which one or another is short at a time. The sum charged to each equals the admitted amounts.
#[test]
fn concurrent_charges_cover_all_limits_or_none() {
    let plan = Plan::new("three")
        .limit(Quota::requests(400).per(Period::hour()))
        .limit(Quota::units("tokens", 900).per(Period::hour()))
        .limit(Quota::requests(500).per(Period::day()).named("daily"))
        .limit(Quota::concurrent(2));
    let scene = Scene::new(plan);
    let [requests, tokens] = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|threads| {
        for thread in 0..4_u64 {
            let (scene, requests, tokens) = (&scene, &requests, &tokens);
            threads.spawn(move || {
                for round in 0..400 {
                    let asked = (thread + round) % 5;
                    let amounts = [("requests", 1), ("tokens", asked), ("concurrent_requests", 1)];
                    let Ok(held) = now(scene.quotas.reserve(&alice(), amounts)) else { continue };
                    if round % 3 == 0 {
                        held.roll_back();
                    } else {
                        held.commit(tollgate::Amounts::new());
                        requests.fetch_add(1, Ordering::Relaxed);
                        tokens.fetch_add(asked, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let usage = now(scene.quotas.usage(&alice())).unwrap();
    let used: Vec<_> = usage.limits.iter().map(|limit| (limit.used, limit.reserved)).collect();
    let [requests, tokens] = [requests, tokens].map(AtomicU64::into_inner);
    assert_eq!(used, [(requests, 0), (tokens, 0), (requests, 0), (0, 0)]);
    assert!(requests <= 400 && tokens <= 900);
}
