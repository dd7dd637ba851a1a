//! Extensions that handlers take without an `Option`, with the ledger available and in an outage.

use std::num::NonZeroU32;

use axum::{Extension, Router, body::Body, routing::post};
use http::Request;
use http_body_util::BodyExt;
use tollgate::{Charge, FakeClock, LimitUsage, Principal, QuotaStatus, Spool, Verified};
use tower::{ServiceBuilder, ServiceExt};

use super::{
    outage::{Away, Scene},
    *,
};

#[derive(Clone)]
struct Tenant(&'static str);

/// Records 7 tokens; returns the result of `record`, and whether the charge is idle.
async fn charge(Extension(charge): Extension<Charge>) -> String {
    let recorded = charge.record("tokens", 7);
    format!("{recorded}, {}", if charge.is_idle() { "idle" } else { "active" })
}

/// Formats the plan and its limits, such as `paid: requests_per_month 1/2`.
async fn status(Extension(status): Extension<QuotaStatus>) -> String {
    let taken = |limit: &LimitUsage| format!("{} {}/{}", limit.name, limit.used + limit.reserved, limit.limit);
    let limits: Vec<_> = status.usage.limits.iter().map(taken).collect();
    format!("{}: {}", status.usage.plan, limits.join(", "))
}

fn router() -> Router {
    Router::new().route("/charge", post(charge)).route("/status", post(status))
}

/// Two requests and 100 tokens a month.
fn paid() -> Plan {
    tokens(100).limit(Quota::requests(2).per(MONTH).named("requests_per_month"))
}

fn layer(scene: &Scene, on_failure: OnFailure) -> QuotaLayer {
    let tenant = Verified::from_extension(|tenant: &Tenant| Some(Principal::named(tenant.0))).named_only();
    QuotaLayer::new(paid()).identify_by(tenant).store_in(&scene.ledger, on_failure).share_with_handler()
}

/// Returns status and body of the response to one request.
async fn ask(app: &Router, path: &str) -> (u16, String) {
    let request = Request::post(path).extension(Tenant("acme")).body(Body::empty()).unwrap();
    let (head, body) = app.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
}

fn ok(body: &str) -> (u16, String) {
    (200, body.into())
}

/// Returns the used and reserved requests of acme, then the tokens.
async fn used(layer: &QuotaLayer) -> [u64; 2] {
    let usage = layer.handle().usage(&acme()).await.unwrap();
    ["requests_per_month", "tokens_per_month"]
        .map(|name| usage.get(name).unwrap().used + usage.get(name).unwrap().reserved)
}

/// Merges the spool and returns the used amounts.
async fn used_after(scene: &Scene, spool: &Spool, layer: &QuotaLayer) -> [u64; 2] {
    Scene::merged(spool).await;
    settled(&scene.ledger).await;
    used(layer).await
}

const SWITCHES: [fn(QuotaLayer) -> QuotaLayer; 2] = [|layer| layer.enabled(false), |layer| layer.exempt(|_| true)];

#[tokio::test]
async fn ledger_that_answers_shares_usage_and_charges_records() {
    let scene = Scene::new().await;
    let layer = layer(&scene, OnFailure::FailClosed);
    let app = router().layer(layer.clone());
    assert_eq!(ask(&app, "/charge").await, ok("true, active"));
    settled(&scene.ledger).await;
    assert_eq!(ask(&app, "/status").await, ok("paid: tokens_per_month 7/100, requests_per_month 2/2"));
    settled(&scene.ledger).await;
    assert_eq!(used(&layer).await, [2, 7]);
}

#[tokio::test]
async fn refusal_by_the_ledger_under_shadow_is_idle() {
    let scene = Scene::new().await;
    let layer = layer(&scene, OnFailure::FailClosed).shadow();
    layer.handle().record(&acme(), ("requests", 2)).await.unwrap();
    let app = router().layer(layer.clone());
    assert_eq!(ask(&app, "/charge").await, ok("true, idle"));
    assert_eq!(ask(&app, "/status").await, ok("none: "));
    assert_eq!(used(&layer).await, [2, 0]);
}

#[tokio::test]
async fn closed_ledger_that_is_away_under_shadow_is_idle() {
    let scene = Scene::new().await;
    let app = router().layer(layer(&scene, OnFailure::FailClosed).shadow());
    let _away = scene.away().await;
    assert_eq!(ask(&app, "/charge").await, ok("true, idle"));
    assert_eq!(ask(&app, "/status").await, ok("none: "));
}

#[tokio::test]
async fn open_without_the_ledger_charges_and_lists_no_limits() {
    for shadow in [false, true] {
        let (scene, away) = gone().await;
        let spool = scene.spool();
        let layer = layer(&scene, OnFailure::FailOpen);
        let layer = if shadow { layer.shadow() } else { layer };
        let app = router().layer(layer.clone());
        assert_eq!(ask(&app, "/charge").await, ok("true, active"));
        assert_eq!(ask(&app, "/status").await, ok("paid: "));
        drop(away);
        assert_eq!(used_after(&scene, &spool, &layer).await, [2, 7]);
    }
}

/// A scene during an outage of the ledger.
async fn gone() -> (Scene, Away) {
    let scene = Scene::new().await;
    let away = scene.away().await;
    (scene, away)
}

#[tokio::test]
async fn switches_without_the_ledger_are_idle() {
    for switch in SWITCHES {
        let (scene, away) = gone().await;
        let spool = scene.spool();
        let layer = switch(layer(&scene, OnFailure::FailOpen));
        let app = router().layer(layer.clone());
        assert_eq!(ask(&app, "/charge").await, ok("true, idle"));
        assert_eq!(ask(&app, "/status").await, ok("none: "));
        assert_eq!(spool.pending(), 0);
        drop(away);
        assert_eq!(used_after(&scene, &spool, &layer).await, [0, 0]);
    }
}

#[tokio::test]
async fn full_spool_under_shadow_is_idle() {
    let (scene, _away) = gone().await;
    let _full = scene.spool().at_most(0);
    let layer = layer(&scene, OnFailure::FailOpen);
    assert_eq!(ask(&router().layer(layer.clone()), "/charge").await.0, 503);
    let app = router().layer(layer.fork().shadow());
    assert_eq!(ask(&app, "/charge").await, ok("true, idle"));
    assert_eq!(ask(&app, "/status").await, ok("none: "));
}

#[tokio::test]
async fn local_share_charges_and_is_idle_beyond_it_under_shadow() {
    let (scene, away) = gone().await;
    let (of, spool) = (NonZeroU32::new(2).unwrap(), scene.spool());
    let layer = layer(&scene, OnFailure::LocalShare { of }).shadow();
    let app = router().layer(layer.clone());
    assert_eq!(ask(&app, "/charge").await, ok("true, active"), "one of two requests is this process's share");
    assert_eq!(ask(&app, "/charge").await, ok("true, idle"));
    assert_eq!(ask(&app, "/status").await, ok("none: "));
    drop(away);
    assert_eq!(used_after(&scene, &spool, &layer).await, [1, 7]);
}

#[tokio::test]
async fn layer_without_its_ledger_hides_nothing_and_is_not_hidden() {
    for ledger_inside in [true, false] {
        let (scene, away) = gone().await;
        let spool = scene.spool();
        let ledger = layer(&scene, OnFailure::FailOpen);
        let tenant = Verified::from_extension(|tenant: &Tenant| Some(Principal::named(tenant.0)));
        let member = Plan::new("member").limit(Quota::units("tokens", 50).per(Period::hour()));
        let memory = QuotaLayer::new(member).identify_by(tenant).clock(FakeClock::new()).share_with_handler();
        let (outer, inner) =
            if ledger_inside { (memory.clone(), ledger.clone()) } else { (ledger.clone(), memory.clone()) };
        let app = router().layer(ServiceBuilder::new().layer(outer).layer(inner));
        assert_eq!(ask(&app, "/charge").await, ok("true, active"));
        let plan = if ledger_inside { "paid" } else { "member" };
        assert_eq!(ask(&app, "/status").await, ok(&format!("{plan}: tokens_per_hour 7/50")));
        assert_eq!(memory.handle().usage(&acme()).await.unwrap().limits[0].used, 7);
        drop(away);
        assert_eq!(used_after(&scene, &spool, &ledger).await, [2, 7]);
    }
}
