//! Manual switches, settings and events.

use super::*;

#[tokio::test]
async fn three_routes_under_one_layer_share_one_circuit() {
    let layer = three();
    for _ in 0..3 {
        let failing = layer.layer(service_fn(|_: Request<Full<Bytes>>| async { Err::<Response<Full<Bytes>>, _>(()) }));
        let _ = failing.oneshot(get("/")).await;
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    assert_eq!(layer.clone().handle().state(), CircuitState::Open);
}

#[tokio::test]
async fn switches_override_the_circuit_until_reset() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Error);
    scene.breaker.force_closed();
    for _ in 0..10 {
        assert_eq!(scene.get().await, 0);
    }
    assert_eq!(scene.breaker.counts().failures, 10);
    scene.breaker.force_open();
    assert_eq!(scene.refusal().await.retry_after(), Some(10 * SECOND));
    scene.clock.advance(1_000_000 * SECOND);
    scene.refusal().await;
    scene.breaker.disable();
    for _ in 0..10 {
        assert_eq!(scene.get().await, 0);
    }
    assert_eq!(scene.breaker.counts().calls, 0);
    scene.breaker.observe_only();
    for _ in 0..10 {
        assert_eq!(scene.get().await, 0);
    }
    assert_eq!(scene.state(), CircuitState::ObservedOpen);
    scene.breaker.reset();
    assert_eq!(scene.state(), CircuitState::Closed);
    assert_eq!(
        scene.log.lines(),
        [
            "closed -> forced_closed: forced_closed",
            "forced_closed -> forced_open: forced_open",
            "forced_open -> disabled: disabled",
            "disabled -> observed_closed: observe_only",
            "observed_closed -> observed_open: consecutive_failures",
            "observed_open -> closed: reset",
        ]
    );
}

#[tokio::test]
async fn transitions_form_a_chain_with_one_current_state() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Error);
    for _ in 0..40 {
        scene.get().await;
        scene.clock.advance(7 * SECOND);
    }
    scene.upstream.does(Deed::Status(200));
    for _ in 0..20 {
        scene.get().await;
        scene.clock.advance(7 * SECOND);
    }
    let lines = scene.log.lines();
    let mut state = "closed";
    for line in &lines {
        let (from, to) = line.split(": ").next().unwrap().split_once(" -> ").unwrap();
        assert_eq!(from, state);
        assert_ne!(from, to);
        state = to;
    }
    assert_eq!(state, scene.state().as_str());
    assert!(lines.len() > 6);
}

#[test]
fn invalid_settings_are_rejected_with_a_reason() {
    let layer = || CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(1));
    let text = |build: fn(CircuitBreakerLayer) -> CircuitBreakerLayer| {
        let panic = std::panic::catch_unwind(|| build(layer())).expect_err("a panic");
        panic.downcast_ref::<String>().expect("words").clone()
    };
    assert_eq!(text(|layer| layer.probes(0)), "probes must be positive, got 0");
    assert_eq!(text(|layer| layer.close_after(0)), "close_after must be positive, got 0");
    assert_eq!(text(|layer| layer.recovery_timeout(Duration::ZERO)), "recovery_timeout must be positive, got 0s");
    assert_eq!(text(|layer| layer.max_open(Duration::ZERO)), "max_open must be positive, got 0s");
    let shorter = text(|layer| {
        let layer = layer.max_open(Duration::from_secs(5)); // before the ten seconds of the first time
        let _ = layer.handle();
        layer
    });
    assert_eq!(shorter, "max_open must be at least the recovery timeout of 10s, got 5s");
    assert_eq!(text(|layer| layer.probe_timeout(Duration::ZERO)), "probe_timeout must be positive, got 0s");
    assert_eq!(text(|layer| layer.max_keys(0)), "max_keys must be positive, got 0");
    let invalid =
        CircuitBreakerLayer::for_client(10 * SECOND).try_trip(Trip::failure_rate(0.5).min_requests(101)).unwrap_err();
    assert_eq!(invalid.to_string(), "min_requests must be at most the window of 100, got 101");
}

#[test]
fn getters_return_the_rules_in_force() {
    let recovery = |breaker: &CircuitBreaker| {
        let times = [breaker.recovery_timeout(), breaker.max_open(), breaker.probe_timeout(), breaker.slow_after()];
        (times.map(|time| time.as_secs()), breaker.probes(), breaker.close_after())
    };
    let server = CircuitBreakerLayer::for_server().handle();
    assert_eq!((server.trip(), recovery(&server)), (Trip::failure_rate(0.5), ([10, 60, 30, 10], 1, 1)));

    let trip = Trip::consecutive(2);
    let layer = CircuitBreakerLayer::for_client(40 * SECOND).trip(trip).recovery_timeout(90 * SECOND).probes(3);
    let client = layer.fork().per_host().handle();
    assert_eq!((client.trip(), recovery(&client)), (trip.slow_after(40 * SECOND), ([90, 90, 40, 40], 3, 3)));
    let host = client.key(CircuitBreakerLayer::host_key("example.org:80").unwrap()).unwrap();
    assert_eq!((host.trip(), recovery(&host)), (client.trip(), recovery(&client)));

    let layer = layer.max_open(100 * SECOND).probe_timeout(7 * SECOND).close_after(5).trip(trip.slow_after(SECOND));
    let client = layer.handle();
    assert_eq!((client.trip(), recovery(&client)), (trip.slow_after(SECOND), ([90, 100, 7, 1], 3, 5)));
}
