//! A job is done and charged once, however often its request is sent.

use super::*;

fn scene(settings: impl FnOnce(QuotaLayer) -> QuotaLayer) -> Scene {
    let plan = hourly(3_000).limit(Quota::units("tokens", 100).per(Period::hour()));
    Scene::new(plan, |layer| settings(layer.job_ids(JobIdSource::header("idempotency-key").or_header("x-job-id"))))
}

#[tokio::test]
async fn finished_job_is_refused_as_duplicate_job_id() {
    let scene = scene(|layer| layer);
    assert_eq!(scene.ask(job("7", "/")).await.status, 200);
    for _ in 0..3 {
        let again = scene.ask(job("7", "/")).await;
        assert_eq!((again.status, &again.json()["code"]), (409, &"duplicate_job_id".into()));
        assert!(again.headers.get("retry-after").is_none(), "waiting does not help");
    }
    assert_eq!((scene.served(), scene.used("requests_per_hour").await), (1, 1));
    assert_eq!(scene.get("/").await.status, 200, "a request without an id is a job of its own");
}

#[tokio::test]
async fn running_job_is_refused_with_retry_after() {
    let scene = scene(|layer| layer);
    let mut running = Box::pin(scene.service().oneshot(job("7", "/wait/1")));
    assert!(futures_util::poll!(&mut running).is_pending());
    let again = scene.ask(job("7", "/wait/1")).await;
    assert_eq!((again.status, again.field("retry-after")), (409, "1"));
    assert_eq!(again.refusal.unwrap().reason(), Reason::JobRunning);
    assert_eq!(Answer::read(running.await).await.status, 200);
    assert_eq!(scene.ask(job("7", "/wait/1")).await.json()["code"], "duplicate_job_id");
    assert_eq!(scene.served(), 1);
}

#[tokio::test]
async fn job_runs_until_its_body_is_sent() {
    let scene = scene(|layer| layer);
    let answer = scene.service().oneshot(job("7", "/stream/2")).await.unwrap();
    assert_eq!(scene.ask(job("7", "/stream/2")).await.refusal.unwrap().reason(), Reason::JobRunning);
    drop(answer);
    let after = scene.ask(job("7", "/stream/2")).await.refusal.unwrap().reason();
    assert_eq!(after, Reason::JobOutcomeUnknown, "the client hung up in the middle");
}

#[tokio::test]
async fn one_job_id_on_a_thousand_requests_runs_the_handler_once() {
    let scene = scene(|layer| layer);
    let answers = futures_util::future::join_all((0..1_000).map(|_| scene.ask(job("7", "/wait/5")))).await;
    let mut counts = [0; 2];
    for answer in &answers {
        match answer.status {
            200 => counts[0] += 1,
            409 => counts[1] += 1,
            other => panic!("{other}"),
        }
    }
    assert_eq!((counts, scene.served(), scene.used("requests_per_hour").await), ([1, 999], 1, 1));
}

#[test]
fn one_job_id_on_eight_threads_runs_the_handler_once() {
    for _ in 0..100 {
        let scene = scene(|layer| layer);
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    start.wait();
                    runtime.block_on(scene.ask(job("7", "/wait/1")))
                });
            }
        });
        assert_eq!(scene.served(), 1);
    }
}

#[tokio::test]
async fn same_id_with_another_request_is_a_conflict() {
    let scene =
        scene(|layer| layer.cost("tokens", |request| request.headers.get("x-tokens")?.to_str().ok()?.parse().ok()));
    let request = |path: &str, tokens: &str, body: &'static str| {
        let request = Request::post(path).header("x-user", "alice").header("x-job-id", "7");
        let request = request.header("x-tokens", tokens).header("content-length", body.len());
        request.body(Full::from(body)).unwrap()
    };
    assert_eq!(scene.ask(request("/?a", "5", "abc")).await.status, 200);
    for other in [request("/?b", "5", "abc"), request("/?a", "6", "abc"), request("/?a", "5", "abcd")] {
        let answer = scene.ask(other).await;
        assert_eq!((answer.status, answer.refusal.unwrap().reason()), (422, Reason::JobConflict));
    }
    let mut get = request("/?a", "5", "abc");
    *get.method_mut() = http::Method::PUT;
    assert_eq!(scene.ask(get).await.status, 422);
    assert_eq!(scene.ask(request("/?a", "5", "abc")).await.status, 409, "the very same is a duplicate");
    assert_eq!((scene.served(), scene.used("tokens_per_hour").await), (1, 5));
}

#[tokio::test]
async fn id_of_a_refused_charge_is_free_again() {
    let scene = scene(|layer| layer.cost("tokens", |_| Some(60)));
    assert_eq!(scene.ask(job("7", "/")).await.status, 200);
    assert_eq!(scene.ask(job("8", "/")).await.status, 429);
    scene.clock.advance(Duration::from_secs(1_800));
    assert_eq!(scene.ask(job("8", "/")).await.status, 200);
    assert_eq!(scene.ask(job("8", "/")).await.status, 409);
}

