//! Plans for new clients, tiers and single clients, changed while running; isolation of clients.

use tollgate::Unverified;

use super::*;

fn hourly(name: &str, limit: u64) -> Plan {
    Plan::new(name).limit(Quota::requests(limit).per(Period::hour()))
}

async fn there_is(scene: &Scene, client: &Client) -> (String, u64) {
    let usage = scene.quotas.usage(client).await.unwrap();
    (usage.plan.to_string(), usage.limits[0].limit)
}

#[tokio::test]
async fn plan_is_the_clients_or_its_tiers_or_the_default() {
    let acme = Client::named("acme").with_tier("pro");
    let layer = QuotaLayer::new(hourly("free", 10))
        .tier_plan("pro", hourly("pro", 100))
        .client_plan(acme.clone(), hourly("acme", 7));
    let scene = Scene::of(layer);
    assert_eq!(there_is(&scene, &alice()).await, ("free".into(), 10));
    assert_eq!(there_is(&scene, &bob().with_tier("pro")).await, ("pro".into(), 100));
    assert_eq!(there_is(&scene, &bob().with_tier("unheard of")).await, ("free".into(), 10));
    assert_eq!(there_is(&scene, &acme).await, ("acme".into(), 7));
    scene.quotas.remove_client_plan(&acme);
    assert_eq!(there_is(&scene, &acme).await, ("pro".into(), 100));
}

#[tokio::test]
async fn plan_that_starts_fresh_drops_used_amounts() {
    let scene = Scene::new(hourly("free", 10));
    scene.quotas.charge(&alice(), ("requests", 8)).await.unwrap();
    scene.quotas.set_plan(hourly("free", 20).starting_fresh()).unwrap();
    assert_eq!(scene.limit(&alice(), "requests_per_hour").await.used, 0);
}

#[tokio::test]
async fn plan_version_is_equal_across_a_fleet() {
    let scene = Scene::new(hourly("free", 10).numbered(3));
    scene.quotas.set_plan(hourly("free", 20).numbered(5)).unwrap();
    for late in [1, 3, 4, 5] {
        let error = scene.quotas.set_plan(hourly("free", 1).numbered(late)).unwrap_err().to_string();
        assert_eq!(error, format!("version of plan \"free\" must be above 5, which is in force, got {late}"));
    }
    let usage = scene.quotas.usage(&alice()).await.unwrap();
    assert_eq!((usage.version, usage.limits[0].limit), (5, 20));
}

#[tokio::test]
async fn new_tier_counts_versions_of_its_own() {
    let scene = Scene::new(hourly("free", 10).numbered(9));
    scene.quotas.set_tier_plan("new", hourly("new", 20).numbered(2)).unwrap();
    let version = async |client: Client| scene.quotas.usage(&client).await.unwrap().version;
    assert_eq!((version(bob().with_tier("new")).await, version(alice()).await), (2, 9));
    let error = scene.quotas.set_tier_plan("new", hourly("new", 30).numbered(2)).unwrap_err().to_string();
    assert_eq!(error, "version of plan \"new\" must be above 2, which is in force, got 2");
}

#[tokio::test]
async fn tier_change_gives_no_second_hour() {
    let layer = QuotaLayer::new(hourly("free", 10))
        .tier_plan("pro", Plan::new("pro").limit(Quota::units("tokens", 5).per(Period::hour())));
    let scene = Scene::of(layer);
    let (free, pro) = (alice().with_tier("free"), alice().with_tier("pro"));
    scene.quotas.charge(&free, ("requests", 10)).await.unwrap();
    scene.quotas.charge(&pro, [("requests", 3), ("tokens", 5)]).await.unwrap();
    assert!(scene.quotas.charge(&free, ("requests", 1)).await.is_err());
    assert!(scene.quotas.charge(&pro, ("tokens", 1)).await.is_err());
}

#[test]
fn daily_plan_rejects_unverified_identity() {
    let unverified = |plan| QuotaLayer::new(plan).identify_by(Unverified::header("x-user"));
    let error = std::panic::catch_unwind(|| unverified(Plan::standard()).handle()).unwrap_err();
    let said = error.downcast_ref::<String>().unwrap();
    assert!(said.contains("but the identity is not verified; call .accept_unverified()"), "{said}");
    let quotas = unverified(hourly("free", 10)).handle();
    assert!(quotas.set_plan(Plan::standard()).is_err(), "nor while running");
    assert!(quotas.set_client_plan(&alice(), Plan::standard()).is_err());
    let quotas = unverified(Plan::standard()).accept_unverified().handle();
    quotas.set_plan(Plan::standard()).unwrap();
}

#[tokio::test]
async fn clients_cannot_see_or_change_other_accounts() {
    let scene = Scene::new(hourly("free", 10));
    scene.quotas.charge(&alice(), ("requests", 10)).await.unwrap();
    let until = scene.wall() + DAY;
    let granted = scene.quotas.grant(&alice(), tollgate::Grant::new("requests_per_hour", 5, until)).await.unwrap();
    let bobs = scene.limit(&bob(), "requests_per_hour").await;
    assert_eq!((bobs.used, bobs.limit), (0, 10));
    assert!(!scene.quotas.revoke(&bob(), granted).await.unwrap(), "another's grant");
    assert_eq!(scene.quotas.reset_all(&bob()).await, Err(tollgate::QuotaError::UnknownAccount));
    scene.quotas.set_client_plan(&bob(), hourly("bob", 1)).unwrap();
    let alices = scene.limit(&alice(), "requests_per_hour").await;
    assert_eq!((alices.used, alices.limit), (10, 15));
    assert!(scene.quotas.grants(&bob()).await.unwrap().is_empty());
}

#[tokio::test]
async fn client_identified_without_a_tier_has_none_from_then_on() {
    let keys = |key: &str| match key {
        "old" => Some(tollgate::Principal::named("acme").in_tier("pro")),
        "new" => Some(tollgate::Principal::named("acme")),
        _ => None,
    };
    let layer = QuotaLayer::new(hourly("free", 10))
        .tier_plan("pro", hourly("pro", 100))
        .identify_by(tollgate::ApiKey::header("x-api-key", keys));
    let quotas = layer.handle();
    let acme = Client::named("acme");
    for (key, plan) in [("old", "pro"), ("new", "free"), ("old", "pro")] {
        let service = tower::ServiceBuilder::new()
            .layer(layer.clone())
            .service(tower::service_fn(async |_| Ok::<_, ()>(http::Response::new(String::new()))));
        let request = http::Request::get("/").header("x-api-key", key).body(String::new()).unwrap();
        tower::ServiceExt::oneshot(service, request).await.unwrap();
        assert_eq!(quotas.usage(&acme).await.unwrap().plan.as_str(), plan, "after {key}");
    }
}
