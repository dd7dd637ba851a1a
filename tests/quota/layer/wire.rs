//! Rate limit fields, problem documents and gRPC details of quota responses.

use super::*;
use tollgate::{Dialect, refusal::Reset};
use tonic_types::StatusExt;

fn daily(requests: u64) -> Plan {
    Plan::new("daily").limit(Quota::requests(requests).per(Period::day()))
}

#[tokio::test]
async fn fields_list_all_limits_and_the_nearest_one() {
    let plan = daily(100)
        .limit(Quota::requests(10).per(Period::hour()))
        .limit(Quota::bytes(1_000).per(Period::day()))
        .limit(Quota::units("tokens", 50).per(Period::month()))
        .limit(Quota::concurrent(5));
    let scene = Scene::new(plan, |layer| layer);
    let answer = scene.get("/").await;
    let policies = concat!(
        r#""requests_per_day";q=100;w=86400, "requests_per_hour";q=10;w=3600, "#,
        r#""bytes_per_day";q=1000;w=86400;qu="content-bytes", "tokens_per_month";q=50;w=2678400;qu="tokens", "#,
        r#""concurrent_requests";q=5;qu="concurrent-requests""#
    );
    assert_eq!(answer.field("ratelimit-policy"), policies);
    assert_eq!(answer.field("ratelimit"), r#""concurrent_requests";r=4"#, "four of five are left, nine of ten");
    for _ in 0..3 {
        scene.get("/").await;
    }
    assert_eq!(scene.get("/").await.field("ratelimit"), r#""requests_per_hour";r=5;t=1800"#);
    scene.quotas.record(&scene.client("alice"), ("tokens", 49)).await.unwrap();
    let july = (31 * 86_400 - 5_400).to_string();
    assert_eq!(scene.get("/").await.field("ratelimit"), format!(r#""tokens_per_month";r=1;t={july}"#));
}

#[tokio::test]
async fn refusal_lists_all_violations_and_the_longest_wait() {
    let plan =
        daily(1).limit(Quota::requests(1).per(Period::hour())).limit(Quota::units("tokens", 5).per(Period::hour()));
    let scene = Scene::new(plan, |layer| layer);
    scene.get("/").await;
    let refused = scene.get("/").await;
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["requests_per_day", "requests_per_hour"]));
    assert_eq!((&refused.json()["limit_name"], &refused.json()["limit"]), (&"requests_per_day".into(), &1.into()));
    assert_eq!(refused.json()["kind"], "requests");
    assert_eq!(refused.field("ratelimit"), format!(r#""requests_per_day";r=0;t={LEFT_TODAY}"#));
    assert_eq!(refused.field("cache-control"), "no-store");
    let waits: Vec<_> = refused.refusal.unwrap().violations().iter().map(|v| v.wait.unwrap().as_secs()).collect();
    assert_eq!(waits, [LEFT_TODAY, 1_800]);
}

#[tokio::test]
async fn advised_wait_is_spread_over_five_minutes_past_midnight() {
    let scene = Scene::new(daily(1), |layer| layer);
    let mut waits = Vec::new();
    for n in 0..200 {
        let name = format!("user {n}");
        scene.ask(by(&name, "/")).await;
        let refused = scene.ask(by(&name, "/")).await;
        let wait: u64 = refused.field("retry-after").parse().unwrap();
        assert_eq!(refused.json()["retry_after_seconds"], wait, "the body repeats the field");
        let midnight = tollgate::Clock::from(scene.clock.clone()).wall().as_secs() + LEFT_TODAY;
        assert_eq!(refused.json()["resets_at"], midnight, "the boundary itself");
        assert!((LEFT_TODAY..=LEFT_TODAY + 300).contains(&wait), "{wait}");
        waits.push(wait);
    }
    let mut different = waits.clone();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() > 80, "only {} different", different.len());
    assert!(different[0] < LEFT_TODAY + 60 && different[different.len() - 1] > LEFT_TODAY + 240);

    scene.clock.advance(Duration::from_secs(3_600));
    let later = scene.ask(by("user 7", "/")).await;
    assert_eq!(later.field("retry-after"), (waits[7] - 3_600).to_string(), "the same moment for the same client");
    scene.clock.advance(Duration::from_secs(waits[7] - 3_600));
    assert_eq!(scene.ask(by("user 7", "/")).await.status, 200, "who waits so long is admitted");

    let midnight = LEFT_TODAY + 86_400 - waits[7];
    let tomorrow = async |n: usize| {
        let name = format!("user {n}");
        scene.ask(by(&name, "/")).await;
        scene.ask(by(&name, "/")).await.field("retry-after").parse::<u64>().unwrap() - midnight
    };
    let mut moved = 0;
    for (n, wait) in waits.iter().enumerate() {
        moved += u32::from(tomorrow(n).await != wait - LEFT_TODAY);
    }
    assert!(moved > 150, "another moment on another day, for all but the few whom chance leaves: {moved} of 200");
}

#[tokio::test]
async fn spread_is_at_most_a_tenth_and_zero_for_own_windows() {
    let rolling = Plan::new("rolling").limit(Quota::requests(1).per(Period::rolling(Duration::from_secs(7_200))));
    let scene = Scene::new(rolling, |layer| layer);
    for n in 0..50 {
        let name = format!("user {n}");
        scene.ask(by(&name, "/")).await;
        assert_eq!(scene.ask(by(&name, "/")).await.field("retry-after"), "7200");
    }
    let scene = Scene::new(hourly(1), |layer| layer);
    for n in 0..50 {
        let name = format!("user {n}");
        scene.ask(by(&name, "/")).await;
        let wait: u64 = scene.ask(by(&name, "/")).await.field("retry-after").parse().unwrap();
        assert!((1_800..=1_800 + 300).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn amount_above_the_limit_is_413_without_retry_after() {
    let plan = Plan::new("uploads").limit(Quota::bytes(100).per(Period::hour()).counting(Direction::Request));
    let scene = Scene::new(plan, |layer| layer);
    let mut request = by("alice", "/");
    request.headers_mut().insert("content-length", 101.into());
    let refused = scene.ask(request).await;
    assert_eq!((refused.status, scene.served()), (413, 0));
    assert!(refused.headers.get("retry-after").is_none());
    let body = refused.json();
    assert_eq!((&body["limit_name"], &body["kind"]), (&"request_bytes_per_hour".into(), &"request_bytes".into()));
    assert_eq!((&body["limit"], body.get("resets_at")), (&100.into(), None));
    assert!(body.get("retry_after_seconds").is_none());
}

/// Returns the same request as a gRPC call.
fn grpc(mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    *request.version_mut() = http::Version::HTTP_2;
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

#[tokio::test]
async fn grpc_clients_read_resource_exhausted_with_its_details() {
    let plan = daily(1).limit(Quota::requests(1).per(Period::hour())).limit(Quota::concurrent(1));
    let scene = Scene::new(plan, |layer| layer);
    let ask = async || scene.ask(grpc(by("alice", "/"))).await;
    let held = scene.service().oneshot(by("alice", "/stream/1")).await.unwrap();
    let refused = ask().await;
    assert_eq!((refused.status, refused.body.len()), (200, 0));
    let status = tonic::Status::from_header_map(&refused.headers).unwrap();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted);
    let details = status.check_error_details().unwrap();
    let subjects: Vec<_> = details.quota_failure().unwrap().violations.iter().map(|v| v.subject.clone()).collect();
    assert_eq!(subjects, ["requests_per_day", "requests_per_hour", "concurrent_requests"]);
    let delay = details.retry_info().unwrap().retry_delay.unwrap();
    let field: u64 = refused.field("retry-after").parse().unwrap();
    assert_eq!(delay.as_secs() + u64::from(delay.subsec_nanos() > 0), field, "the same wait as the field");
    assert_eq!(refused.field("grpc-retry-pushback-ms"), "-1", "no client holds a call until midnight");
    drop(held);

    let at_a_time = Scene::new(Plan::new("one").limit(Quota::concurrent(1)), |layer| layer);
    let _held = at_a_time.service().oneshot(by("alice", "/stream/1")).await.unwrap();
    let request = grpc(by("alice", "/"));
    assert_eq!(at_a_time.ask(request).await.field("grpc-retry-pushback-ms"), "1000");
}

#[tokio::test]
async fn grpc_clients_read_that_a_job_was_done() {
    let scene = Scene::new(hourly(9), |layer| layer.job_ids(JobIdSource::header("x-job-id")));
    scene.ask(job("7", "/")).await;
    let request = grpc(job("7", "/"));
    let status = tonic::Status::from_header_map(&scene.ask(request).await.headers).unwrap();
    assert_eq!(status.code(), tonic::Code::AlreadyExists);
    assert_eq!(status.get_details_error_info().unwrap().reason, "DUPLICATE_JOB_ID");
}

#[tokio::test]
async fn other_dialects() {
    let scene = Scene::new(daily(5), |layer| layer.rate_limit_headers(Dialect::None));
    let answer = scene.get("/").await;
    assert!(answer.headers.keys().all(|name| !name.as_str().contains("ratelimit")), "{:?}", answer.headers);
    let plan = daily(5).limit(Quota::concurrent(2));
    let scene = Scene::new(plan, |layer| layer.rate_limit_headers(Dialect::XRateLimit { reset: Reset::Delta }));
    let answer = scene.get("/").await;
    assert_eq!((answer.field("x-ratelimit-limit"), answer.field("x-ratelimit-remaining")), ("2", "1"));
    assert!(answer.headers.get("x-ratelimit-reset").is_none());
    scene.quotas.record(&scene.client("alice"), ("requests", 4)).await.unwrap();
    let refused = scene.get("/").await;
    assert_eq!((refused.field("x-ratelimit-limit"), refused.field("x-ratelimit-remaining")), ("5", "0"));
    assert_eq!(refused.field("x-ratelimit-reset"), LEFT_TODAY.to_string());
}

#[tokio::test]
async fn stacked_layers_merge_fields_and_keep_the_longest_wait() {
    let scene = Scene::new(hourly(1), |layer| layer);
    let bucket = tollgate::TokenBucketLayer::new(tollgate::Rate::per_hour(10)).clock(scene.clock.clone());
    let bucket = bucket.on_unidentified(tollgate::OnUnidentified::Share);
    let inner =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, &'static str>(Response::new(Full::<Bytes>::default())) });
    let service = ServiceBuilder::new().layer(bucket).layer(scene.layer.clone()).service(inner);
    let answer = Answer::read(service.clone().oneshot(by("alice", "/")).await).await;
    assert_eq!(answer.field("ratelimit-policy"), r#""requests_per_hour";q=1;w=3600, "default";q=10;w=3600"#);
    assert_eq!(answer.field("ratelimit"), r#""requests_per_hour";r=0;t=1800, "default";r=9;t=3240"#);
    let refused = Answer::read(service.oneshot(by("alice", "/")).await).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers.get_all("retry-after").iter().count(), 1);
    let wait: u64 = refused.field("retry-after").parse().unwrap();
    assert!((1_800..=2_100).contains(&wait));
    assert_eq!(refused.field("ratelimit"), r#""requests_per_hour";r=0;t=1800, "default";r=8;t=2880"#);
}

#[tokio::test]
async fn custom_answer_has_retry_after() {
    let scene = Scene::new(daily(1), |layer| {
        layer.refuse_with(|refusal: &Refusal| Response::builder().status(402).body(refusal.to_string()).unwrap())
    });
    scene.get("/").await;
    let refused = scene.get("/").await;
    assert_eq!(
        (refused.status, &refused.body[..]),
        (402, &b"policy \"quota\": limit of 1 reached, retry in 81000s"[..])
    );
    assert!(refused.field("retry-after").parse::<u64>().unwrap() >= LEFT_TODAY);
}

#[tokio::test]
async fn shared_account_of_newcomers_shows_no_limits() {
    let scene = Scene::new(hourly(2).limit(Quota::units("tokens", 100).per(Period::hour())), |layer| {
        layer.max_clients(1).share_with_handler()
    });
    assert_eq!(scene.get("/").await.status, 200);
    let mut statuses = Vec::new();
    for name in ["bob", "carol", "dave"] {
        let answer = scene.ask(by(name, "/record/1")).await;
        statuses.push(answer.status);
        assert_eq!(answer.field("ratelimit"), "");
        if answer.status == 503 {
            let body = answer.json();
            assert!(body.get("current").is_none() && body.get("limit").is_none() && body.get("kind").is_none());
            assert_eq!(body["violated-policies"], serde_json::json!(["quota"]));
        }
    }
    assert_eq!(statuses, [200, 200, 503]);
    assert_eq!(scene.get("/").await.status, 200, "who has an account keeps it");
    assert_eq!(scene.log.lines().iter().filter(|line| *line == "overflow").count(), 3);
}

#[tokio::test]
async fn cors_lets_a_browser_read_warning_and_refusal() {
    use tower_http::cors::{Any, CorsLayer};
    let scene = Scene::new(hourly(1), |layer| layer);
    let cors = CorsLayer::new().allow_origin(Any).expose_headers(tollgate::refusal::EXPOSED_HEADERS);
    let app = axum::Router::new().route("/", axum::routing::post(|| async {})).layer((cors, scene.layer.clone()));
    for (status, field) in [(200, "quota-near-limits"), (429, "retry-after")] {
        let mut request = by("alice", "/").map(axum::body::Body::new);
        request.headers_mut().insert("origin", "https://example.org".parse().unwrap());
        let answer = app.clone().oneshot(request).await.unwrap();
        let exposed = answer.headers()["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains(field) && answer.headers().contains_key(field), "{exposed}");
        assert_eq!(answer.status(), status);
    }
}

#[tokio::test]
async fn shadow_admits_and_emits_the_refusal() {
    let log = Log::default();
    let heard = log.clone();
    let scene = Scene::new(hourly(1), |layer| {
        layer.shadow().observe(move |event: &Event<'_>| {
            if let Event::Refused { refusal, shadow: true, .. } = event {
                heard.push(refusal.violations()[0].name.to_string());
            }
        })
    });
    for _ in 0..3 {
        assert_eq!(scene.get("/").await.status, 200);
    }
    assert_eq!(log.lines(), ["requests_per_hour", "requests_per_hour"]);
}

/// Charges the number of tokens in the path.
fn tokens(plan: Plan, dialect: Dialect) -> Scene {
    Scene::new(plan, |layer| {
        let asked = |request: &RequestHead<'_>| request.uri.query().map(|tokens| tokens.parse().unwrap());
        layer.rate_limit_headers(dialect).cost("tokens", asked)
    })
}

#[tokio::test]
async fn refusal_for_cost_reports_the_remaining_amount() {
    let plan = || {
        Plan::new("tokens")
            .limit(Quota::units("tokens", 10_000).per(Period::hour()))
            .limit(Quota::units("tokens", 30_000).per(Period::day()))
            .limit(Quota::requests(100).per(Period::hour()))
    };
    let scene = tokens(plan(), Dialect::Draft11);
    scene.get("/?8060").await;
    let refused = scene.get("/?5000").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.field("ratelimit"), r#""tokens_per_hour";r=1940;t=1800"#);
    assert!(refused.field("retry-after").parse::<u64>().unwrap() >= 1_800);

    for hour in 0..2 {
        scene.clock.advance(Duration::from_secs(3_600));
        assert_eq!(scene.get("/?9000").await.status, 200, "hour {hour}");
    }
    let both = scene.get("/?5000").await;
    let until_midnight = LEFT_TODAY - 7_200;
    assert_eq!(both.refusal.as_ref().unwrap().violations().len(), 2);
    assert_eq!(both.field("ratelimit"), format!(r#""tokens_per_day";r=3940;t={until_midnight}"#));

    let scene = tokens(plan(), Dialect::XRateLimit { reset: Reset::Delta });
    scene.get("/?8060").await;
    let refused = scene.get("/?5000").await;
    assert_eq!((refused.field("x-ratelimit-limit"), refused.field("x-ratelimit-remaining")), ("10000", "1940"));
    assert_eq!(refused.field("x-ratelimit-reset"), "1800");
    scene.get("/?1940").await;
    assert_eq!(scene.get("/?1").await.field("x-ratelimit-remaining"), "0");
}

#[tokio::test]
async fn every_integer_of_a_structured_field_is_clamped() {
    let most = (1 << 53) - 1;
    let plan = Plan::new("large")
        .limit(Quota::requests(most).per(Period::day()))
        .limit(Quota::units("tokens", most).per(Period::day()));
    let scene = Scene::new(plan, |layer| layer.cost("tokens", |_| Some((1 << 53) - 2)));
    let answer = scene.get("/").await;
    for name in ["ratelimit", "ratelimit-policy", "quota-near-limits"] {
        let field = answer.field(name);
        let list: sfv::List =
            sfv::Parser::new(field).parse().unwrap_or_else(|error| panic!("{name}: {field}: {error}"));
        assert!(!list.is_empty(), "{name}");
    }
    let warning = r#""tokens_per_day";u=999999999999999;q=999999999999999"#;
    assert_eq!(answer.field("quota-near-limits"), warning);
}
