//! Explanations of each limit's answer to a request, without a charge.

use std::{net::SocketAddr, sync::Arc, sync::Mutex};

use http::{Request, Response};
use tollgate::{Event, Forwarded, OnUnidentified, PeerIp, RequestHead, Unverified};
use tower::{Layer, ServiceExt, service_fn};

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

#[tokio::test]
async fn explain_uses_up_no_warning_and_emits_no_event() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let forwarded = Forwarded::x_forwarded_for().from_networks(["127.0.0.1"]);
    let layer = QuotaLayer::new(Plan::new("free").limit(Quota::requests(9).per(Period::hour())))
        .identify_by(PeerIp::new().trust_forwarded(forwarded))
        .on_unidentified(OnUnidentified::Share)
        .observe(move |event: &Event<'_>| {
            seen.lock().unwrap().push(format!("{event:?}").split_whitespace().next().unwrap().to_owned());
        });
    let proxied = || {
        let request = Request::get("/").header("x-forwarded-for", "unreadable");
        request.extension(SocketAddr::from(([127, 0, 0, 1], 1))).body(()).unwrap()
    };
    for request in [Request::new(()), proxied()] {
        let explained = layer.handle().explain(&RequestHead::of(&request)).await.unwrap();
        assert!(explained.client.is_some() && explained.refusal.is_none());
    }
    assert_eq!(*events.lock().unwrap(), [] as [&str; 0]);

    let service = layer.layer(service_fn(|_: Request<()>| async { Ok::<_, ()>(Response::new(String::new())) }));
    for request in [Request::new(()), proxied()] {
        service.clone().oneshot(request).await.unwrap();
    }
    assert_eq!(*events.lock().unwrap(), ["Unidentified", "Admitted", "UnreadableForwarded", "Admitted"]);
}