#[tokio::test]
async fn id_of_a_refunded_charge_is_free_again() {
    let scene = scene(|layer| layer.charge_when(|served| served.status.is_some_and(|status| status.is_success())));
    assert_eq!(scene.ask(job("7", "/status/503")).await.status, 503);
    assert_eq!(scene.ask(job("7", "/status/503")).await.status, 503, "nothing was charged: it may try again");

    let closed = tollgate::CircuitBreakerLayer::for_server().trip(tollgate::Trip::consecutive(1));
    closed.handle().force_open();
    let inner =
        service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, &'static str>(Response::new(Full::<Bytes>::default())) });
    let behind = ServiceBuilder::new().layer(scene.layer.clone()).layer(closed.clone()).service(inner);
    assert_eq!(Answer::read(behind.clone().oneshot(job("9", "/")).await).await.status, 503);
    closed.handle().reset();
    assert_eq!(Answer::read(behind.clone().oneshot(job("9", "/")).await).await.status, 200);
    assert_eq!(Answer::read(behind.oneshot(job("9", "/")).await).await.status, 409);
}

#[tokio::test]
async fn failed_or_panicked_handler_is_not_run_again() {
    let scene = scene(|layer| layer);
    assert_eq!(scene.ask(job("7", "/error")).await.status, 0);
    let again = scene.ask(job("7", "/error")).await;
    assert_eq!((again.status, &again.json()["code"]), (409, &"job_outcome_unknown".into()));
    assert!(again.headers.get("retry-after").is_none(), "waiting does not help");
    let service = scene.service();
    assert!(tokio::spawn(async move { drop(service.oneshot(job("8", "/panic")).await) }).await.is_err());
    assert_eq!(scene.ask(job("8", "/panic")).await.refusal.unwrap().reason(), Reason::JobOutcomeUnknown);
    assert_eq!(scene.served(), 2);
}

/// The table of outcomes in the documentation of `JobIdSource`.
#[tokio::test]
async fn end_of_a_job_decides_on_its_id_and_charge() {
    for free_unfinished in [false, true] {
        let scene = scene(|layer| if free_unfinished { layer.free_unfinished() } else { layer });
        let unknown = !free_unfinished;
        let mut charged = 0;
        for (n, (path, kept, cut)) in [
            ("/", true, false),
            ("/status/404", true, false),
            ("/status/500", false, false),
            ("/status/503", false, false),
            ("/error", unknown, true),
            ("/panic", unknown, true),
            ("/broken/2", unknown, true),
            ("/never", unknown, true),
            ("/stream/9", unknown, true),
        ]
        .into_iter()
        .enumerate()
        {
            let (id, service) = (format!("job {n}"), scene.service());
            let send = async |id: &str| {
                let (service, request) = (service.clone(), job(id, path));
                match path {
                    "/panic" => drop(tokio::spawn(async move { drop(service.oneshot(request).await) }).await),
                    "/never" => drop(futures_util::poll!(std::pin::pin!(service.oneshot(request)))),
                    "/stream/9" => drop(service.oneshot(request).await.unwrap().into_body().frame().await),
                    _ => drop(Answer::read(service.oneshot(request).await).await),
                }
            };
            send(&id).await;
            charged += u64::from(kept);
            assert_eq!(scene.used("requests_per_hour").await, charged, "{path}, free: {free_unfinished}");
            let served = scene.served();
            send(&id).await;
            assert_eq!(scene.served() - served, usize::from(!kept), "{path}, free: {free_unfinished}");
            assert_eq!(scene.used("requests_per_hour").await, charged, "{path}, free: {free_unfinished}");
            let settled = scene.quotas.settle_job(&scene.client("alice"), &id, JobOutcome::Free).await.unwrap();
            let state = if cut { JobState::Unknown } else { JobState::Done };
            assert_eq!(settled, kept.then_some(state), "{path}, free: {free_unfinished}");
            charged -= u64::from(kept && cut);
            assert_eq!(scene.used("requests_per_hour").await, charged, "{path}, free: {free_unfinished}");
        }
    }
}

