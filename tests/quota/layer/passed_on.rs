//! Refusals that a handler received from a service that it calls, and passes on.

use super::*;

use tollgate::{CircuitBreakerLayer, Trip};

type Inner = BoxCloneService<Request<Full<Bytes>>, Response<Body>, &'static str>;

fn plan() -> Plan {
    hourly(10).limit(Quota::units("tokens", 1_000).per(Period::hour()))
}

/// Returns a client of an upstream that is down, behind an open circuit.
fn client(breaker: CircuitBreakerLayer) -> Inner {
    breaker.handle().force_open();
    let upstream =
        breaker.layer(service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Body>, _>("unreachable") }));
    upstream.map_response(|answer| answer.map(BodyExt::boxed_unsync)).boxed_clone()
}

/// Returns a handler behind the scene's layer that records, and passes on the answer of its client.
fn passing_on(scene: &Scene, tokens: Option<u64>, client: Inner) -> Inner {
    let served = Arc::clone(&scene.served);
    let handler = service_fn(move |request: Request<Full<Bytes>>| {
        served.fetch_add(1, Ordering::SeqCst);
        if let Some(tokens) = tokens {
            request.extensions().get::<Charge>().unwrap().record("tokens", tokens);
        }
        client.clone().oneshot(Request::new(Full::default()))
    });
    scene.layer.layer(handler).map_response(|answer| answer.map(BodyExt::boxed_unsync)).boxed_clone()
}

fn breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::for_server().trip(Trip::consecutive(1))
}

#[tokio::test]
async fn recorded_amount_is_charged_and_the_job_is_done() {
    let ids = |layer: QuotaLayer| layer.share_with_handler().job_ids(JobIdSource::header("x-job-id"));
    let scene = Scene::new(plan(), ids);
    let service = passing_on(&scene, Some(300), client(breaker()));
    for (status, left) in [(503, "\"requests_per_hour\";r=9;t=1800"), (409, "")] {
        let answer = Answer::read(service.clone().oneshot(job("order 17", "/")).await).await;
        assert_eq!((answer.status, answer.field("ratelimit")), (status, left));
        assert_eq!((scene.used("tokens_per_hour").await, scene.used("requests_per_hour").await), (300, 1));
    }
    assert_eq!(scene.served(), 1);
}

#[tokio::test]
async fn record_of_zero_proves_that_the_handler_ran() {
    let scene = Scene::new(plan(), QuotaLayer::share_with_handler);
    let service = passing_on(&scene, Some(0), client(breaker()));
    assert_eq!(Answer::read(service.oneshot(by("alice", "/")).await).await.status, 503);
    assert_eq!((scene.used("tokens_per_hour").await, scene.used("requests_per_hour").await), (0, 1));
}

#[tokio::test]
async fn refusal_of_an_outbound_client_is_charged() {
    for share in [false, true] {
        let scene = Scene::new(plan(), |layer| if share { layer.share_with_handler() } else { layer });
        let service = passing_on(&scene, None, client(breaker().outbound()));
        let answer = Answer::read(service.oneshot(by("alice", "/")).await).await;
        assert_eq!((answer.status, answer.field("ratelimit")), (503, "\"requests_per_hour\";r=9;t=1800"));
        let refusal = answer.refusal.expect("still in the extensions");
        assert!(refusal.is_outbound() && refusal.reason() == Reason::CircuitOpen);
        assert_eq!(scene.used("requests_per_hour").await, 1);
    }
}

#[tokio::test]
async fn refusal_further_in_is_refunded_as_before() {
    let scene = Scene::new(plan(), QuotaLayer::share_with_handler);
    let service = passing_on(&scene, None, client(breaker())); // as a breaker around the handler
    let answer = Answer::read(service.oneshot(by("alice", "/")).await).await;
    assert!(!answer.refusal.unwrap().is_outbound());
    assert_eq!(scene.used("requests_per_hour").await, 0);
}

#[tokio::test]
async fn outbound_layers_of_one_client_see_each_other() {
    let scene = Scene::new(plan(), QuotaLayer::outbound);
    let service = passing_on(&scene, None, client(breaker().outbound()));
    assert_eq!(Answer::read(service.oneshot(by("alice", "/")).await).await.status, 503);
    assert_eq!(scene.used("requests_per_hour").await, 0);
}

#[tokio::test]
async fn breaker_of_the_server_counts_a_passed_on_refusal() {
    for (inner, failures) in [(breaker(), 0), (breaker().outbound(), 1)] {
        let outer = CircuitBreakerLayer::for_server().trip(Trip::failure_rate(1.0).min_requests(10));
        let client = client(inner);
        let service = outer
            .layer(service_fn(move |_: Request<Full<Bytes>>| client.clone().oneshot(Request::new(Full::default()))));
        assert_eq!(service.oneshot(by("alice", "/")).await.unwrap().status(), 503);
        assert_eq!(outer.handle().counts().failures, failures);
    }
}
