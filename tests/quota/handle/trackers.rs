//! A tracker of scans with a concurrency limit and a daily byte budget.

use super::*;
use crate::support::gate::now;

const DAILY: u64 = 53_687_091_200;

/// Plan of one client's scans; limits are named as in the tracker.
fn scans() -> Scene {
    let plan = Plan::new("scans")
        .limit(Quota::concurrent(5).named("concurrent_scans"))
        .limit(Quota::units("bytes_scanned", DAILY).per(Period::day()).named("daily_bytes"));
    Scene::new(plan)
}

#[tokio::test]
async fn sixth_slot_is_refused_until_one_returns() {
    let scene = scans();
    let (quotas, alice) = (&scene.quotas, alice());
    let slot = || quotas.reserve(&alice, ("concurrent_requests", 1));
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(slot().await.unwrap());
    }
    let refusal = slot().await.unwrap_err();
    assert_eq!(violated(&refusal), (Kind::Concurrent, 5, 5));
    assert_eq!(refusal.violations()[0].name.as_str(), "concurrent_scans");
    assert!(quotas.reserve(&bob(), ("concurrent_requests", 1)).await.is_ok(), "the others are not concerned");
    // Slots end with a result, a rollback, a panic of the task and a cancelled task.
    held.pop().unwrap().commit(("bytes_scanned", 7));
    held.pop().unwrap().roll_back();
    let lost = held.pop().unwrap();
    let task = tokio::spawn(async move {
        let _held = lost;
        panic!("the scan failed");
    });
    assert!(task.await.unwrap_err().is_panic());
    let lost = held.pop().unwrap();
    let task = tokio::spawn(async move {
        let _held = lost;
        std::future::pending::<()>().await;
    });
    tokio::task::yield_now().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    drop(held);
    assert_eq!(scene.limit(&alice, "concurrent_scans").await.used, 0);
}

#[tokio::test]
async fn daily_limit_waits_until_utc_midnight() {
    let scene = scans();
    scene.clock.advance(DAY - Duration::from_millis(1_500));
    scene.quotas.record(&alice(), ("bytes_scanned", DAILY)).await.unwrap();
    let refusal = scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.unwrap_err();
    assert_eq!(refusal.violations()[0].wait, Some(Duration::from_millis(1_500)));
    assert!((2..=302).contains(&refusal.retry_after_seconds().unwrap()), "never too early, and spread");
    scene.clock.advance(Duration::from_millis(1_500) - Duration::from_nanos(1));
    assert!(scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.is_err());
    scene.clock.advance(Duration::from_nanos(1));
    scene.quotas.check(&alice(), ("bytes_scanned", DAILY)).await.unwrap();
    assert_eq!(scene.limit(&alice(), "daily_bytes").await.used, 0);
}

#[tokio::test]
async fn refusal_has_kind_current_limit_and_wait() {
    let scene = scans();
    scene.quotas.record(&alice(), ("bytes_scanned", DAILY)).await.unwrap();
    let refusal = scene.quotas.charge(&alice(), ("bytes_scanned", 5)).await.unwrap_err();
    assert_eq!((refusal.current(), refusal.limit()), (DAILY, DAILY));
    assert_eq!(refusal.retry_after(), Some(DAY));
    assert!((86_400..=86_700).contains(&refusal.retry_after_seconds().unwrap()));
    assert_eq!(refusal.violations()[0].name.as_str(), "daily_bytes");
}

#[test]
fn handles_share_usage_from_the_first_request() {
    for _ in 0..200 {
        let scene = Scene::new(queries(10));
        let routes = [scene.quotas.clone(), scene.quotas.clone()];
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            for quotas in &routes {
                threads.spawn(|| {
                    start.wait();
                    assert!(now(quotas.charge(&alice(), ("queries", 3))).is_ok());
                });
            }
        });
        assert_eq!(now(scene.limit(&alice(), "queries_per_hour")).used, 6);
        assert_eq!(scene.quotas.live_clients(), 1);
    }
}

#[tokio::test]
async fn usage_reports_bytes_of_the_day() {
    let scene = scans();
    scene.quotas.record(&alice(), ("bytes_scanned", 123)).await.unwrap();
    let today = scene.limit(&alice(), "daily_bytes").await;
    assert_eq!((today.used, today.remaining, today.limit), (123, DAILY - 123, DAILY));
    assert_eq!(today.resets_at, Some(scene.wall() + DAY));
}
