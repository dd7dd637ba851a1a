//! D2: what is checked and taken is one step, for real threads.

use std::sync::{
    Barrier,
    atomic::{AtomicU64, Ordering},
};

use super::{trackers::now, *};

/// Ten agents see 95 of 105 and take 10, at the same moment: exactly one passes.
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
fn d2_of_ten_agents_at_95_of_105_that_take_10_exactly_one_passes() {
    ten_agents(300);
}

#[test]
#[ignore = "10,000 rounds"]
fn d2_of_ten_agents_at_95_of_105_that_take_10_exactly_one_passes_in_ten_thousand_rounds() {
    ten_agents(10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn d2_of_ten_tasks_exactly_one_passes() {
    for _ in 0..100 {
        let scene = Scene::new(queries(105));
        scene.quotas.record(&alice(), ("queries", 95)).await.unwrap();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let quotas = scene.quotas.clone();
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    quotas.charge(&alice(), ("queries", 10)).await.is_ok()
                })
            })
            .collect();
        let passed = futures_util::future::join_all(tasks).await.into_iter().filter(|passed| *passed.as_ref().unwrap());
        assert_eq!(passed.count(), 1);
    }
}

/// Limits of which now this one and now that one is short: what is charged of all of them is what was admitted.
#[test]
fn d2_under_threads_no_limit_is_charged_without_the_others() {
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
