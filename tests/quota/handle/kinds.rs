//! Kinds, charges and checks, usage, resets.

use super::*;

#[tokio::test]
async fn standard_plan_has_five_named_limits() {
    let plan = Plan::standard();
    assert_eq!(plan.name().as_str(), "standard");
    let limits: Vec<_> = plan.limits().map(|limit| (limit.name().to_string(), limit.limit())).collect();
    let named = [
        ("requests_per_hour", 3_600),
        ("requests_per_day", 86_400),
        ("queries_per_hour", 1_800),
        ("queries_per_day", 43_200),
        ("bytes_per_day", 1 << 30),
    ];
    assert_eq!(limits, named.map(|(name, limit)| (name.to_owned(), limit)));
}

#[test]
fn limit_must_be_positive() {
    for kind in [Kind::Requests, Kind::from("queries"), Kind::from("bytes")] {
        for bad in [0, 1 << 53, u64::MAX] {
            let error = tollgate::Quota::try_of(kind.clone(), bad).unwrap_err().to_string();
            assert_eq!(error, format!("limit of {kind} must be from 1 to 2^53 - 1, got {bad}"));
        }
        assert!(Quota::try_of(kind, (1 << 53) - 1).is_ok());
    }
    assert!(Quota::try_concurrent(0).is_err());
}

#[tokio::test]
async fn check_answers_like_a_charge_and_takes_nothing() {
    let scene = Scene::new(queries(10));
    for asked in [0, 1, 9, 10, 11, 1 << 53, u64::MAX] {
        let checked = scene.quotas.check(&alice(), ("queries", asked)).await;
        assert_eq!(checked.is_ok(), asked <= 10, "{asked}");
        assert_eq!(scene.limit(&alice(), "queries_per_hour").await.used, 0);
    }
    assert_eq!(scene.quotas.live_clients(), 0, "asking makes no account");
}

#[tokio::test]
async fn usage_reports_each_limit_of_a_kind() {
    let scene = Scene::new(Plan::standard());
    scene.quotas.charge(&alice(), ("queries", 450)).await.unwrap();
    let held = scene.quotas.reserve(&alice(), ("queries", 450)).await.unwrap();
    let usage = scene.quotas.usage(&alice()).await.unwrap();
    let of_kind: Vec<_> = usage.kind(&Kind::from("queries")).map(|limit| limit.name.to_string()).collect();
    assert_eq!(of_kind, ["queries_per_hour", "queries_per_day"]);
    let hour = usage.get("queries_per_hour").unwrap();
    assert_eq!((hour.limit, hour.used, hour.reserved, hour.remaining), (1_800, 450, 450, 900));
    assert_eq!((hour.percentage(), hour.is_exceeded()), (50.0, false));
    assert_eq!(hour.resets_at, Some(scene.wall() + HOUR));
    assert_eq!(usage.limits.len(), 5);
    held.commit(("queries", 1_350));
    assert!(scene.limit(&alice(), "queries_per_hour").await.is_exceeded());
}

#[tokio::test]
async fn reset_covers_a_limit_a_kind_or_a_client() {
    let scene = Scene::new(Plan::standard());
    let used = async || {
        let usage = scene.quotas.usage(&alice()).await.unwrap();
        ["queries_per_hour", "queries_per_day", "requests_per_hour"].map(|name| usage.get(name).unwrap().used)
    };
    for client in [alice(), bob()] {
        scene.quotas.record(&client, [("queries", 5), ("requests", 5)]).await.unwrap();
    }
    scene.quotas.reset(&alice(), "queries_per_hour").await.unwrap();
    assert_eq!(used().await, [0, 5, 5]);
    scene.quotas.reset(&alice(), "queries").await.unwrap();
    assert_eq!(used().await, [0, 0, 5]);
    scene.quotas.reset_all(&alice()).await.unwrap();
    assert_eq!(used().await, [0, 0, 0]);
    assert_eq!(scene.limit(&bob(), "queries_per_hour").await.used, 5);
    let error = scene.quotas.reset(&alice(), "querys").await.unwrap_err().to_string();
    assert!(error.contains("queries_per_hour") && error.ends_with("got \"querys\""), "{error}");
}

#[tokio::test]
async fn each_limit_restarts_with_its_own_period() {
    let anchor = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + 30 * DAY; // the 31st of January
    let plan = Plan::new("all periods")
        .limit(Quota::requests(9).per(Period::hour()))
        .limit(Quota::requests(9).per(Period::day()))
        .limit(Quota::requests(9).per(Period::week()))
        .limit(Quota::requests(9).per(Period::month()))
        .limit(Quota::requests(9).per(Period::billing_month(anchor).unwrap()).named("contract"))
        .limit(Quota::requests(9).per(Period::rolling(Duration::from_secs(90))));
    let scene = Scene::new(plan);
    scene.quotas.record(&alice(), ("requests", 1)).await.unwrap();
    let start = scene.wall();
    // 2026-01-01 is a Thursday; the contract's month began on 31 December.
    for (days, left) in [(0, 6), (1, 3), (4, 2), (30, 1), (31, 0)] {
        let to = start + days * DAY + Duration::from_secs(90 * u64::from(days > 0));
        scene.clock.advance(to.duration_since(scene.wall()).unwrap());
        let usage = scene.quotas.usage(&alice()).await.unwrap();
        let counting = usage.limits.iter().filter(|limit| limit.used == 1).count();
        assert_eq!(counting, left, "after {days} days: {usage:?}");
    }
}
