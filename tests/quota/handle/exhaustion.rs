//! D6: a soft stop at 90 %, a hard stop at 100 %, an overage that somebody approved, recovery, many at once.

use tollgate::Grant;

use super::*;

#[tokio::test]
async fn d6_the_soft_stop_is_told_once_when_usage_lands_on_it_jumps_over_it_or_ends_at_the_limit() {
    for (steps, told) in [
        (vec![89, 1, 1, 9], "alice queries_per_hour: 90 of 100"),
        (vec![89, 5, 1, 5], "alice queries_per_hour: 94 of 100"),
        (vec![100], "alice queries_per_hour: 100 of 100"),
        (vec![50, 50], "alice queries_per_hour: 100 of 100"),
    ] {
        let scene = Scene::new(queries(100));
        for hour in 0..2 {
            for step in &steps {
                scene.quotas.charge(&alice(), ("queries", *step)).await.unwrap();
            }
            assert!(scene.quotas.charge(&alice(), ("queries", 1)).await.is_err(), "the hard stop");
            assert_eq!(scene.told(), [told], "{steps:?} in hour {hour}");
            scene.clock.advance(HOUR);
        }
    }
}

#[tokio::test]
async fn d6_the_soft_stop_is_told_of_what_is_recorded_and_settled_too() {
    let scene = Scene::new(queries(100));
    scene.quotas.record(&alice(), ("queries", 150)).await.unwrap();
    assert_eq!(scene.told(), ["alice queries_per_hour: 150 of 100"]);
    let held = scene.quotas.reserve(&bob(), ("queries", 10)).await.unwrap();
    held.commit(("queries", 95));
    assert_eq!(scene.told(), ["bob queries_per_hour: 95 of 100"]);
}

#[tokio::test]
async fn d6_an_overage_says_who_approved_it_and_why_and_ends_in_time() {
    let scene = Scene::new(queries(100));
    scene.quotas.charge(&alice(), ("queries", 100)).await.unwrap();
    let until = scene.wall() + HOUR / 2;
    let grant = Grant::new("queries_per_hour", 50, until).approved_by("M. Okafor").because("month-end close");
    let id = scene.quotas.grant(&alice(), grant.clone()).await.unwrap();
    let all = scene.quotas.grants(&alice()).await.unwrap();
    assert_eq!((all.len(), all[0].id, &all[0].grant, all[0].used), (1, id, &grant, 0));
    assert_eq!((all[0].grant.approver(), all[0].grant.reason()), ("M. Okafor", "month-end close"));
    scene.quotas.charge(&alice(), ("queries", 50)).await.unwrap();
    assert!(scene.quotas.charge(&alice(), ("queries", 1)).await.is_err());
    scene.clock.advance(HOUR / 2);
    assert!(scene.quotas.grants(&alice()).await.unwrap().is_empty());
    let hour = scene.limit(&alice(), "queries_per_hour").await;
    assert_eq!((hour.used, hour.limit), (150, 150), "what it has paid for stays paid");
    scene.clock.advance(HOUR / 2);
    assert_eq!(scene.limit(&alice(), "queries_per_hour").await.limit, 100);
}

#[tokio::test]
async fn d6_of_several_overages_the_one_that_ends_first_is_used_first() {
    let scene = Scene::new(queries(100));
    let wall = scene.wall();
    for (amount, hours) in [(20, 5), (10, 2)] {
        scene.quotas.grant(&alice(), Grant::new("queries_per_hour", amount, wall + hours * HOUR)).await.unwrap();
    }
    scene.quotas.charge(&alice(), ("queries", 115)).await.unwrap();
    let used: Vec<_> =
        scene.quotas.grants(&alice()).await.unwrap().iter().map(|given| (given.grant.amount(), given.used)).collect();
    assert_eq!(used, [(10, 10), (20, 5)]);
}

#[tokio::test]
async fn d6_a_revoked_overage_stops_the_next_request() {
    let scene = Scene::new(queries(100));
    let grant = Grant::new("queries_per_hour", 50, scene.wall() + DAY);
    let id = scene.quotas.grant(&alice(), grant).await.unwrap();
    scene.quotas.charge(&alice(), ("queries", 120)).await.unwrap();
    assert!(scene.quotas.revoke(&alice(), id).await.unwrap());
    assert!(!scene.quotas.revoke(&alice(), id).await.unwrap());
    assert!(scene.quotas.charge(&alice(), ("queries", 1)).await.is_err());
}

#[tokio::test]
async fn d6_an_overage_of_what_there_is_not_or_that_is_over_is_refused_in_words() {
    let scene = Scene::new(queries(100));
    let error = scene.quotas.grant(&alice(), Grant::new("queries", 5, scene.wall() + DAY)).await.unwrap_err();
    assert_eq!(error.to_string(), "limit must be one of the plan's (queries_per_hour), got \"queries\"");
    assert!(scene.quotas.grant(&alice(), Grant::new("queries_per_hour", 5, scene.wall())).await.is_err());
    assert!(Grant::try_new("queries_per_hour", 0, scene.wall()).is_err());
    assert_eq!(scene.quotas.live_clients(), 1);
}

#[tokio::test]
async fn d6_everybody_is_exhausted_at_once_and_everybody_recovers() {
    let scene = Scene::new(queries(3));
    let clients: Vec<_> = (0..500).map(|number| Client::named(format!("client {number}"))).collect();
    for _ in 0..2 {
        for client in &clients {
            scene.quotas.charge(client, ("queries", 3)).await.unwrap();
            let refusal = scene.quotas.charge(client, ("queries", 1)).await.unwrap_err();
            assert_eq!(refusal.violations()[0].wait, Some(HOUR));
        }
        scene.clock.advance(HOUR);
    }
}

#[tokio::test]
async fn an_overage_that_has_ended_is_refused_in_words() {
    let scene = Scene::new(queries(100));
    let grant = Grant::new("queries_per_hour", 50, std::time::SystemTime::UNIX_EPOCH);
    let error = scene.quotas.grant(&alice(), grant).await.unwrap_err();
    assert_eq!(error.to_string(), "end of a grant must lie ahead, got 1970-01-01T00:00:00.000000Z");
}
