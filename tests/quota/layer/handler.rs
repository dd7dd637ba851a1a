//! Extensions that handlers take without an `Option`: present under every setting of a layer.

use super::*;

use axum::{Extension, Router, routing::post};
use tollgate::{Duplicates, LimitUsage, OnUnidentified};
use tower::retry::{Policy, RetryLayer};

/// Records 7 tokens. The body is the result of `record`; `x-idle` tells whether the charge is idle.
async fn charge(Extension(charge): Extension<Charge>) -> ([(&'static str, String); 1], String) {
    let recorded = charge.record("tokens", 7);
    ([("x-idle", charge.is_idle().to_string())], recorded.to_string())
}

/// Formats plan, limits and warnings, such as `hourly | requests_per_hour 1/10 | `.
async fn status(Extension(status): Extension<QuotaStatus>) -> String {
    let taken = |limit: &LimitUsage| format!("{} {}/{}", limit.name, limit.used + limit.reserved, limit.limit);
    let limits: Vec<_> = status.usage.limits.iter().map(taken).collect();
    let near: Vec<_> = status.near.iter().map(ToString::to_string).collect();
    format!("{} | {} | {}", status.usage.plan, limits.join(", "), near.join(", "))
}

fn router() -> Router {
    Router::new().route("/charge", post(charge)).route("/status", post(status))
}

async fn ask(app: Router, request: Request<Full<Bytes>>) -> Answer {
    Answer::read(app.oneshot(request).await.map_err(|never| match never {})).await
}

/// A plan of `requests` and 100 tokens an hour.
fn plan(name: &str, requests: u64) -> Plan {
    Plan::new(name)
        .limit(Quota::requests(requests).per(Period::hour()))
        .limit(Quota::units("tokens", 100).per(Period::hour()))
}

/// A layer that shares with the handler, with a limit of one request an hour that alice has used.
async fn exhausted(settings: impl FnOnce(QuotaLayer) -> QuotaLayer) -> Scene {
    let scene = Scene::new(plan("free", 1), |layer| settings(layer.share_with_handler()));
    scene.quotas.record(&scene.client("alice"), ("requests", 1)).await.unwrap();
    scene
}

/// A layer that shares with the handler and has quota left.
fn sharing(plan: Plan) -> Scene {
    Scene::new(plan, QuotaLayer::share_with_handler)
}

mod uncharged {
    use super::*;

    /// Asserts that the handler runs, nothing is charged, and the extensions report it.
    async fn is_idle(scene: &Scene, request: impl Fn(&str) -> Request<Full<Bytes>>) {
        let app = router().layer(scene.layer.clone());
        let answer = ask(app.clone(), request("/charge")).await;
        assert_eq!((answer.status, &*answer.body, answer.field("x-idle")), (200, b"true".as_slice(), "true"));
        let answer = ask(app, request("/status")).await;
        assert_eq!((answer.status, &*answer.body), (200, b"none |  | ".as_slice()));
        assert_eq!((scene.used("requests_per_hour").await, scene.used("tokens_per_hour").await), (1, 0));
    }

    fn by_alice(path: &str) -> Request<Full<Bytes>> {
        by("alice", path)
    }

    #[tokio::test]
    async fn disabled_layer() {
        is_idle(&exhausted(|layer| layer.enabled(false)).await, by_alice).await;
    }

    #[tokio::test]
    async fn exempt_request() {
        is_idle(&exhausted(|layer| layer.exempt(|_| true)).await, by_alice).await;
    }

    #[tokio::test]
    async fn refusal_under_shadow() {
        is_idle(&exhausted(QuotaLayer::shadow).await, by_alice).await;
    }

    #[tokio::test]
    async fn unidentified_client_refused_under_shadow() {
        let scene = exhausted(|layer| layer.on_unidentified(OnUnidentified::Refuse).shadow()).await;
        is_idle(&scene, |path| Request::post(path).body(Full::default()).unwrap()).await;
    }

    #[tokio::test]
    async fn unidentified_client_that_passes() {
        let scene = exhausted(|layer| layer.on_unidentified(OnUnidentified::Pass)).await;
        is_idle(&scene, |path| Request::post(path).body(Full::default()).unwrap()).await;
    }

    #[tokio::test]
    async fn invalid_job_id_under_shadow() {
        let scene = exhausted(|layer| layer.job_ids(JobIdSource::header("x-job-id")).shadow()).await;
        is_idle(&scene, |path| {
            let mut request = job("17", path);
            request.headers_mut().append("x-job-id", "18".parse().unwrap());
            request
        })
        .await;
    }

    #[tokio::test]
    async fn duplicate_job_that_passes() {
        let scene = Scene::new(plan("free", 9), |layer| {
            layer.share_with_handler().job_ids(JobIdSource::header("x-job-id")).duplicates(Duplicates::Pass)
        });
        let app = router().layer(scene.layer.clone());
        let (first, second) = (ask(app.clone(), job("17", "/charge")).await, ask(app, job("17", "/charge")).await);
        assert_eq!((first.status, first.field("x-idle")), (200, "false"));
        assert_eq!((second.status, second.field("x-idle")), (200, "true"));
        assert_eq!((scene.used("requests_per_hour").await, scene.used("tokens_per_hour").await), (1, 7));
    }

    #[tokio::test]
    async fn nothing_is_inserted_without_sharing() {
        let switches: [fn(QuotaLayer) -> QuotaLayer; 3] =
            [|layer| layer.enabled(false), |layer| layer.shadow(), |layer| layer.exempt(|_| true)];
        for settings in switches {
            let scene = Scene::new(hourly(1), settings);
            scene.quotas.record(&scene.client("alice"), ("requests", 1)).await.unwrap();
            assert_eq!(ask(router().layer(scene.layer), by("alice", "/status")).await.status, 500);
        }
    }
}

mod charged {
    use super::*;

    #[tokio::test]
    async fn shadow_with_room_charges() {
        let scene = Scene::new(plan("free", 9), |layer| layer.share_with_handler().shadow());
        let app = router().layer(scene.layer.clone());
        assert_eq!(ask(app.clone(), by("alice", "/charge")).await.field("x-idle"), "false");
        let answer = ask(app, by("alice", "/status")).await;
        assert_eq!(answer.body, "free | requests_per_hour 2/9, tokens_per_hour 7/100 | ");
    }

    #[tokio::test]
    async fn shared_account_of_a_full_table_lists_no_limits() {
        let scene = Scene::new(plan("free", 9), |layer| layer.share_with_handler().max_clients(1));
        let app = router().layer(scene.layer.clone());
        ask(app.clone(), by("alice", "/status")).await;
        let answer = ask(app.clone(), by("bob", "/status")).await;
        assert_eq!((answer.status, &*answer.body), (200, b"free |  | ".as_slice()));
        assert_eq!(ask(app, by("bob", "/charge")).await.body, "true");
        assert_eq!(scene.log.lines(), ["overflow", "overflow"]);
    }

    #[tokio::test]
    async fn plan_without_limits() {
        let app = router().layer(sharing(Plan::new("unlimited")).layer);
        let answer = ask(app.clone(), by("alice", "/charge")).await;
        assert_eq!((answer.status, &*answer.body), (200, b"false".as_slice()), "no plan counts tokens");
        assert_eq!(ask(app, by("alice", "/status")).await.body, "unlimited |  | ");
    }

    #[tokio::test]
    async fn estimate_of_zero() {
        let scene = Scene::new(plan("free", 9), |layer| layer.share_with_handler().cost("tokens", |_| Some(0)));
        let app = router().layer(scene.layer.clone());
        assert_eq!(ask(app.clone(), by("alice", "/charge")).await.body, "true");
        let answer = ask(app, by("alice", "/status")).await;
        assert_eq!(answer.body, "free | requests_per_hour 2/9, tokens_per_hour 7/100 | ");
    }

    #[tokio::test]
    async fn charge_condition_never_refunds_what_was_recorded() {
        let scene = Scene::new(plan("free", 9), |layer| layer.share_with_handler().charge_when(|_| false));
        let app = router().layer(scene.layer.clone());
        assert_eq!(ask(app.clone(), by("alice", "/charge")).await.body, "true");
        assert_eq!((scene.used("requests_per_hour").await, scene.used("tokens_per_hour").await), (1, 7));
        ask(app, by("alice", "/status")).await;
        assert_eq!(scene.used("requests_per_hour").await, 1, "nothing was recorded");
    }

    #[tokio::test]
    async fn record_fails_after_the_end_of_an_uncharged_request() {
        let scene = Scene::new(plan("free", 9), |layer| layer.share_with_handler().charge_when(|_| false));
        let (kept, app) = keeping();
        ask(app.layer(scene.layer.clone()), by("alice", "/keep")).await;
        assert!(!kept.lock().unwrap().take().unwrap().record("tokens", 5));
        assert_eq!(scene.used("tokens_per_hour").await, 0);
    }
}

type Kept = Arc<std::sync::Mutex<Option<Charge>>>;

/// A handler that keeps its charge after the response.
fn keeping() -> (Kept, Router) {
    let kept = Kept::default();
    let keeps = Arc::clone(&kept);
    let keep = async move |Extension(charge): Extension<Charge>| *keeps.lock().unwrap() = Some(charge);
    (kept, Router::new().route("/keep", post(keep)))
}

mod stacked {
    use super::*;

    /// Returns the requests and tokens that alice has used.
    async fn used(scene: &Scene) -> (u64, u64) {
        (scene.used("requests_per_hour").await, scene.used("tokens_per_hour").await)
    }

    #[tokio::test]
    async fn both_layers_record_what_the_handler_records() {
        let (outer, inner) = (sharing(plan("team", 9)), sharing(plan("member", 5)));
        let app = router().layer(ServiceBuilder::new().layer(outer.layer.clone()).layer(inner.layer.clone()));
        assert_eq!(ask(app, by("alice", "/charge")).await.body, "true");
        assert_eq!((used(&outer).await, used(&inner).await), ((1, 7), (1, 7)));
    }

    #[tokio::test]
    async fn status_lists_the_limits_of_both_outside_in() {
        let (outer, inner) = (sharing(plan("team", 9)), sharing(hourly(5)));
        let app = router().layer(ServiceBuilder::new().layer(outer.layer.clone()).layer(inner.layer.clone()));
        let answer = ask(app, by("alice", "/status")).await;
        assert_eq!(answer.body, "hourly | requests_per_hour 1/9, tokens_per_hour 0/100, requests_per_hour 1/5 | ");
        let app = router().layer(ServiceBuilder::new().layer(inner.layer).layer(outer.layer));
        let answer = ask(app, by("alice", "/status")).await;
        assert_eq!(answer.body, "team | requests_per_hour 2/5, requests_per_hour 2/9, tokens_per_hour 0/100 | ");
    }

    #[tokio::test]
    async fn warnings_of_both_are_near() {
        let outer = sharing(Plan::new("team").limit(Quota::requests(1).per(Period::hour()).named("team hourly")));
        let inner = sharing(Plan::new("member").limit(Quota::requests(1).per(Period::day()).named("member daily")));
        let app = router().layer(ServiceBuilder::new().layer(outer.layer).layer(inner.layer));
        let answer = ask(app, by("alice", "/status")).await;
        assert_eq!(answer.body, "member | team hourly 1/1, member daily 1/1 | team hourly, member daily");
    }

    #[tokio::test]
    async fn each_layer_counts_the_kinds_of_its_plan() {
        let rows = Plan::new("rows").limit(Quota::units("rows", 50).per(Period::hour()));
        let (outer, inner) = (sharing(plan("team", 9)), sharing(rows));
        let both = async |Extension(charge): Extension<Charge>| {
            charge.record("rows", 3);
            charge.record("tokens", 4);
        };
        let stack = ServiceBuilder::new().layer(outer.layer.clone()).layer(inner.layer.clone());
        ask(Router::new().route("/", post(both)).layer(stack), by("alice", "/")).await;
        assert_eq!((outer.used("tokens_per_hour").await, inner.used("rows_per_hour").await), (4, 3));
    }

    /// Settings under which alice's request passes a layer uncharged.
    const IDLE: [fn(QuotaLayer) -> QuotaLayer; 4] = [
        |layer| layer.enabled(false),
        |layer| layer.exempt(|_| true),
        |layer| layer.shadow(),
        |layer| layer.identify_by(Unverified::header("x-team")).on_unidentified(OnUnidentified::Pass),
    ];

    #[tokio::test]
    async fn idle_layer_hides_nothing_on_either_side() {
        for settings in IDLE {
            for idle_inside in [true, false] {
                let (active, idle) = (sharing(plan("team", 9)), exhausted(settings).await);
                let (outer, inner) = if idle_inside { (&active, &idle) } else { (&idle, &active) };
                let app = router().layer(ServiceBuilder::new().layer(outer.layer.clone()).layer(inner.layer.clone()));
                assert_eq!(ask(app.clone(), by("alice", "/charge")).await.field("x-idle"), "false");
                assert_eq!(used(&active).await, (1, 7), "idle inside: {idle_inside}");
                let answer = ask(app, by("alice", "/status")).await;
                assert_eq!(answer.body, "team | requests_per_hour 2/9, tokens_per_hour 7/100 | ");
                assert_eq!(used(&idle).await, (1, 0));
            }
        }
    }

    #[tokio::test]
    async fn three_deep_with_an_idle_layer_at_each_place() {
        for settings in IDLE {
            for place in 0..3 {
                let mut scenes = [sharing(plan("a", 9)), sharing(plan("b", 9)), sharing(plan("c", 9))];
                scenes[place] = exhausted(settings).await;
                let layer = |n: usize| scenes[n].layer.clone();
                let app = router().layer(ServiceBuilder::new().layer(layer(0)).layer(layer(1)).layer(layer(2)));
                assert_eq!(ask(app.clone(), by("alice", "/charge")).await.body, "true");
                for (n, scene) in scenes.iter().enumerate() {
                    assert_eq!(used(scene).await, if n == place { (1, 0) } else { (1, 7) }, "{n}, idle: {place}");
                }
                let answer = ask(app, by("alice", "/status")).await;
                let one = "requests_per_hour 2/9, tokens_per_hour 7/100";
                assert_eq!(answer.body, format!("{} | {one}, {one} | ", if place == 2 { "b" } else { "c" }));
            }
        }
    }

    #[tokio::test]
    async fn all_idle_layers_leave_one_idle_charge() {
        let (outer, inner) = (exhausted(|layer| layer.enabled(false)).await, exhausted(QuotaLayer::shadow).await);
        let app = router().layer(ServiceBuilder::new().layer(outer.layer).layer(inner.layer));
        assert_eq!(ask(app.clone(), by("alice", "/charge")).await.field("x-idle"), "true");
        assert_eq!(ask(app, by("alice", "/status")).await.body, "none |  | ");
    }

    /// Retries a request while it fails with status 500.
    #[derive(Clone)]
    struct Again;

    impl<B, E> Policy<Request<Full<Bytes>>, Response<B>, E> for Again {
        type Future = std::future::Ready<()>;

        fn retry(&mut self, _: &mut Request<Full<Bytes>>, result: &mut Result<Response<B>, E>) -> Option<Self::Future> {
            let failed = result.as_ref().is_ok_and(|answer| answer.status() == StatusCode::INTERNAL_SERVER_ERROR);
            failed.then(|| std::future::ready(()))
        }

        fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
            Some(request.clone())
        }
    }

    #[tokio::test]
    async fn every_attempt_of_a_retry_inside_is_recorded() {
        let (outer, inner) = (sharing(plan("team", 9)), sharing(plan("member", 9)));
        let attempts = Arc::new(AtomicUsize::new(0));
        let flaky = async move |Extension(charge): Extension<Charge>| {
            charge.record("tokens", 5);
            if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::OK
            }
        };
        let app = Router::new().route("/", post(flaky)).layer(inner.layer.clone());
        let service = ServiceBuilder::new().layer(outer.layer.clone()).layer(RetryLayer::new(Again)).service(app);
        let answer = service.oneshot(by("alice", "/")).await.unwrap();
        assert_eq!(Answer::read(Ok(answer)).await.status, 200);
        assert_eq!((used(&outer).await, used(&inner).await), ((1, 10), (2, 10)));
    }

    #[tokio::test]
    async fn layer_passed_twice_charges_each_client_once() {
        for (inside, theirs) in [("x-user", (0, 0)), ("x-team", (1, 7))] {
            let team = || Unverified::header("x-team");
            let scene = Scene::new(plan("free", 9).limit(Quota::concurrent(1)), |layer| {
                let ids = JobIdSource::header("x-job-id");
                layer.share_with_handler().identify_by(team().or(user())).job_ids(ids)
            });
            // A layer in between may identify the request anew, as authentication does.
            let identify = move |mut request: Request<axum::body::Body>| {
                request.headers_mut().insert(inside, "alice".parse().unwrap());
                request
            };
            let twice =
                ServiceBuilder::new().layer(scene.layer.clone()).map_request(identify).layer(scene.layer.clone());
            let answer = ask(router().layer(twice), job("order 17", "/charge")).await;
            assert_eq!((answer.status, &*answer.body), (200, b"true".as_slice()));
            assert_eq!(used(&scene).await, (1, 7));
            let by_team = Request::get("/").header("x-team", "alice").body(()).unwrap();
            let by_team = team().identify(&RequestHead::of(&by_team), scene.quotas.digester()).unwrap();
            let usage = scene.quotas.usage(&by_team).await.unwrap();
            let used = |limit: &str| usage.get(limit).unwrap().used;
            assert_eq!((used("requests_per_hour"), used("tokens_per_hour")), theirs, "{inside}");
        }
    }

    #[tokio::test]
    async fn record_is_refused_by_all_once_one_has_settled() {
        let (outer, inner) = (sharing(plan("team", 9)), sharing(plan("member", 9)));
        let (kept, app) = keeping();
        let replace = |answer: Response<axum::body::Body>| answer.map(|_| Full::<Bytes>::from("a body of its own"));
        let service = ServiceBuilder::new().layer(outer.layer.clone()).map_response(replace);
        let service = service.service(app.layer(inner.layer.clone()));
        let answer = service.oneshot(by("alice", "/keep")).await.unwrap();
        assert_eq!((outer.reserved("requests_per_hour").await, inner.reserved("requests_per_hour").await), (1, 0));
        assert!(!kept.lock().unwrap().take().unwrap().record("tokens", 5));
        drop(answer);
        assert_eq!((used(&outer).await, used(&inner).await), ((1, 0), (1, 0)));
    }
}
