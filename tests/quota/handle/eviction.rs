//! Eviction of idle clients, and the shared account of newcomers beyond the cap.

use super::*;

#[tokio::test(start_paused = true)]
async fn idle_clients_are_evicted_without_requests() {
    let quotas = QuotaLayer::new(queries(10)).clock(tollgate::Clock::tokio()).handle();
    for number in 0..5_000 {
        quotas.charge(&Client::named(format!("client {number}")), ("queries", 1)).await.unwrap();
    }
    assert_eq!(quotas.live_clients(), 5_000);
    tokio::time::sleep(HOUR + Duration::from_secs(61)).await; // the clock is paused, so no time passes
    assert_eq!(quotas.live_clients(), 0);
}

#[tokio::test(start_paused = true)]
async fn clients_with_live_state_are_not_evicted() {
    let plan = queries(10).limit(Quota::units("rows", 10).per(Period::rolling(3 * HOUR)));
    let quotas = QuotaLayer::new(plan).clock(tollgate::Clock::tokio()).reservations_last(2 * HOUR).handle();
    quotas.charge(&alice(), ("queries", 1)).await.unwrap();
    quotas.charge(&bob(), ("rows", 1)).await.unwrap();
    let _lost = quotas.reserve(&Client::named("carol"), ("queries", 1)).await.unwrap().detach();
    let now = std::time::SystemTime::UNIX_EPOCH + tollgate::Clock::tokio().wall();
    let grant = tollgate::Grant::new("rows_per_10800s", 5, now + 30 * HOUR);
    quotas.grant(&Client::named("dave"), grant).await.unwrap();
    tokio::time::sleep(HOUR + Duration::from_secs(61)).await;
    assert_eq!(quotas.live_clients(), 3, "only alice has nothing left");
    tokio::time::sleep(7 * HOUR).await;
    assert_eq!(quotas.live_clients(), 1, "what is granted is kept");
    tokio::time::sleep(24 * HOUR).await;
    assert_eq!(quotas.live_clients(), 0);
}

#[tokio::test]
async fn newcomers_beyond_the_cap_share_one_account() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).max_clients(1_000));
    let known: Vec<_> = (0..1_000).map(|number| Client::named(format!("known {number}"))).collect();
    for client in &known {
        scene.quotas.charge(client, ("queries", 1)).await.unwrap();
    }
    scene.quotas.charge(&known[7], ("queries", 94)).await.unwrap(); // at 95 %
    assert_eq!(scene.told(), ["known 7 queries_per_hour: 95 of 100"]);
    let mut passed = 0;
    for number in 0..10_000 {
        let stranger = Client::named(format!("stranger {number}"));
        passed += u64::from(scene.quotas.charge(&stranger, ("queries", 1)).await.is_ok());
    }
    assert_eq!(passed, 100, "one quota for all of them");
    assert_eq!((scene.quotas.live_clients(), scene.quotas.max_clients()), (1_000, 1_000));
    let told = scene.told();
    assert!(told.iter().filter(|line| *line == "overflow").count() >= 10_000);
    assert!(told.contains(&"crowd queries_per_hour: 90 of 100".to_owned()));

    let stranger = Client::named("one more");
    let refusal = scene.quotas.charge(&stranger, ("queries", 1)).await.unwrap_err();
    assert!(refusal.violations().is_empty() && refusal.limit() == 0, "the shared capacity is not disclosed");
    assert!(scene.quotas.check(&stranger, ("queries", 1)).await.is_err(), "a check says the same");
    assert!(scene.quotas.charge(&known[7], ("queries", 6)).await.is_err(), "the victim is still at 95 %");
    scene.quotas.charge(&known[7], ("queries", 5)).await.unwrap();
    for client in &known[8..] {
        scene.quotas.charge(client, ("queries", 99)).await.unwrap();
    }
}

#[tokio::test]
async fn eviction_gives_newcomers_their_own_accounts() {
    let scene = Scene::of(QuotaLayer::new(queries(100)).max_clients(10));
    for number in 0..10 {
        scene.quotas.charge(&Client::named(format!("known {number}")), ("queries", 1)).await.unwrap();
    }
    assert_eq!(scene.quotas.live_clients(), 10);
    scene.clock.advance(HOUR);
    scene.told();
    for number in 0..10 {
        scene.quotas.charge(&Client::named(format!("new {number}")), ("queries", 100)).await.unwrap();
    }
    assert_eq!((scene.told().iter().filter(|line| *line == "overflow").count(), scene.quotas.live_clients()), (0, 10));
}
