//! Probes that are gRPC streams, whose result is known only at their trailers.

use super::*;

#[tokio::test]
async fn long_grpc_stream_answers_its_probe_at_the_deadline() {
    let scene = Scene::new(three().probe_timeout(30 * SECOND));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.grpc().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(trailers("0"));
    let mut stream = scene.service.clone().oneshot(grpc()).await.unwrap().into_body();
    assert_eq!(scene.state(), CircuitState::HalfOpen, "a good head says nothing yet");
    scene.clock.advance(15 * SECOND);
    stream.frame().await.unwrap().unwrap();
    assert_eq!(scene.state(), CircuitState::Closed);
}

#[tokio::test]
async fn silent_grpc_stream_answers_its_probe_at_the_deadline() {
    let scene = Scene::new(three().probe_timeout(30 * SECOND));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.grpc().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Quiet);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = scene.service.clone().oneshot(grpc()).await.unwrap().into_body();
        stream.frame().await.unwrap().unwrap();
        streams.push(stream);
        scene.clock.advance(31 * SECOND);
    }
    assert_eq!(scene.state(), CircuitState::Closed, "a service of subscriptions must not stay half-open for ever");
}

#[tokio::test]
async fn paused_stream_that_closes_the_circuit_leaves_its_slot_free() {
    let scene = Scene::new(three().probes(1).close_after(1).probe_timeout(60 * SECOND));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.grpc().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Quiet);
    let mut stream = scene.service.clone().oneshot(grpc()).await.unwrap().into_body();
    stream.frame().await.unwrap().unwrap();
    scene.clock.advance(61 * SECOND);
    scene.upstream.does(Deed::Error);
    for _ in 0..4 {
        scene.grpc().await; // the first one closes the circuit
    }
    assert_eq!(scene.state(), CircuitState::Open);
    scene.wait_for_probe();
    scene.upstream.does(trailers("0"));
    scene.grpc().await;
    assert_eq!(scene.state(), CircuitState::Closed, "a probe passed; a refusal of gRPC is a 200 too");
}

/// A result that counts as slow in a closed circuit must not close a half-open one.
#[tokio::test]
async fn slow_silent_grpc_stream_answers_no_probe() {
    for (to_end, head_takes) in [(false, 2), (true, 0)] {
        let trip = Trip::consecutive(3).or(Trip::slow_rate(0.5).slow_after(2 * SECOND));
        let layer = CircuitBreakerLayer::for_client(10 * SECOND)
            .trip(trip)
            .recovery_timeout(10 * SECOND)
            .probe_timeout(30 * SECOND);
        let scene = Scene::new(if to_end { layer.slow_to_end() } else { layer });
        scene.upstream.does(Deed::Error);
        for _ in 0..3 {
            scene.grpc().await;
        }
        scene.wait_for_probe();
        scene.upstream.does(Deed::Slow(scene.clock.clone(), head_takes * SECOND));
        let mut stream = scene.service.clone().oneshot(grpc()).await.unwrap().into_body();
        stream.frame().await.unwrap().unwrap();
        scene.clock.advance(31 * SECOND);
        scene.upstream.does(Deed::Hang);
        let mut next = later(scene.service.clone().oneshot(grpc()));
        assert!(poll(&mut next).is_pending());
        assert_eq!(scene.state(), CircuitState::HalfOpen, "slow to the end: {to_end}");
    }
}

#[tokio::test]
async fn long_grpc_stream_fails_its_probe_with_slow_bodies() {
    let trip = Trip::consecutive(3).or(Trip::slow_rate(0.5).slow_after(2 * SECOND));
    let layer = CircuitBreakerLayer::for_client(10 * SECOND)
        .trip(trip)
        .recovery_timeout(10 * SECOND)
        .probe_timeout(30 * SECOND);
    let scene = Scene::new(layer.slow_to_end());
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.grpc().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Quiet);
    let mut stream = scene.service.clone().oneshot(grpc()).await.unwrap().into_body();
    scene.clock.advance(15 * SECOND);
    stream.frame().await.unwrap().unwrap();
    assert_eq!(scene.state(), CircuitState::Open);
}

#[tokio::test]
async fn short_grpc_stream_answers_its_probe_at_its_trailers() {
    for (status, state) in [("0", CircuitState::Closed), ("14", CircuitState::Open), ("1", CircuitState::Open)] {
        let scene = Scene::new(three());
        scene.upstream.does(Deed::Error);
        for _ in 0..3 {
            scene.grpc().await;
        }
        scene.wait_for_probe();
        scene.upstream.does(trailers(status));
        scene.grpc().await;
        assert_eq!(scene.state(), state);
    }
}

#[tokio::test]
async fn progress_of_an_older_generation_is_no_success() {
    let scene = Scene::new(three().probes(2).max_open(10 * SECOND).close_after(1).probe_timeout(30 * SECOND));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.grpc().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Quiet);
    let mut stream = scene.service.clone().oneshot(grpc()).await.unwrap().into_body();
    stream.frame().await.unwrap().unwrap();
    scene.upstream.does(Deed::Error);
    scene.grpc().await;
    assert_eq!(scene.state(), CircuitState::Open);
    scene.clock.advance(31 * SECOND);
    scene.upstream.does(Deed::Hang);
    let mut probes = [later(scene.service.clone().oneshot(grpc())), later(scene.service.clone().oneshot(grpc()))];
    assert!(probes.iter_mut().all(|probe| poll(probe).is_pending()), "one of them took the slot of the stream");
    assert_eq!(scene.state(), CircuitState::HalfOpen);
}
