//! Quotas of a scan endpoint and of a database service, request by request.

use super::*;

const DAILY: u64 = 53_687_091_200;

/// A plan of five concurrent scans and 50 GiB a day.
fn scans() -> Scene {
    let plan = Plan::new("scans")
        .limit(Quota::units("bytes_scanned", DAILY).per(Period::day()).named("daily_bytes"))
        .limit(Quota::concurrent(5).named("concurrent_scans"));
    Scene::new(plan, |layer| layer)
}

#[tokio::test]
async fn sixth_request_in_flight_is_refused_at_once() {
    let scene = scans();
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(scene.service().oneshot(by("alice", "/stream/1")).await.unwrap());
    }
    let sixth = scene.get("/").await;
    assert_eq!((sixth.status, scene.served()), (429, 5));
    assert_eq!(scene.ask(by("bob", "/")).await.status, 200, "another client has slots of its own");
    held.pop();
    assert_eq!(scene.get("/").await.status, 200, "one slot is free again");
}

#[tokio::test]
async fn exhausted_daily_bytes_refuse_before_the_handler() {
    let scene = scans();
    let alice = scene.client("alice");
    scene.quotas.record(&alice, ("bytes_scanned", DAILY - 1)).await.unwrap();
    assert_eq!(scene.get("/").await.status, 200, "one byte is left");
    scene.quotas.record(&alice, ("bytes_scanned", 1)).await.unwrap();
    assert_eq!((scene.get("/").await.status, scene.served()), (429, 1), "exactly at the limit");
}

#[tokio::test]
async fn record_past_the_limit_refuses_the_next_request() {
    let scene = scans();
    let alice = scene.client("alice");
    assert_eq!(scene.get("/").await.status, 200);
    scene.quotas.record(&alice, ("bytes_scanned", 3 * DAILY)).await.unwrap(); // after the work
    assert_eq!(scene.used("daily_bytes").await, 3 * DAILY);
    assert_eq!(scene.get("/").await.status, 429);

    let scene = scans();
    scene.quotas.record(&alice, ("bytes_scanned", 0)).await.unwrap();
    assert_eq!(scene.used("daily_bytes").await, 0, "nothing is recorded of nothing");
}

#[tokio::test]
async fn daily_limit_retries_after_utc_midnight() {
    let scene = scans();
    scene.quotas.record(&scene.client("alice"), ("bytes_scanned", DAILY)).await.unwrap();
    let refused = scene.get("/").await;
    let midnight = START.as_secs() + LEFT_TODAY;
    assert_eq!(refused.json()["resets_at"], midnight);
    scene.clock.advance(Duration::from_secs(LEFT_TODAY) - Duration::from_nanos(1));
    assert_eq!(scene.get("/").await.json()["resets_at"], midnight);
    scene.clock.advance(Duration::from_nanos(1));
    assert_eq!(scene.get("/").await.status, 200, "midnight");
    assert_eq!(scene.used("daily_bytes").await, 0);
}

#[tokio::test]
async fn problem_document_has_kind_current_limit_and_wait() {
    let scene = scans();
    scene.quotas.record(&scene.client("alice"), ("bytes_scanned", DAILY + 7)).await.unwrap();
    let refused = scene.get("/").await;
    assert_eq!(refused.field("content-type"), "application/problem+json");
    let body = refused.json();
    assert_eq!((&body["limit_name"], &body["kind"]), (&"daily_bytes".into(), &"bytes_scanned".into()));
    assert_eq!((&body["current"], &body["limit"]), (&Value::from(DAILY + 7), &Value::from(DAILY)));
    let wait = body["retry_after_seconds"].as_u64().unwrap();
    assert!((LEFT_TODAY..=LEFT_TODAY + 300).contains(&wait), "{wait}");
    assert_eq!(refused.field("retry-after"), wait.to_string());
    assert_eq!(body["violated-policies"], serde_json::json!(["daily_bytes"]));

    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(scene.service().oneshot(by("bob", "/stream/1")).await.unwrap());
    }
    let body = scene.ask(by("bob", "/")).await.json();
    assert_eq!((&body["limit_name"], body.get("resets_at")), (&"concurrent_scans".into(), None));
    assert_eq!((&body["current"], &body["limit"], &body["retry_after_seconds"]), (&5.into(), &5.into(), &1.into()));
}

#[tokio::test]
async fn routes_of_one_layer_share_usage() {
    let scene = Scene::new(hourly(2), |layer| layer);
    let fine = || axum::routing::post(|| async { "fine" });
    let app = axum::Router::new()
        .route("/api/v2/scan", fine())
        .route("/api/query", fine())
        .route("/third", fine())
        .layer(scene.layer.clone());
    let mut statuses = Vec::new();
    for path in ["/api/v2/scan", "/api/query", "/third"] {
        let request = by("alice", path).map(axum::body::Body::new);
        statuses.push(app.clone().oneshot(request).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 429], "three routes under one layer share one account");
}

