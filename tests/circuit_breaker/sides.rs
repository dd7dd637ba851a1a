//! A breaker on a server, where strangers choose the requests, and on a client.

use super::*;
use tollgate::CallError;

fn server() -> CircuitBreakerLayer {
    CircuitBreakerLayer::for_server().trip(Trip::consecutive(3)).recovery_timeout(10 * SECOND)
}

#[tokio::test]
async fn garbage_from_a_stranger_opens_no_circuit_of_a_server() {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let layer = server();
    let service = layer.layer(health);
    for _ in 0..5 {
        let garbage = Request::post("/grpc.health.v1.Health/Check").version(http::Version::HTTP_2);
        let garbage = garbage.header(CONTENT_TYPE, "application/grpc");
        let body = Full::new(Bytes::from_static(b"\0\0\0\0\x05\xff\xff\xff\xff\xff"));
        let response = service.clone().oneshot(garbage.body(body).unwrap()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "13", "tonic answers INTERNAL");
        let _ = response.into_body().collect().await;
    }
    assert_eq!((layer.handle().state(), layer.handle().counts().calls), (CircuitState::Closed, 0));
}

#[tokio::test]
async fn results_that_a_stranger_causes_count_only_on_a_client() {
    let head = |status: &'static str| Deed::Fields(200, Box::leak(Box::new([("grpc-status", status)])));
    let ignored = [trailers("1"), trailers("2"), trailers("4"), trailers("13"), trailers("99"), head("13")];
    let ignored = ignored.into_iter().chain([408, 501, 505, 511].map(Deed::Status));
    let failures = [trailers("14"), trailers("15"), head("14"), Deed::Stream(End::Abrupt), Deed::Error];
    let failures = failures.into_iter().chain([500, 502, 503, 504].map(Deed::Status));
    let cases = ignored.map(|deed| (deed, 0)).chain(failures.map(|deed| (deed, 2)));
    for (deed, on_server) in cases {
        for (layer, expected) in [(server(), on_server), (three(), 2)] {
            let scene = Scene::new(layer);
            scene.upstream.does(deed.clone());
            for _ in 0..2 {
                scene.grpc().await;
            }
            let counts = scene.breaker.counts();
            assert_eq!((counts.failures, counts.calls), (expected, expected), "{deed:?}");
        }
    }
}

#[tokio::test]
async fn probe_that_is_ignored_leaves_a_server_half_open() {
    let scene = Scene::new(server());
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.grpc().await;
    }
    scene.wait_for_probe();
    for deed in [trailers("13"), trailers("1"), Deed::Status(408)] {
        scene.upstream.does(deed);
        scene.grpc().await;
        assert_eq!(scene.state(), CircuitState::HalfOpen, "garbage proves neither failure nor recovery");
    }
    scene.upstream.does(trailers("0"));
    scene.grpc().await;
    assert_eq!(scene.state(), CircuitState::Closed);
}

#[tokio::test]
async fn late_answer_is_slow_on_a_client_whatever_its_verdict() {
    let ignore = |_: &CallOutcome<'_>| Verdict::Ignore;
    let slow = Trip::slow_rate(1.0).slow_after(2 * SECOND).min_requests(3).over_calls(3);
    for (layer, takes, expected) in [
        (three().trip(slow), 2, (3, CircuitState::Open)),
        (three().trip(slow), 1, (0, CircuitState::Closed)),
        (three().trip(Trip::consecutive(3).slow_after(2 * SECOND)), 2, (0, CircuitState::Closed)), // slowness opens nothing
        (server().trip(slow), 2, (0, CircuitState::Closed)), // a slow upload is late, too
    ] {
        let scene = Scene::new(layer.classify(ignore));
        for calls in 0..3 {
            assert_eq!((scene.state(), scene.breaker.counts().failures), (CircuitState::Closed, 0));
            if calls < 2 {
                scene.upstream.does(Deed::SlowStatus(scene.clock.clone(), takes * SECOND, 200));
                scene.get().await;
            } else {
                let clock = scene.clock.clone();
                let operation = async {
                    clock.advance(takes * SECOND);
                    Ok::<_, ()>(())
                };
                scene.breaker.call_with(|_| Verdict::Ignore, operation).await.unwrap();
            }
        }
        let slow = if scene.state() == CircuitState::Open { 3 } else { scene.breaker.counts().slow };
        assert_eq!((slow, scene.state()), expected);
    }
}

#[tokio::test]
async fn late_ignored_probe_opens_a_client_again() {
    let trip = Trip::consecutive(3).or(Trip::slow_rate(0.5).slow_after(2 * SECOND));
    for (takes, expected) in [(1, CircuitState::HalfOpen), (2, CircuitState::Open)] {
        let scene = Scene::new(three().trip(trip).classify(|outcome: &CallOutcome<'_>| match outcome {
            CallOutcome::Error(_) => Verdict::Failure,
            _ => Verdict::Ignore,
        }));
        scene.upstream.does(Deed::Error);
        for _ in 0..3 {
            scene.get().await;
        }
        scene.wait_for_probe();
        scene.upstream.does(Deed::SlowStatus(scene.clock.clone(), takes * SECOND, 200));
        scene.get().await;
        assert_eq!(scene.state(), expected, "after {takes} s");
    }
}

#[tokio::test]
async fn cancelled_slow_calls_open_the_circuit() {
    let scene =
        Scene::new(CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(5).slow_after(2 * SECOND)));
    scene.upstream.does(Deed::Hang);
    for _ in 0..1_000 {
        scene.give_up_after(SECOND); // cancelled before slow_after: not counted
    }
    assert_eq!(scene.breaker.counts().calls, 0);
    for _ in 0..5 {
        assert_eq!(scene.state(), CircuitState::Closed);
        scene.give_up_after(2 * SECOND);
    }
    assert_eq!(scene.state(), CircuitState::Open);
}

