//! Life of a charge: its client, its amount, and its refund.

use super::*;

/// A plan of 10 requests, 100 tokens and 100 bytes an hour, and 2 concurrent requests.
fn plan() -> Plan {
    hourly(10)
        .limit(Quota::units("tokens", 100).per(Period::hour()))
        .limit(Quota::bytes(100).per(Period::hour()).counting(Direction::Response))
        .limit(Quota::concurrent(2))
}

fn scene(settings: impl FnOnce(QuotaLayer) -> QuotaLayer) -> Scene {
    Scene::new(plan(), settings)
}

/// Returns the amount that alice has used of each limit; concurrency is last.
async fn books(scene: &Scene) -> Vec<u64> {
    let usage = scene.quotas.usage(&scene.client("alice")).await.unwrap();
    assert!(usage.limits.iter().all(|limit| limit.reserved == 0), "nothing is set aside any more: {usage:?}");
    usage.limits.iter().map(|limit| limit.used).collect()
}

#[tokio::test]
async fn served_request_stays_charged_however_it_ends() {
    for share in [false, true] {
        let scene = scene(|layer| if share { layer.share_with_handler() } else { layer });
        assert_eq!(scene.get("/").await.status, 200);
        assert_eq!(scene.get("/status/503").await.status, 503);
        assert_eq!(scene.get("/error").await.status, 0);
        let service = scene.service();
        let panicked = tokio::spawn(async move { drop(service.oneshot(by("alice", "/panic")).await) });
        assert!(panicked.await.unwrap_err().is_panic());
        let mut gone = Box::pin(scene.service().oneshot(by("alice", "/never")));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        assert_eq!(books(&scene).await, [5, 0, 4, 0], "five requests, four bytes of body, no slot");
    }
}

#[tokio::test]
async fn streamed_body_is_charged_by_its_bytes() {
    for share in [false, true] {
        let scene = scene(|layer| if share { layer.share_with_handler() } else { layer });
        assert_eq!(scene.get("/stream/7").await.body.len(), 70);
        assert_eq!(books(&scene).await, [1, 0, 70, 0]);
        assert_eq!(scene.get("/stream/5").await.body.len(), 50, "no body is cut short");
        assert_eq!(books(&scene).await, [2, 0, 120, 0]);
        assert_eq!(scene.get("/stream/1").await.status, 429);
    }
}

#[tokio::test]
async fn part_that_no_counter_takes_is_reported() {
    const MOST: u64 = (1 << 53) - 1;
    let plan = Plan::new("free").limit(Quota::bytes(MOST).per(Period::hour()).named("bytes"));
    let plan = plan.limit(Quota::units("tokens", MOST).per(Period::hour()).named("tokens")).warn_at(0);
    let scene = Scene::new(plan, QuotaLayer::share_with_handler);
    let before =
        [("bytes", MOST - 3_000_000), ("tokens", MOST - 4)].map(|(kind, most)| (tollgate::Kind::from(kind), most));
    scene.quotas.record(&scene.client("alice"), before).await.unwrap();
    assert_eq!(scene.get("/record/9").await.status, 200);
    assert_eq!(scene.log.lines(), ["cut 5 of tokens"], "with the settlement");
    scene.quotas.credit(&scene.client("alice"), "one", "tokens", 1, "").await.unwrap();
    let mut body = Box::pin(scene.service().oneshot(by("alice", "/bytes/3000000")).await.unwrap().into_body());
    body.frame().await.unwrap().unwrap();
    let cut = ["cut 5 of tokens", "cut 4 of bytes"];
    assert_eq!(scene.log.lines(), cut, "while it streams, beside the four bytes of the first response");
    drop(body);
    assert_eq!((scene.used("bytes").await, scene.log.lines().len()), (MOST, 2));
}

#[tokio::test]
async fn long_body_is_charged_while_it_streams() {
    let megabytes = Plan::new("free").limit(Quota::bytes(1 << 30).per(Period::hour()));
    let scene = Scene::new(megabytes, |layer| layer);
    let mut body = Box::pin(scene.service().oneshot(by("alice", "/bytes/3000000")).await.unwrap().into_body());
    body.frame().await.unwrap().unwrap();
    assert_eq!(scene.used("bytes_per_hour").await, 3_000_000, "before the end is known");
    drop(body);
    assert_eq!(scene.used("bytes_per_hour").await, 3_000_000, "and once");
}

