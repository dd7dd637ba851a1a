//! Recovery of an open circuit.

use super::*;
use crate::support::gate::Broken;

#[tokio::test]
async fn open_circuit_refuses_with_retry_after() {
    let scene = Scene::new(three().named("upstream"));
    scene.upstream.does(Deed::Status(502));
    for _ in 0..3 {
        assert_eq!(scene.get().await, 502);
    }
    for _ in 0..100 {
        scene.get().await;
    }
    assert_eq!(scene.upstream.calls(), 3);
    let refusal = scene.refusal().await;
    assert_eq!((refusal.reason(), refusal.policy().as_str()), (Reason::CircuitOpen, "upstream"));
    let wait = refusal.retry_after().unwrap();
    assert!((10 * SECOND..=12 * SECOND).contains(&wait), "{wait:?}");

    // Exactly after this wait the probe is admitted, and not earlier.
    scene.clock.advance(wait - Duration::from_nanos(1));
    assert_eq!(scene.refusal().await.retry_after(), Some(Duration::from_nanos(1)));
    scene.clock.advance(Duration::from_nanos(1));
    scene.upstream.does(Deed::Status(200));
    assert_eq!(scene.get().await, 200);
    assert_eq!(scene.state(), CircuitState::Closed);
    let expected = [
        "closed -> open: consecutive_failures",
        "open -> half_open: recovery_timeout",
        "half_open -> closed: probes_succeeded",
    ];
    assert_eq!(scene.log.lines(), expected);
}

#[tokio::test]
async fn waiting_retry_after_admits_despite_a_clock_step() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    scene.clock.set_back(Duration::from_millis(500));
    let wait = scene.refusal().await.retry_after().unwrap();
    scene.clock.advance(wait);
    scene.upstream.does(Deed::Status(200));
    assert_eq!(scene.get().await, 200);
}

#[tokio::test]
async fn good_head_answers_a_probe_before_its_body_ends() {
    let scene = Scene::new(three());
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Endless);
    let response = scene.service.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(scene.state(), CircuitState::Closed);
    drop(response);
}

#[tokio::test]
async fn concurrent_requests_get_exactly_the_configured_probes() {
    for probes in [1, 3] {
        let scene = Scene::new(three().probes(probes));
        scene.upstream.does(Deed::Error);
        for _ in 0..3 {
            scene.get().await;
        }
        scene.wait_for_probe();
        scene.upstream.does(Deed::Hang);
        let calls: Vec<_> = (0..1_000).map(|_| tokio::spawn(scene.service.clone().oneshot(get("/")))).collect();
        crate::support::gate::yield_times(100).await;
        let mut refused = 0;
        let mut waiting = Vec::new();
        for call in calls {
            if call.is_finished() {
                refused += usize::from(call.await.unwrap().unwrap().extensions().get::<Refusal>().is_some());
            } else {
                waiting.push(call);
            }
        }
        assert_eq!((refused, waiting.len()), (1_000 - probes as usize, probes as usize));
        assert_eq!(scene.upstream.calls(), 3 + probes as usize);

        // Cancelled probes release their slots and do not count as successes.
        for call in waiting {
            call.abort();
            let _ = call.await;
        }
        assert_eq!(scene.state(), CircuitState::HalfOpen);
        scene.upstream.does(Deed::Status(200));
        for _ in 0..probes {
            assert_eq!(scene.get().await, 200);
        }
        assert_eq!(scene.state(), CircuitState::Closed);
    }
}

#[tokio::test]
async fn lost_probe_is_reclaimed_after_its_timeout() {
    let scene = Scene::new(three().probe_timeout(5 * SECOND));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Hang);
    let mut lost = later(scene.service.clone().oneshot(get("/")));
    assert!(poll(&mut lost).is_pending());
    let wait = scene.refusal().await.retry_after().unwrap();
    assert!((5 * SECOND..6 * SECOND).contains(&wait), "the next chance is the probe's deadline: {wait:?}");
    scene.clock.advance(wait);
    scene.upstream.does(Deed::Status(200));
    assert_eq!(scene.get().await, 200);
    drop(lost);
    assert_eq!(scene.state(), CircuitState::Closed);
    assert!(scene.log.lines().contains(&"reclaimed".into()));
}

#[tokio::test]
async fn hung_probes_hold_their_slots_over_generations() {
    let scene = Scene::new(three().probes(3).max_open(10 * SECOND).probe_timeout(120 * SECOND));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    let mut hung = Vec::new();
    for round in 0..6 {
        scene.wait_for_probe();
        scene.upstream.does(Deed::Hang);
        for _ in 0..2 {
            let mut probe = later(scene.service.clone().oneshot(get("/")));
            if poll(&mut probe).is_pending() {
                hung.push(probe);
            }
        }
        assert_eq!(hung.len(), if round == 0 { 2 } else { 3 }, "in round {round}");
        scene.upstream.does(Deed::Error);
        scene.get().await; // fails if there is a slot for it
    }
    // Overdue, they no longer count, or hung probes would block recovery for ever.
    scene.clock.advance(121 * SECOND);
    scene.upstream.does(Deed::Hang);
    hung.extend((0..4).map(|_| later(scene.service.clone().oneshot(get("/")))));
    assert_eq!(hung.iter_mut().skip(3).filter_map(|probe| poll(probe).is_pending().then_some(())).count(), 3);
}

#[tokio::test]
async fn state_is_half_open_once_a_probe_would_pass() {
    for (observes, open, due) in [
        (false, CircuitState::Open, CircuitState::HalfOpen),
        (true, CircuitState::ObservedOpen, CircuitState::ObservedHalfOpen),
    ] {
        let scene = Scene::new(three());
        if observes {
            scene.breaker.observe_only();
        }
        scene.upstream.does(Deed::Error);
        for _ in 0..3 {
            scene.get().await;
        }
        assert_eq!(scene.state(), open);
        let emitted = scene.log.lines();
        scene.clock.advance(3_600 * SECOND);
        assert_eq!((scene.state(), scene.log.lines()), (due, emitted), "without a call there is no transition");
    }
}