/// Bytes that have passed and recorded amounts are part of the charge that goes back.
#[tokio::test]
async fn freed_request_returns_all_that_it_was_charged() {
    let plan = hourly(100).limit(Quota::units("tokens", 100).per(Period::hour()));
    let plan = plan.limit(Quota::bytes(1_000).per(Period::hour()));
    let scene = Scene::new(plan, |layer| {
        layer.job_ids(JobIdSource::header("x-job-id")).share_with_handler().cost("tokens", |_| Some(30))
    });
    let used = async || {
        let names = ["requests_per_hour", "tokens_per_hour", "bytes_per_hour"];
        futures_util::future::join_all(names.map(|name| scene.used(name))).await
    };
    let inner = service_fn(|request: Request<Full<Bytes>>| async move {
        request.extensions().get::<Charge>().unwrap().record("tokens", 7);
        let frames =
            futures_util::stream::iter((0..9).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from("0123456789")))));
        Ok::<_, Infallible>(Response::new(http_body_util::StreamBody::new(frames)))
    });
    let mut body = scene.layer.layer(inner).oneshot(job("7", "/")).await.unwrap().into_body();
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
    }
    drop(body);
    assert_eq!(used().await, [1, 7, 30]);
    assert_eq!(
        scene.quotas.settle_job(&scene.client("alice"), "7", JobOutcome::Free).await,
        Ok(Some(JobState::Unknown))
    );
    assert_eq!(used().await, [0, 0, 0]);
}

#[tokio::test]
async fn failed_request_without_job_ids_is_charged() {
    let scene = Scene::new(hourly(9), |layer| layer.free_unfinished());
    for (n, path) in ["/status/500", "/error", "/broken/2"].into_iter().enumerate() {
        scene.get(path).await;
        assert_eq!(scene.used("requests_per_hour").await, n as u64 + 1);
    }
}

#[tokio::test]
async fn recorded_amount_keeps_a_failed_job() {
    let scene = scene(|layer| layer.share_with_handler().free_unfinished());
    let failing = service_fn(|request: Request<Full<Bytes>>| async move {
        request.extensions().get::<Charge>().unwrap().record("tokens", 7);
        Ok::<_, Infallible>(Response::builder().status(500).body(Full::<Bytes>::default()).unwrap())
    });
    let service = scene.layer.layer(failing);
    for status in [500, 409] {
        assert_eq!(service.clone().oneshot(job("7", "/")).await.unwrap().status(), status);
        assert_eq!((scene.used("requests_per_hour").await, scene.used("tokens_per_hour").await), (1, 7));
    }
}

#[tokio::test]
async fn duplicates_pass_uncharged_when_configured() {
    let scene = scene(|layer| layer.duplicates(tollgate::Duplicates::Pass));
    for _ in 0..3 {
        assert_eq!(scene.ask(job("7", "/")).await.status, 200);
    }
    assert_eq!((scene.served(), scene.used("requests_per_hour").await), (3, 1));
    assert_eq!(scene.ask(job("7", "/query")).await.status, 422, "another job is no duplicate");
}

#[tokio::test]
async fn job_is_forgotten_after_its_retention() {
    let scene = scene(|layer| layer.job_retention(Duration::from_secs(60)));
    assert_eq!(scene.ask(job("7", "/")).await.status, 200);
    scene.clock.advance(Duration::from_secs(59));
    assert_eq!(scene.ask(job("7", "/")).await.status, 409);
    scene.clock.advance(Duration::from_secs(1));
    assert_eq!(scene.ask(job("7", "/")).await.status, 200);
}

#[tokio::test]
async fn id_is_read_from_either_field_or_a_closure() {
    let scene = scene(|layer| layer);
    let idempotent = |value: &str| {
        let request = by("alice", "/");
        let (mut head, body) = request.into_parts();
        head.headers.insert("idempotency-key", value.parse().unwrap());
        Request::from_parts(head, body)
    };
    assert_eq!(scene.ask(idempotent("\"7\"")).await.status, 200);
    assert_eq!(scene.ask(idempotent("7")).await.status, 409, "with or without quotes");
    assert_eq!(scene.ask(job("7", "/")).await.status, 409, "in either field");

    let scene = Scene::new(hourly(10), |layer| {
        layer.job_ids(JobIdSource::from_head(|request| request.uri.query().map(String::from)))
    });
    assert_eq!(scene.get("/?7").await.status, 200);
    assert_eq!(scene.get("/?7").await.status, 409);
    assert_eq!(scene.get("/").await.status, 200);
}

#[tokio::test]
async fn invalid_job_id_is_a_bad_request() {
    let scene = scene(|layer| layer);
    for id in [String::new(), "\"\"".into(), "x".repeat(256)] {
        let answer = scene.ask(job(&id, "/")).await;
        assert_eq!((answer.status, answer.refusal.unwrap().reason()), (400, Reason::InvalidJobId), "{id:?}");
    }
    let mut twice = job("7", "/");
    twice.headers_mut().append("x-job-id", "8".parse().unwrap());
    assert_eq!(scene.ask(twice).await.status, 400);
    let mut bytes = job("7", "/");
    bytes.headers_mut().insert("x-job-id", http::HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(scene.ask(bytes).await.status, 400);
    assert_eq!(scene.served(), 0);
}