#[test]
fn concurrent_first_requests_share_one_account() {
    for _ in 0..200 {
        let layer = QuotaLayer::new(hourly(1)).identify_by(user()).clock(FakeClock::at(START));
        let start = std::sync::Barrier::new(2);
        let passed: usize = std::thread::scope(|scope| {
            let threads = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    let service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
                        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                    }));
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let answer = runtime.block_on(service.oneshot(by("alice", "/"))).unwrap();
                    usize::from(answer.status() == 200)
                })
            });
            threads.map(|thread| thread.join().unwrap()).iter().sum()
        });
        assert_eq!(passed, 1);
    }
}

#[tokio::test]
async fn handle_reports_bytes_of_the_day() {
    let scene = scans();
    let alice = scene.client("alice");
    scene.quotas.record(&alice, ("bytes_scanned", 4_096)).await.unwrap();
    scene.quotas.record(&alice, ("bytes_scanned", 1_024)).await.unwrap();
    let usage = scene.quotas.usage(&alice).await.unwrap();
    let day = usage.get("daily_bytes").unwrap();
    assert_eq!((day.used, day.remaining), (5_120, DAILY - 5_120));
    let midnight = std::time::SystemTime::UNIX_EPOCH + START + Duration::from_secs(LEFT_TODAY);
    assert_eq!(day.resets_at, Some(midnight));
}

#[tokio::test]
async fn standard_plan_counts_requests_queries_and_bytes() {
    let scene = Scene::new(Plan::standard(), |layer| {
        layer.cost("queries", |request| (request.uri.path() == "/query").then_some(1))
    });
    let alice = scene.client("alice");
    assert_eq!(scene.get("/").await.status, 200);
    assert_eq!(scene.get("/query").await.status, 200);
    let used: Vec<_> =
        scene.quotas.usage(&alice).await.unwrap().limits.iter().map(|limit| (limit.used, limit.limit)).collect();
    assert_eq!(used, [(2, 3_600), (2, 86_400), (1, 1_800), (1, 43_200), (8, 1 << 30)]);

    scene.quotas.record(&alice, ("queries", 1_799)).await.unwrap();
    let refused = scene.get("/query").await;
    assert_eq!((refused.status, &refused.json()["limit_name"]), (429, &"queries_per_hour".into()));
    assert_eq!(scene.get("/").await.status, 200, "a request that is no query has nothing to do with them");
}

#[tokio::test]
async fn request_is_charged_in_full_or_refused() {
    let plan = hourly(10).limit(Quota::units("tokens", 100).per(Period::hour()));
    let scene = Scene::new(plan, |layer| layer.cost("tokens", |request| request.uri.query()?.parse().ok()));
    assert_eq!(scene.get("/?95").await.status, 200);
    let refused = scene.get("/?10").await;
    assert_eq!((refused.status, &refused.json()["limit_name"]), (429, &"tokens_per_hour".into()));
    let told = refused.json()["detail"].as_str().unwrap().to_owned();
    let minutes = told.strip_prefix("Too little is left of the limit of 100. Retry in ").unwrap();
    let minutes: u64 = minutes.strip_suffix(" minutes.").unwrap().parse().unwrap();
    assert!((30..=35).contains(&minutes), "{told}");
    assert_eq!((scene.used("tokens_per_hour").await, scene.used("requests_per_hour").await), (95, 1));
    assert_eq!(scene.get("/?5").await.status, 200, "exactly the rest");
    assert_eq!(scene.get("/").await.status, 200, "a kind that it has nothing to do with");
}

#[tokio::test]
async fn period_end_and_reset_start_from_zero() {
    let scene = Scene::new(hourly(1), |layer| layer);
    assert_eq!(scene.get("/").await.status, 200);
    assert_eq!(scene.get("/").await.status, 429);
    scene.quotas.reset(&scene.client("alice"), "requests_per_hour").await.unwrap();
    assert_eq!(scene.get("/").await.status, 200);
    assert_eq!(scene.get("/").await.status, 429);
    scene.clock.advance(Duration::from_secs(1_800));
    assert_eq!(scene.get("/").await.status, 200);
}

