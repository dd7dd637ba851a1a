//! Explanations of each limit's answer to a request, without a charge.

use http::Request;
use tollgate::{RequestHead, Unverified};

use super::*;

#[tokio::test]
async fn explain_reports_each_limit_and_charges_nothing() {
    let plan = Plan::new("free")
        .limit(Quota::requests(2).per(Period::hour()))
        .limit(Quota::units("queries", 10).per(Period::day()))
        .limit(Quota::units("rows", 10).per(Period::day()))
        .limit(Quota::concurrent(1));
    let layer = QuotaLayer::new(plan)
        .identify_by(Unverified::header("x-user"))
        .cost("queries", |request| request.uri.path().starts_with("/query").then_some(4));
    let scene = Scene::of(layer);
    let request = Request::get("/query").header("x-user", "alice").body(()).unwrap();
    let explained = scene.quotas.explain(&RequestHead::of(&request)).await.unwrap();
    let client = explained.client.unwrap();
    assert!(explained.refusal.is_none() && explained.limits.iter().all(|limit| limit.passes));
    let asked: Vec<_> = explained.limits.iter().map(|limit| (limit.usage.name.as_str(), limit.asked)).collect();
    assert_eq!(
        asked,
        [
            ("requests_per_hour", Some(1)),
            ("queries_per_day", Some(4)),
            ("rows_per_day", Some(0)),
            ("concurrent_requests", Some(1))
        ]
    );
    assert_eq!(scene.quotas.live_clients(), 0);

    scene.quotas.record(&client, [("queries", 7), ("rows", 10)]).await.unwrap();
    let explained = scene.quotas.explain(&RequestHead::of(&request)).await.unwrap();
    let passes: Vec<_> = explained.limits.iter().map(|limit| limit.passes).collect();
    assert_eq!(passes, [true, false, false, true]);
    let refusal = explained.refusal.unwrap();
    let names: Vec<_> = refusal.violations().iter().map(|violation| violation.name.to_string()).collect();
    assert_eq!(names, ["queries_per_day", "rows_per_day"]);
    assert_eq!(
        scene.quotas.usage(&client).await.unwrap().limits.iter().map(|limit| limit.used).collect::<Vec<_>>(),
        [0, 7, 10, 0]
    );
}