#[tokio::test]
async fn disconnect_pays_for_the_request_and_the_sent_bytes() {
    for share in [false, true] {
        let scene = scene(|layer| if share { layer.share_with_handler() } else { layer });
        let mut body = Box::pin(scene.service().oneshot(by("alice", "/stream/9")).await.unwrap().into_body());
        for _ in 0..4 {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        assert_eq!(books(&scene).await, [1, 0, 40, 0]);
        assert_eq!(scene.get("/broken/2").await.status, 200);
        assert_eq!(books(&scene).await, [2, 0, 60, 0], "a body that breaks");
    }
}

#[tokio::test]
async fn refusal_of_an_inner_layer_refunds_in_full() {
    for share in [false, true] {
        let scene = scene(|layer| {
            let layer = layer.cost("tokens", |_| Some(7));
            if share { layer.share_with_handler() } else { layer }
        });
        let open = tollgate::CircuitBreakerLayer::for_server().trip(tollgate::Trip::consecutive(1));
        open.handle().force_open();
        let inner = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, &'static str>(Response::new(full())) });
        let service = ServiceBuilder::new().layer(scene.layer.clone()).layer(open).service(inner);
        for _ in 0..20 {
            let answer = Answer::read(service.clone().oneshot(by("alice", "/")).await).await;
            assert_eq!(answer.status, 503);
            assert_eq!(answer.refusal.unwrap().reason(), Reason::CircuitOpen);
            assert_eq!(books(&scene).await, [0, 0, 0, 0]);
        }
    }
}

fn full() -> Full<Bytes> {
    Full::from("fine")
}

#[tokio::test]
async fn inner_refusal_gets_no_wait_of_an_outer_limit() {
    let scene = Scene::new(hourly(1), |layer| layer);
    let inner = tollgate::TokenBucketLayer::new(tollgate::Rate::per_second(1)).clock(scene.clock.clone());
    let inner = inner.on_unidentified(tollgate::OnUnidentified::Share);
    let answered = service_fn(|_: Request<Full<Bytes>>| async { Ok::<_, &'static str>(Response::new(full())) });
    let buckets = inner.handle();
    let service = ServiceBuilder::new().layer(scene.layer.clone()).layer(inner).service(answered);
    buckets.check(&buckets_anonymous(&buckets), tollgate::Cost::ONE).unwrap();
    let answer = Answer::read(service.clone().oneshot(by("alice", "/")).await).await;
    assert_eq!((answer.status, answer.field("retry-after")), (429, "1"));
    let fields = answer.field("ratelimit");
    assert_eq!(fields, r#""default";r=0;t=1, "requests_per_hour";r=1;t=1800"#, "the one that it has is still there");
}

/// Client that a bucket charges for a request without an identity.
fn buckets_anonymous(buckets: &tollgate::TokenBuckets) -> Client {
    Client::from_digest(buckets.digester().digest("anonymous", [b""]))
}

#[tokio::test]
async fn charge_condition_counts_failed_logins() {
    let scene = Scene::new(hourly(2), failed_logins);
    for _ in 0..5 {
        assert_eq!(scene.get("/").await.status, 200);
    }
    assert_eq!(scene.used("requests_per_hour").await, 0);
    for expected in [401, 401, 429] {
        assert_eq!(scene.get("/status/401").await.status, expected);
    }
    assert_eq!(scene.get("/").await.status, 429, "after two failures each attempt is refused");
    assert_eq!(scene.used("requests_per_hour").await, 2);
}

/// The example of the README.
fn failed_logins(layer: tollgate::QuotaLayer) -> tollgate::QuotaLayer {
    layer.charge_when(|served| served.status.is_none_or(|status| status == StatusCode::UNAUTHORIZED))
}

#[tokio::test]
async fn login_cut_before_the_head_counts_as_failed() {
    let scene = Scene::new(hourly(2), failed_logins);
    for _ in 0..2 {
        let mut attempt = Box::pin(scene.service().oneshot(by("alice", "/never")));
        assert!(futures_util::poll!(&mut attempt).is_pending());
    }
    assert_eq!(scene.used("requests_per_hour").await, 2);
    assert_eq!(scene.get("/status/401").await.status, 429);
}

#[tokio::test]
async fn charge_condition_counts_complete_responses() {
    let scene = scene(|layer| layer.share_with_handler().charge_when(|served| served.complete));
    drop(scene.service().oneshot(by("alice", "/stream/9")).await.unwrap());
    let mut half = Box::pin(scene.service().oneshot(by("alice", "/stream/9")).await.unwrap().into_body());
    half.frame().await.unwrap().unwrap();
    drop(half);
    assert_eq!(books(&scene).await, [0, 0, 0, 0]);
    scene.get("/stream/2").await;
    assert_eq!(books(&scene).await, [1, 0, 20, 0]);
}

#[tokio::test]
async fn uncharged_request_is_refunded_after_usage_was_read() {
    let megabytes = hourly(9).limit(Quota::bytes(1 << 30).per(Period::hour()));
    let scene = Scene::new(megabytes, |layer| layer.charge_when(|_| false));
    let mut body = scene.service().oneshot(by("alice", "/bytes/3000000")).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(scene.used("bytes_per_hour").await, 3_000_000);
    drop(body);
    assert_eq!((scene.used("bytes_per_hour").await, scene.used("requests_per_hour").await), (0, 0));
}

#[tokio::test]
async fn panic_in_the_charge_condition_charges_and_frees_slot() {
    let scene = scene(|layer| layer.charge_when(|_| panic!("in charge_when")));
    for _ in 0..5 {
        assert_eq!(scene.get("/").await.status, 200);
    }
    assert_eq!(books(&scene).await, [5, 0, 20, 0]);
}

#[tokio::test]
async fn handler_commits_the_actual_amount() {
    let scene = scene(|layer| layer.cost("tokens", |_| Some(30)).share_with_handler());
    let under_way = scene.service().oneshot(by("alice", "/record/12")).await.unwrap();
    assert_eq!((scene.used("tokens_per_hour").await, scene.reserved("tokens_per_hour").await), (0, 30));
    assert_eq!(Answer::read(Ok(under_way)).await.body, "true");
    assert_eq!(books(&scene).await, [1, 12, 4, 0], "less than estimated: the rest is free again");
    scene.get("/record/0").await;
    assert_eq!(books(&scene).await, [2, 12, 8, 0], "none at all");
    scene.get("/").await;
    assert_eq!(books(&scene).await, [3, 42, 12, 0], "nothing said: as estimated");
    scene.get("/record/99").await;
    assert_eq!(books(&scene).await, [4, 141, 16, 0], "more than there was: charged all the same");
    assert_eq!(scene.get("/").await.status, 429);
}

#[tokio::test]
async fn unsettled_estimate_stays_on_disconnect() {
    let scene = scene(|layer| layer.cost("tokens", |_| Some(30)).share_with_handler());
    let mut gone = Box::pin(scene.service().oneshot(by("alice", "/never")));
    assert!(futures_util::poll!(&mut gone).is_pending());
    drop(gone);
    assert_eq!(books(&scene).await, [1, 30, 0, 0]);
}

#[tokio::test]
async fn handler_of_an_hour_is_charged() {
    let scene = Scene::new(
        Plan::new("free")
            .limit(Quota::requests(1).per(Period::day()))
            .limit(Quota::units("tokens", 50).per(Period::day())),
        |layer| layer.cost("tokens", |_| Some(30)).share_with_handler().reservations_last(Duration::from_secs(60)),
    );
    let mut long = Box::pin(scene.service().oneshot(by("alice", "/wait/1")));
    assert!(futures_util::poll!(&mut long).is_pending());
    scene.clock.advance(Duration::from_secs(3_600));
    assert_eq!(scene.get("/").await.status, 429, "what is set aside for it stays so");
    assert_eq!(Answer::read(long.await).await.status, 200);
    assert_eq!((scene.used("requests_per_day").await, scene.used("tokens_per_day").await), (1, 30));
}

#[tokio::test]
async fn bytes_count_in_the_period_in_which_they_pass() {
    let scene = scene(|layer| layer.cost("tokens", |_| Some(30)).share_with_handler());
    let under_way = scene.service().oneshot(by("alice", "/stream/3")).await.unwrap();
    scene.clock.advance(Duration::from_secs(1_800));
    assert_eq!(Answer::read(Ok(under_way)).await.body.len(), 30);
    assert_eq!(books(&scene).await, [0, 0, 30, 0], "the request and its tokens fall into the hour before");
}

#[tokio::test]
async fn record_after_the_end_is_an_error() {
    let scene = scene(QuotaLayer::share_with_handler);
    let kept: Arc<std::sync::Mutex<Option<Charge>>> = Arc::default();
    let keeps = Arc::clone(&kept);
    let service = scene.layer.layer(service_fn(move |request: Request<Full<Bytes>>| {
        *keeps.lock().unwrap() = request.extensions().get().cloned();
        async { Ok::<_, &'static str>(Response::new(full())) }
    }));
    Answer::read(service.oneshot(by("alice", "/")).await).await;
    let charge = kept.lock().unwrap().take().unwrap();
    assert!(!charge.record("tokens", 5));
    assert_eq!(books(&scene).await, [1, 0, 4, 0]);
}

#[tokio::test]
async fn bypassed_requests_carry_an_idle_charge() {
    let scene = Scene::new(plan(), |layer| layer.share_with_handler().on_unidentified(tollgate::OnUnidentified::Pass));
    let unidentified = Request::post("/record/7").body(Full::default()).unwrap();
    assert_eq!(scene.ask(unidentified).await.body, "true");
}

#[tokio::test]
async fn handler_reads_the_clients_quota_status() {
    let scene = Scene::new(hourly(10), QuotaLayer::share_with_handler);
    for n in 1..=10 {
        let answer = scene.get("/near").await;
        assert_eq!(answer.body, if n == 9 { "requests_per_hour" } else { "" }, "request {n}");
    }
}

#[tokio::test]
async fn future_dropped_at_any_poll_leaks_nothing() {
    for share in [false, true] {
        let scene = Scene::new(Plan::new("free").limit(Quota::concurrent(1)), |layer| {
            let layer = layer.job_ids(JobIdSource::header("x-job-id"));
            if share { layer.share_with_handler() } else { layer }
        });
        let mut finished = false;
        for polls in 0.. {
            let service = ServiceBuilder::new().layer(scene.layer.clone()).concurrency_limit(1).service_fn(
                |request: Request<Full<Bytes>>| async move {
                    yield_times(2).await;
                    drop(request);
                    let frames = futures_util::stream::iter(["a", "b"].map(|text| Ok(Frame::data(Bytes::from(text)))));
                    Ok::<_, &'static str>(Response::new(StreamBody::new(futures_util::StreamExt::then(
                        frames,
                        async |frame: Result<_, &'static str>| {
                            yield_times(1).await;
                            frame
                        },
                    ))))
                },
            );
            let mut future = Box::pin(async move {
                let body = service.oneshot(job(&polls.to_string(), "/")).await.unwrap().into_body();
                std::pin::pin!(body).collect().await.unwrap();
            });
            for _ in 0..polls {
                finished |= futures_util::poll!(&mut future).is_ready();
                if finished {
                    break;
                }
            }
            drop(future);
            assert_eq!(scene.used("concurrent_requests").await, 0, "dropped after {polls} polls");
            assert_eq!(scene.log.lines(), [""; 0], "nothing had to be reclaimed");
            if finished {
                assert!(polls > 3);
                break;
            }
        }
    }
}

#[tokio::test]
async fn request_dropped_before_readiness_is_free() {
    let scene = scene(|layer| layer.cost("tokens", |_| Some(7)));
    let mut service = scene.layer.layer(crate::support::gate::Strict::default());
    let mut gone = Box::pin(service.call(by("alice", "/"))); // without poll_ready
    assert!(futures_util::poll!(&mut gone).is_pending());
    assert_eq!(scene.used("concurrent_requests").await, 1);
    drop(gone);
    assert_eq!(books(&scene).await, [0, 0, 0, 0]);
}