#[tokio::test]
async fn client_and_tier_plans_change_while_running() {
    let keys = std::collections::HashMap::from([
        ("a".to_owned(), tollgate::Principal::named("alice").in_tier("pro")),
        ("b".to_owned(), tollgate::Principal::named("bob")),
        ("c".to_owned(), tollgate::Principal::named("carol").in_tier("pro")),
    ]);
    let scene = Scene::new(hourly(1), |layer| {
        let keys = tollgate::ApiKey::header("x-user", keys);
        let carol = keys.identify(&RequestHead::of(&by("c", "/")), tollgate::Digester::process()).unwrap();
        layer.identify_by(keys).tier_plan("pro", hourly(2)).client_plan(carol, hourly(3))
    });
    let passes = async |who: &str| {
        let mut passed = 0;
        while scene.ask(by(who, "/")).await.status == 200 {
            passed += 1;
        }
        passed
    };
    assert_eq!((passes("a").await, passes("b").await, passes("c").await), (2, 1, 3));
    scene.quotas.set_tier_plan("pro", hourly(5)).unwrap();
    assert_eq!((passes("a").await, passes("b").await, passes("c").await), (3, 0, 0), "what was used stays used");
}

#[tokio::test]
async fn ten_requests_at_95_of_105_admit_exactly_one() {
    let plan = Plan::new("free").limit(Quota::units("tokens", 105).per(Period::hour()));
    let scene = Scene::new(plan, |layer| layer.cost("tokens", |_| Some(10)));
    scene.quotas.record(&scene.client("alice"), ("tokens", 95)).await.unwrap();
    let answers = futures_util::future::join_all((0..10).map(|_| scene.get("/wait/3"))).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((passed, scene.used("tokens_per_hour").await), (1, 105));
}

#[tokio::test]
async fn warning_at_90_percent_stop_at_100_and_a_grant() {
    let scene = Scene::new(hourly(10), |layer| layer);
    for n in 1..=10 {
        let answer = scene.get("/").await;
        assert_eq!(answer.status, 200);
        let warning = if n == 9 { r#""requests_per_hour";u=9;q=10"# } else { "" };
        assert_eq!(answer.field("quota-near-limits"), warning, "request {n}");
    }
    assert_eq!(scene.log.lines(), ["near requests_per_hour 9/10"]);
    assert_eq!(scene.get("/").await.status, 429);
    let until = std::time::SystemTime::UNIX_EPOCH + START + Duration::from_secs(600);
    let grant = tollgate::Grant::new("requests_per_hour", 2, until).approved_by("M. Okafor").because("launch");
    scene.quotas.grant(&scene.client("alice"), grant).await.unwrap();
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(scene.get("/").await.status);
    }
    assert_eq!(statuses, [200, 200, 429]);
    scene.clock.advance(Duration::from_secs(1_800));
    assert_eq!(scene.get("/").await.status, 200, "recovered after the period");
    for _ in 2..=9 {
        scene.get("/").await;
    }
    assert_eq!(scene.log.lines().len(), 2, "once in each period: {:?}", scene.log.lines());
}

#[tokio::test]
async fn warning_is_emitted_when_usage_jumps_past_90_percent() {
    for (first, second) in [(50, 49), (80, 20), (90, 1), (0, 100), (5, 200)] {
        let plan = Plan::new("free").limit(Quota::units("tokens", 100).per(Period::hour()));
        let scene = Scene::new(plan, |layer| layer.share_with_handler());
        let alice = scene.client("alice");
        scene.quotas.record(&alice, ("tokens", first)).await.unwrap();
        scene.quotas.record(&alice, ("tokens", second)).await.unwrap();
        scene.quotas.record(&alice, ("tokens", 1)).await.unwrap();
        assert_eq!(scene.log.lines().len(), 1, "{first}, then {second}: {:?}", scene.log.lines());
    }
}

#[tokio::test]
async fn clients_never_share_accounts_or_jobs() {
    let scene = Scene::new(hourly(1), |layer| layer.job_ids(JobIdSource::header("x-job-id")));
    for name in ["alice", "bob", "alice2", "ALICE"] {
        let mut request = by(name, "/");
        request.headers_mut().insert("x-job-id", "7".parse().unwrap());
        let answer = scene.ask(request).await;
        assert_eq!(answer.status, 200, "{name} has an account, and ids, of its own");
        assert_eq!(answer.field("ratelimit"), r#""requests_per_hour";r=0;t=1800"#);
    }
    assert_eq!(scene.served(), 4);
}

#[tokio::test]
async fn idle_clients_are_evicted() {
    let scene = Scene::new(hourly(5), |layer| layer);
    for n in 0..100 {
        scene.ask(by(&format!("user {n}"), "/")).await;
    }
    assert_eq!(scene.quotas.live_clients(), 100);
    scene.clock.advance(Duration::from_secs(3_600));
    scene.quotas.forget_idle().await;
    assert_eq!(scene.quotas.live_clients(), 0);
}
