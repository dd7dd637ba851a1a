//! Units that no plan of a layer counts: misspelled, and never charged.

use super::*;

use std::panic::{AssertUnwindSafe, catch_unwind};
use tollgate::{Amounts, QuotaError};

fn tokens(plan: &str) -> Plan {
    Plan::new(plan).limit(Quota::units("tokens", 1_000).per(Period::hour()))
}

/// A layer whose plans count requests and tokens, and for the tier `pro` pages; and the unknown units it has reported.
fn scene() -> (Scene, Log) {
    let heard = Log::default();
    let hears = heard.clone();
    let scene = Scene::new(tokens("free").limit(Quota::requests(10).per(Period::hour())), |layer| {
        let pages = Plan::new("pro").limit(Quota::units("pages", 10).per(Period::hour()));
        layer.share_with_handler().tier_plan("pro", pages).observe(move |event: &Event<'_>| {
            if let Event::UnknownUnit { policy, unit } = event {
                hears.push(format!("{policy} {unit}"));
            }
        })
    });
    (scene, heard)
}

#[test]
fn cost_of_an_unknown_unit_does_not_build() {
    let layer = || QuotaLayer::new(tokens("free")).accept_unverified();
    let error = catch_unwind(AssertUnwindSafe(|| layer().cost("token", |_| Some(1)).handle())).unwrap_err();
    let text = error.downcast_ref::<String>().unwrap();
    assert_eq!(text, "unit of .cost() must be one that a plan of the layer counts, got \"token\"");
    let _ = layer()
        .tier_plan("pro", Plan::new("pro").limit(Quota::units("pages", 1).per(Period::hour())))
        .cost("pages", |_| None)
        .handle();
    let _ = layer()
        .client_plan(Client::named("acme"), Plan::new("acme").limit(Quota::units("rows", 1).per(Period::hour())))
        .cost("rows", |_| None)
        .handle();
}

#[tokio::test]
async fn handle_refuses_an_unknown_unit() {
    let (Scene { quotas, .. }, _) = scene();
    let alice = Client::named("alice");
    let both = || Amounts::from([("tokens", 5), ("token", 5)]);
    for refusal in [
        quotas.charge(&alice, both()).await.unwrap_err(),
        quotas.check(&alice, both()).await.unwrap_err(),
        quotas.reserve(&alice, both()).await.unwrap_err(),
        quotas.run(&alice, both(), async { panic!("polled") }).await.unwrap_err(),
        quotas.run_job(&alice, "7", both(), async { panic!("polled") }).await.unwrap_err(),
    ] {
        assert_eq!((refusal.reason(), refusal.violations()[0].kind.as_str()), (Reason::UnknownUnit, "token"));
        let text = "policy \"quota\": no plan counts the unit, nothing charged, unit \"token\"";
        assert_eq!(refusal.to_string(), text);
    }
    let Err(QuotaError::Invalid(invalid)) = quotas.record(&alice, both()).await else { panic!("not invalid") };
    assert_eq!(invalid.to_string(), "unit must be one that a plan of the layer counts, got \"token\"");
    assert_eq!(quotas.usage(&alice).await.unwrap().get("tokens_per_hour").unwrap().used, 0);
}

#[tokio::test]
async fn unit_of_another_plan_and_built_in_kinds_are_free() {
    let (Scene { quotas, .. }, heard) = scene();
    let alice = Client::named("alice");
    quotas.charge(&alice, [("pages", 11), ("bytes", 1 << 40)]).await.unwrap();
    quotas.record(&alice, ("pages", 11)).await.unwrap();
    assert!(heard.lines().is_empty());
}

#[tokio::test]
async fn unit_of_a_new_plan_is_known_and_stays_so() {
    let (Scene { quotas, .. }, _) = scene();
    let (alice, rows) =
        (Client::named("alice"), || Plan::new("rows").limit(Quota::units("rows", 10).per(Period::hour())));
    quotas.charge(&alice, ("rows", 1)).await.unwrap_err();
    quotas.set_client_plan(&alice, rows()).unwrap();
    quotas.charge(&alice, ("rows", 1)).await.unwrap();
    quotas.remove_client_plan(&alice);
    quotas.record(&alice, ("rows", 1)).await.unwrap();
    quotas.set_plan(rows()).unwrap();
    quotas.record(&alice, ("tokens", 1)).await.unwrap();
}

#[tokio::test]
async fn record_of_an_unknown_unit_is_false_and_emitted() {
    let (outer, heard) = scene();
    let inner = Scene::new(Plan::new("inner").limit(Quota::units("rows", 10).per(Period::hour())), |layer| {
        layer.share_with_handler()
    });
    let handler = service_fn(|request: Request<Full<Bytes>>| async move {
        let charge = request.extensions().get::<Charge>().unwrap();
        let known = ["token", "tokens", "pages", "rows", "bytes"].map(|kind| charge.record(kind, 5));
        assert_eq!(known, [false, true, true, true, true]);
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    });
    let service = ServiceBuilder::new().layer(inner.layer.clone()).layer(outer.layer.clone()).service(handler);
    service.oneshot(by("alice", "/")).await.unwrap();
    assert_eq!((outer.used("tokens_per_hour").await, inner.used("rows_per_hour").await), (5, 5));
    assert_eq!(heard.lines(), ["quota token"]);
}

#[tokio::test]
async fn commit_with_an_unknown_unit_emits_an_event() {
    let (Scene { quotas, .. }, heard) = scene();
    let alice = Client::named("alice");
    quotas.reserve(&alice, ("tokens", 5)).await.unwrap().commit([("token", 1), ("tokens", 2)]);
    let id = quotas.reserve(&alice, ("tokens", 5)).await.unwrap().detach();
    quotas.commit(&id, ("token", 1)).await.unwrap();
    assert_eq!(heard.lines(), ["quota token", "quota token"]);
    assert_eq!(quotas.usage(&alice).await.unwrap().get("tokens_per_hour").unwrap().used, 7);
}