#[tokio::test]
async fn timeout_outside_opens_a_client_but_no_server() {
    for (layer, opens) in [(CircuitBreakerLayer::for_client(2 * SECOND), true), (server(), false)] {
        let scene = Scene::new(layer.clone());
        scene.upstream.does(Deed::Hang);
        for _ in 0..4 {
            scene.give_up_after(SECOND);
        }
        assert_eq!(scene.breaker.counts().calls, 0, "an impatient caller is no evidence");
        for _ in 0..5 {
            scene.give_up_after(3 * SECOND);
        }
        assert_eq!(scene.state() == CircuitState::Open, opens);

        let scene = Scene::new(layer);
        for _ in 0..5 {
            let hangs = std::future::pending::<Result<(), ()>>();
            let mut call = later(scene.breaker.call(hangs));
            assert!(poll(&mut call).is_pending());
            scene.clock.advance(3 * SECOND);
        }
        assert_eq!(scene.state() == CircuitState::Open, opens, "a call of the handle");
    }
}

#[tokio::test]
async fn timeout_inside_that_answers_504_opens_a_server() {
    let layer = server();
    let hangs = service_fn(|_: Request<Full<Bytes>>| std::future::pending::<Result<Response<Full<Bytes>>, ()>>());
    for (status, opens) in [(StatusCode::REQUEST_TIMEOUT, false), (StatusCode::GATEWAY_TIMEOUT, true)] {
        let timeout = tower_http::timeout::TimeoutLayer::with_status_code(status, Duration::ZERO);
        let service = layer.layer(timeout.layer(hangs));
        for _ in 0..3 {
            assert_eq!(service.clone().oneshot(get("/")).await.unwrap().status(), status);
        }
        assert_eq!(layer.handle().state() == CircuitState::Open, opens);
    }
}

#[tokio::test]
async fn defaults_need_more_evidence_on_a_server() {
    for (layer, failures) in [(CircuitBreakerLayer::for_client(SECOND), 5), (CircuitBreakerLayer::for_server(), 20)] {
        let scene = Scene::new(layer);
        scene.upstream.does(Deed::Status(503));
        for _ in 0..failures {
            assert_eq!(scene.state(), CircuitState::Closed);
            scene.get().await;
        }
        assert_eq!(scene.state(), CircuitState::Open);
    }
    let scene = Scene::new(CircuitBreakerLayer::for_client(SECOND));
    scene.upstream.does(Deed::SlowStatus(scene.clock.clone(), SECOND, 200));
    for _ in 0..20 {
        assert_eq!(scene.state(), CircuitState::Closed);
        scene.get().await;
    }
    assert_eq!(scene.state(), CircuitState::Open, "late answers are of no use");
}

#[tokio::test]
async fn slow_after_of_the_constructor_holds_for_other_rules() {
    let error = CircuitBreakerLayer::try_for_client(Duration::ZERO).unwrap_err();
    assert_eq!(error.to_string(), "slow_after must be positive, got 0s");
    let slow = Trip::slow_rate(1.0).over_calls(1);
    for (trip, takes) in [(slow, 2), (slow.slow_after(3 * SECOND), 3)] {
        let scene = Scene::new(CircuitBreakerLayer::for_client(2 * SECOND).trip(trip));
        for (takes, state) in [(takes - 1, CircuitState::Closed), (takes, CircuitState::Open)] {
            scene.upstream.does(Deed::SlowStatus(scene.clock.clone(), takes * SECOND, 200));
            scene.get().await;
            assert_eq!(scene.state(), state, "after {takes} s");
        }
    }
}

#[tokio::test]
async fn only_refusals_of_a_client_are_outbound() {
    for (layer, outbound) in [(CircuitBreakerLayer::for_client(SECOND), true), (server(), false)] {
        let scene = Scene::new(layer);
        scene.breaker.force_open();
        assert_eq!(scene.refusal().await.is_outbound(), outbound);
        let Err(CallError::Refused(refusal)) = scene.breaker.call(async { Ok::<_, ()>(()) }).await else {
            panic!("refused")
        };
        assert_eq!(refusal.is_outbound(), outbound, "of the handle");
    }
}

#[tokio::test]
async fn server_times_its_calls_only_for_a_rule_or_a_bound() {
    let failures = || Trip::failure_rate(0.5).over_calls(20);
    let of_a_minute = || Trip::failure_rate(0.5).over_time(60 * SECOND);
    for (trip, slow, left) in [
        (failures(), 0, 2),
        (failures().slow_after(2 * SECOND), 1, 2),
        (failures().or(Trip::slow_rate(0.9).over_calls(20)), 1, 2), // 10 s, the default
        (of_a_minute(), 0, 0),
        (of_a_minute().slow_after(2 * SECOND), 1, 0),
    ] {
        let scene = Scene::new(server().trip(trip));
        scene.upstream.does(Deed::SlowStatus(scene.clock.clone(), 11 * SECOND, 200));
        scene.get().await;
        scene.upstream.does(Deed::Status(500));
        scene.get().await;
        let counts = scene.breaker.counts();
        assert_eq!((counts.calls, counts.failures, counts.slow), (2, 1, slow), "{trip:?}");
        scene.clock.advance(60 * SECOND);
        assert_eq!(scene.breaker.counts().calls, left, "a result has the time at which it came");
    }
}
