//! Identity of charged clients, and secrecy of their credentials.

use super::*;
use std::{fmt::Write as _, panic::catch_unwind};

use tollgate::{ApiKey, OnUnidentified, PeerIp, Principal};

#[tokio::test]
async fn unidentified_requests_share_pass_or_are_refused() {
    let unidentified = || Request::post("/").body(Full::default()).unwrap();
    for (strangers, expected) in
        [(OnUnidentified::Share, [200, 200, 429]), (OnUnidentified::Refuse, [403; 3]), (OnUnidentified::Pass, [200; 3])]
    {
        let scene = Scene::new(hourly(2), |layer| layer.on_unidentified(strangers));
        let mut statuses = [0; 3];
        for status in &mut statuses {
            *status = scene.ask(unidentified()).await.status;
        }
        assert_eq!(statuses, expected);
        assert_eq!(scene.log.lines().iter().filter(|line| *line == "unidentified").count(), 1);
        assert_eq!(scene.get("/").await.status, 200);
    }
}

#[tokio::test]
async fn unidentified_requests_are_the_anonymous_client() {
    let scene = Scene::new(hourly(2), |layer| layer);
    scene.ask(Request::post("/").body(Full::default()).unwrap()).await;
    let anonymous = scene.quotas.anonymous();
    assert_eq!(scene.quotas.usage(&anonymous).await.unwrap().limits[0].used, 1);
}

#[test]
fn daily_plan_rejects_unverified_identity_unless_accepted() {
    let day = || Plan::new("day").limit(Quota::requests(5).per(Period::day()));
    let build = |layer: QuotaLayer| catch_unwind(std::panic::AssertUnwindSafe(|| drop(layer.handle())));
    let reason = build(QuotaLayer::new(day()).identify_by(user())).unwrap_err();
    let reason = reason.downcast_ref::<String>().unwrap();
    assert!(reason.contains("but the identity is not verified; call .accept_unverified()"), "{reason}");
    assert!(reason.starts_with("plan \"day\" has the limit \"requests_per_day\""), "{reason}");
    assert!(build(QuotaLayer::new(hourly(5)).tier_plan("pro", day()).identify_by(user())).is_err());
    assert!(build(QuotaLayer::new(day()).identify_by(user()).accept_unverified()).is_ok());
    assert!(build(QuotaLayer::new(day()).identify_by(PeerIp::new())).is_ok());
    assert!(build(QuotaLayer::new(hourly(5)).identify_by(user())).is_ok());
    let quotas = QuotaLayer::new(hourly(5)).identify_by(user()).handle();
    assert!(quotas.set_plan(day()).is_err(), "nor later");
}

#[tokio::test]
async fn exempt_request_is_not_charged() {
    let scene = Scene::new(hourly(1), |layer| layer.exempt(|request| request.uri.path() == "/query"));
    for path in ["/query", "/query", "/", "/query"] {
        assert_eq!(scene.get(path).await.status, 200);
    }
    assert_eq!(scene.get("/").await.status, 429);
}

#[tokio::test]
async fn secret_appears_in_no_output() {
    const CANARY: &str = "canary-7f3a9c";
    let log = Log::default();
    let heard = log.clone();
    let keys = std::collections::HashMap::from([(CANARY.to_owned(), Principal::unnamed().in_tier("pro"))]);
    let plan = hourly(3).limit(Quota::units("tokens", 10).per(Period::hour())).limit(Quota::concurrent(2));
    let layer = QuotaLayer::new(plan)
        .identify_by(ApiKey::header("x-api-key", keys).or(Unverified::header("x-session")))
        .job_ids(JobIdSource::header("x-job-id"))
        .share_with_handler()
        .clock(FakeClock::at(START))
        .observe(move |event: &Event<'_>| heard.push(format!("{event:?}")));
    let quotas = layer.handle();
    let mut shown = format!("{layer:?} {quotas:?} {:?}", JobIdSource::header("x-job-id"));
    let seen = Log::default();
    let saw = seen.clone();
    let service = layer.layer(service_fn(move |request: Request<Full<Bytes>>| {
        saw.push(format!("{:?}", request.extensions().get::<QuotaStatus>()));
        saw.push(format!("{:?}", request.extensions().get::<Charge>()));
        async { Ok::<_, &'static str>(Response::new(Full::<Bytes>::default())) }
    }));
    let mut statuses = Vec::new();
    for header in ["x-api-key", "x-session"] {
        for n in 0..6 {
            for content_type in ["text/plain", "application/grpc"] {
                let request = Request::post("/").version(http::Version::HTTP_2).header(header, CANARY);
                let request = request.header("content-type", content_type);
                let request = request.header("x-job-id", format!("{CANARY} {}", n % 4));
                let request = request.body(Full::default()).unwrap();
                write!(shown, "{:?}", quotas.explain(&RequestHead::of(&request)).await.unwrap()).unwrap();
                let response = service.clone().oneshot(request).await.unwrap();
                statuses.push(response.status().as_u16());
                write!(shown, "{:?} {:?}", response.headers(), response.extensions().get::<Refusal>()).unwrap();
                let body = response.into_body();
                write!(shown, "{body:?}").unwrap();
                write!(shown, "{:?}", body.collect().await.unwrap().to_bytes()).unwrap();
            }
        }
    }
    assert!(statuses.contains(&409) && statuses.contains(&429), "{statuses:?}");
    write!(shown, "{:?}", quotas.usage_page(None, 100).await.unwrap()).unwrap();
    shown.extend(log.lines());
    shown.extend(seen.lines());
    assert!(!shown.contains("canary"));
}
