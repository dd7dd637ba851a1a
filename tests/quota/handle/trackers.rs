//! A1 to A7: a tracker of scans, with a cap at a time and a budget of bytes for each day.

use super::*;

const DAILY: u64 = 53_687_091_200;

/// What one client may scan; the names are those of the tracker.
fn scans() -> Scene {
    let plan = Plan::new("scans")
        .limit(Quota::concurrent(5).named("concurrent_scans"))
        .limit(Quota::units("bytes_scanned", DAILY).per(Period::day()).named("daily_bytes"));
    Scene::new(plan)
}

#[tokio::test]
async fn a1_the_sixth_at_a_time_is_refused_and_a_slot_comes_back_whatever_ends_the_work() {
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
    // It ends with a result, is given up, or its task panics or is cancelled.
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
async fn a2_whoever_is_at_its_daily_bytes_is_refused_before_the_work_starts() {
    let scene = scans();
    scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.unwrap();
    scene.quotas.record(&alice(), ("bytes_scanned", DAILY - 1)).await.unwrap();
    scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.unwrap();
    scene.quotas.record(&alice(), ("bytes_scanned", 1)).await.unwrap();
    let refusal = scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.unwrap_err();
    assert_eq!(violated(&refusal), (Kind::from("bytes_scanned"), DAILY, DAILY));
    assert!(scene.quotas.reserve(&alice(), [("bytes_scanned", 0), ("concurrent_requests", 1)]).await.is_err());
}

#[tokio::test]
async fn a3_what_was_done_is_recorded_even_past_the_cap_and_the_next_is_refused() {
    let scene = scans();
    scene.quotas.record(&alice(), ("bytes_scanned", DAILY - 10)).await.unwrap();
    scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.unwrap();
    scene.quotas.record(&alice(), ("bytes_scanned", 1_000)).await.unwrap();
    assert_eq!(scene.limit(&alice(), "daily_bytes").await.used, DAILY + 990);
    assert!(scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.is_err());
}

#[tokio::test]
async fn a3_nothing_is_recorded_of_nothing() {
    let scene = scans();
    scene.quotas.record(&alice(), ("bytes_scanned", 0)).await.unwrap();
    assert_eq!(scene.limit(&alice(), "daily_bytes").await.used, 0);
}

#[tokio::test]
async fn a4_the_day_is_the_utc_day_and_a_refusal_says_how_long_it_is_until_midnight() {
    let scene = scans();
    scene.clock.advance(DAY - Duration::from_millis(1_500));
    scene.quotas.record(&alice(), ("bytes_scanned", DAILY)).await.unwrap();
    let refusal = scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.unwrap_err();
    assert_eq!(refusal.violations()[0].wait, Some(Duration::from_millis(1_500)));
    assert_eq!(refusal.retry_after_seconds(), Some(2), "never too early");
    scene.clock.advance(Duration::from_millis(1_500) - Duration::from_nanos(1));
    assert!(scene.quotas.check(&alice(), ("bytes_scanned", 0)).await.is_err());
    scene.clock.advance(Duration::from_nanos(1));
    scene.quotas.check(&alice(), ("bytes_scanned", DAILY)).await.unwrap();
    assert_eq!(scene.limit(&alice(), "daily_bytes").await.used, 0);
}

#[tokio::test]
async fn a5_a_refusal_says_kind_current_limit_and_seconds_to_wait() {
    let scene = scans();
    scene.quotas.record(&alice(), ("bytes_scanned", DAILY)).await.unwrap();
    let refusal = scene.quotas.charge(&alice(), ("bytes_scanned", 5)).await.unwrap_err();
    assert_eq!((refusal.current(), refusal.limit()), (DAILY, DAILY));
    assert_eq!(refusal.retry_after_seconds(), Some(86_400));
    assert_eq!(refusal.violations()[0].name.as_str(), "daily_bytes");
}

#[test]
fn a6_what_one_route_spends_the_other_sees_also_when_both_start_at_once() {
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
async fn a7_the_bytes_of_today_can_be_asked_for() {
    let scene = scans();
    scene.quotas.record(&alice(), ("bytes_scanned", 123)).await.unwrap();
    let today = scene.limit(&alice(), "daily_bytes").await;
    assert_eq!((today.used, today.remaining, today.limit), (123, DAILY - 123, DAILY));
    assert_eq!(today.resets_at, Some(scene.wall() + DAY));
}

/// In memory every answer is there at once.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(answer) => answer,
        std::task::Poll::Pending => panic!("nothing here waits"),
    }
}
