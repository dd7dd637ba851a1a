//! Warnings at 90 %, refusals at 100 %, approved grants, recovery, and many clients at once.

use tollgate::Grant;

use super::*;

#[tokio::test]
async fn warning_is_emitted_once_at_or_beyond_its_threshold() {
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
async fn records_and_settlements_emit_the_warning() {
    let scene = Scene::new(queries(100));
    scene.quotas.record(&alice(), ("queries", 150)).await.unwrap();
    assert_eq!(scene.told(), ["alice queries_per_hour: 150 of 100"]);
    let held = scene.quotas.reserve(&bob(), ("queries", 10)).await.unwrap();
    held.commit(("queries", 95));
    assert_eq!(scene.told(), ["bob queries_per_hour: 95 of 100"]);
}

#[tokio::test]
async fn grant_names_approver_and_reason_and_expires() {
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
async fn grant_on_unknown_limit_or_past_end_is_rejected() {
    let scene = Scene::new(queries(100));
    let error = scene.quotas.grant(&alice(), Grant::new("queries", 5, scene.wall() + DAY)).await.unwrap_err();
    assert_eq!(error.to_string(), "limit must be one of the plan's (queries_per_hour), got \"queries\"");
    assert!(scene.quotas.grant(&alice(), Grant::new("queries_per_hour", 5, scene.wall())).await.is_err());
    assert!(Grant::try_new("queries_per_hour", 0, scene.wall()).is_err());
    assert_eq!(scene.quotas.live_clients(), 1);
}

#[tokio::test]
async fn all_clients_exhaust_and_recover_together() {
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
async fn expired_grant_is_rejected_with_a_reason() {
    let scene = Scene::new(queries(100));
    let grant = Grant::new("queries_per_hour", 50, std::time::SystemTime::UNIX_EPOCH);
    let error = scene.quotas.grant(&alice(), grant).await.unwrap_err();
    assert_eq!(error.to_string(), "end of a grant must be in the future, got 1970-01-01T00:00:00.000000Z");
}