#[tokio::test]
async fn probe_timeout_covers_a_slow_threshold_of_a_minute() {
    let trip = Trip::slow_rate(0.5).slow_after(60 * SECOND).or(Trip::consecutive(3));
    let scene = Scene::new(CircuitBreakerLayer::for_client(10 * SECOND).trip(trip));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    scene.wait_for_probe();
    let (release, released) = tokio::sync::oneshot::channel::<()>();
    let mut probe = later(scene.breaker.call(async { released.await.map_err(|_| ()) }));
    assert!(poll(&mut probe).is_pending());
    for _ in 0..40 {
        scene.clock.advance(SECOND);
        scene.refusal().await; // other calls keep coming
    }
    release.send(()).unwrap();
    assert!(poll(&mut probe).is_ready());
    assert_eq!(scene.state(), CircuitState::Closed);
}

#[tokio::test]
async fn lost_probe_is_reclaimed_without_a_slow_threshold() {
    let scene =
        Scene::new(CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3).slow_after(Duration::MAX)));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Hang);
    let mut lost = later(scene.service.clone().oneshot(get("/")));
    assert!(poll(&mut lost).is_pending());
    std::mem::forget(lost);
    scene.clock.advance(Duration::from_secs(601));
    scene.upstream.does(Deed::Status(200));
    assert_eq!(scene.get().await, 200);
    assert_eq!(scene.state(), CircuitState::Closed);
}

#[tokio::test]
async fn probe_refused_by_an_inner_layer_releases_its_slot() {
    let scene_clock = FakeClock::new();
    let layer = three().clock(scene_clock.clone());
    let refuse = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let inner_refuses = Arc::clone(&refuse);
    let service = layer.layer(service_fn(move |_: Request<Full<Bytes>>| {
        let refuses = inner_refuses.load(Ordering::SeqCst);
        async move {
            let mut response = Response::new(Full::<Bytes>::default());
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            if refuses {
                let name = PolicyName::try_new("inner").unwrap();
                response.extensions_mut().insert(Refusal::new(Reason::Capacity, name));
            }
            Ok::<_, ()>(response)
        }
    }));
    for _ in 0..3 {
        service.clone().oneshot(get("/")).await.unwrap();
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    scene_clock.advance(12 * SECOND);
    refuse.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        let response = service.clone().oneshot(get("/")).await.unwrap();
        assert_eq!(response.extensions().get::<Refusal>().unwrap().policy().as_str(), "inner");
    }
    assert_eq!(layer.handle().state(), CircuitState::HalfOpen);
}

#[tokio::test]
async fn late_results_from_before_the_trip_change_nothing() {
    let scene = Scene::new(three().recovery_timeout(20 * SECOND));
    scene.upstream.does(Deed::Endless);
    let mut heads = Vec::new();
    for _ in 0..20 {
        heads.push(scene.service.clone().oneshot(grpc()).await.unwrap());
    }
    scene.upstream.does(Deed::Hang);
    let mut waiting: Vec<_> = (0..20).map(|_| later(scene.service.clone().oneshot(get("/")))).collect();
    assert!(waiting.iter_mut().all(|call| poll(call).is_pending()));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.get().await;
    }
    let opened = scene.breaker.counts();
    scene.clock.advance(11 * SECOND);
    drop(waiting); // failures by now, of an older generation
    drop(heads);
    assert_eq!(scene.breaker.counts(), opened);
    assert_eq!(scene.state(), CircuitState::Open);
}

#[tokio::test]
async fn never_ready_upstream_is_refused_and_probed() {
    let clock = FakeClock::new();
    let layer = three().clock(clock.clone());
    let breaker = layer.handle();
    for _ in 0..3 {
        let _ = breaker.call(async { Err::<(), _>(()) }).await;
    }
    let mut service = layer.layer(NeverReady);
    let refused = at_once(service.ready()).unwrap().call(get("/")).await.unwrap();
    assert!(refused.extensions().get::<Refusal>().is_some());
    clock.advance(12 * SECOND);
    let mut probe = later(service.clone().oneshot(get("/")));
    assert!(poll(&mut probe).is_pending());
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    let refused = at_once(service.ready()).unwrap().call(get("/")).await.unwrap();
    assert!(refused.extensions().get::<Refusal>().is_some(), "only the probe waits");
    clock.advance(10 * SECOND);
    drop(probe);
    assert_eq!(breaker.state(), CircuitState::Open, "it waited as long as a slow call: a failed probe");
}

#[tokio::test]
async fn error_of_poll_ready_counts() {
    let forgiving = three().classify(|seen: &CallOutcome<'_>| match seen {
        CallOutcome::Error(error) if error.is::<&'static str>() => Verdict::Ignore,
        _ => DefaultClassifier::for_client().classify(seen),
    });
    for _ in 0..3 {
        assert!(forgiving.layer(Broken).oneshot(get("/")).await.is_err());
    }
    assert_eq!(forgiving.handle().state(), CircuitState::Closed, "the classifier is asked here too");
    let clock = FakeClock::new();
    let layer = three().clock(clock.clone());
    for _ in 0..3 {
        assert!(layer.layer(Broken).oneshot(get("/")).await.is_err());
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    clock.advance(12 * SECOND);
    assert!(layer.layer(Broken).oneshot(get("/")).await.is_err());
    assert_eq!(layer.handle().state(), CircuitState::Open);
}

/// Returns the output of a future that must be ready.
fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}
