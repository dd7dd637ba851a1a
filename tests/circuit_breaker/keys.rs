//! One circuit per host.

use std::sync::OnceLock;

use super::*;
use tollgate::{Digester, RequestHead};

#[tokio::test]
async fn each_host_has_its_own_circuit() {
    let scene = Scene::new(three().per_host());
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.send(get("http://a.example/")).await;
    }
    assert_eq!(scene.send(get("http://A.EXAMPLE/x?y")).await, 503, "a host has no case");
    assert_eq!(scene.upstream.calls(), 3);
    scene.upstream.does(Deed::Status(204));
    assert_eq!(scene.send(get("http://b.example/")).await, 204);
    let key = CircuitBreakerLayer::host_key("http://a.example").unwrap();
    assert_eq!(scene.breaker.key(key).unwrap().state(), CircuitState::Open);
    assert_eq!(scene.state(), CircuitState::Closed, "requests without a host have a circuit of their own");
}

#[tokio::test]
async fn transition_event_names_the_host_but_no_other_key() {
    let function =
        |request: &RequestHead<'_>, digester: &Digester| Some(digester.digest("tenant", [request.uri.host()?]));
    for (layer, host) in [(three().per_host(), Some("canary.example:80")), (three().per_key(function), None)] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&seen);
        let layer = layer.observe(move |event: &Event<'_>| {
            if let Event::Transition { key, host, .. } = event {
                heard.lock().unwrap().push((*key, host.map(str::to_owned), format!("{event:?}")));
            }
        });
        if host.is_some() {
            let _known_before = layer.handle().key(CircuitBreakerLayer::host_key("http://canary.example").unwrap());
        }
        let failing = layer.layer(service_fn(|_| async { Err::<Response<Full<Bytes>>, _>(()) }));
        for path in ["http://canary.example/", "/"] {
            for _ in 0..3 {
                failing.clone().oneshot(get(path)).await.unwrap_err();
            }
        }
        let seen = seen.lock().unwrap();
        assert_eq!((seen[0].0.is_some(), seen[0].1.as_deref()), (true, host));
        assert_eq!(seen[0].2.contains("canary"), host.is_some(), "{}", seen[0].2);
        assert_eq!((seen[1].0, &seen[1].1), (None, &None));
        if host.is_some() {
            assert_eq!(seen[0].0, CircuitBreakerLayer::host_key("http://canary.example"));
        }
    }
}

fn host(number: usize) -> Request<Full<Bytes>> {
    get(&format!("http://h{number}.example/"))
}

#[tokio::test]
async fn key_flood_evicts_quiet_circuits_but_no_open_one() {
    let scene = Scene::new(three().per_host().max_keys(8));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.send(host(0)).await;
    }
    scene.upstream.does(Deed::Status(204));
    for number in 1..10_000 {
        assert_eq!(scene.send(host(number)).await, 204);
    }
    let calls = scene.upstream.calls();
    scene.send(host(0)).await;
    assert_eq!(scene.upstream.calls(), calls, "still open");
    assert_eq!(scene.log.lines(), ["closed -> open: consecutive_failures"]);

    // No circuit is quiet any longer: newcomers pass unguarded, and an event reports it.
    scene.upstream.does(Deed::Error);
    for number in 10_000..10_100 {
        for _ in 0..3 {
            scene.send(host(number)).await;
        }
    }
    assert!(scene.log.lines().contains(&"overflow".into()));
    assert_eq!(scene.log.lines().iter().filter(|line| line.contains("open")).count(), 8);

    // Unused for long, their results are out of date.
    scene.clock.advance(Duration::from_secs(700));
    let before = scene.log.lines().len();
    for _ in 0..3 {
        scene.send(host(20_000)).await;
    }
    assert_eq!(scene.log.lines()[before..], ["open -> closed: forgotten", "closed -> open: consecutive_failures"]);
}

#[tokio::test]
async fn key_held_by_a_handle_is_not_evicted() {
    let scene = Scene::new(three().per_host().max_keys(1));
    let held = scene.breaker.key(CircuitBreakerLayer::host_key("http://h0.example").unwrap()).unwrap();
    scene.send(host(1)).await;
    assert_eq!(scene.log.lines(), ["overflow"]);
    assert!(scene.breaker.key(CircuitBreakerLayer::host_key("http://h1.example").unwrap()).is_none());
    drop(held);
    scene.send(host(1)).await;
    assert_eq!(scene.log.lines(), ["overflow"]);
}

#[tokio::test]
async fn key_with_a_probe_in_flight_is_not_evicted() {
    let scene = Scene::new(three().per_host().max_keys(1));
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.send(host(0)).await;
    }
    scene.wait_for_probe();
    scene.upstream.does(Deed::Hang);
    let mut probe = later(scene.service.clone().oneshot(host(0)));
    assert!(poll(&mut probe).is_pending());
    scene.clock.advance(Duration::from_secs(700));
    scene.upstream.does(Deed::Status(204));
    assert_eq!(scene.send(host(1)).await, 204);
    assert_eq!(scene.log.lines().last().unwrap(), "overflow");
    drop(probe);
    assert_eq!(scene.send(host(1)).await, 204);
    assert_eq!(scene.log.lines().last().unwrap(), "open -> closed: forgotten", "the dropped probe failed");
}

#[tokio::test]
async fn observer_may_use_the_keys_of_its_breaker() {
    let (clock, log) = (FakeClock::new(), Log::default());
    let (heard, own) = (log.clone(), Arc::new(OnceLock::<CircuitBreaker>::new()));
    let breaker = Arc::clone(&own);
    let layer = three().per_host().max_keys(1).clock(clock.clone()).observe(move |event: &Event<'_>| {
        if let Event::Transition { key, cause, .. } = event {
            let breaker = breaker.get().unwrap();
            let known = key.and_then(|key| breaker.key(key)).map(|circuit| circuit.state());
            heard.push(format!("{cause} {known:?} {:?}", breaker.state()));
        }
    });
    own.set(layer.handle()).unwrap();
    let failing = layer.layer(service_fn(|_| async { Err::<Response<Full<Bytes>>, _>(()) }));
    for _ in 0..3 {
        failing.clone().oneshot(host(0)).await.unwrap_err();
    }
    clock.advance(Duration::from_secs(700));
    failing.clone().oneshot(host(1)).await.unwrap_err();
    assert_eq!(log.lines(), ["consecutive_failures Some(Open) Closed", "forgotten None Closed"]);
}

#[tokio::test]
async fn full_table_admits_new_keys_in_every_shard() {
    for table in 0..30 {
        let scene = Scene::new(three().per_host().max_keys(64));
        for number in 0..300 {
            scene.send(get(&format!("http://h{number}.t{table}.example/"))).await;
        }
        assert_eq!(scene.log.lines(), [""; 0], "every circuit is quiet");
    }
}

#[tokio::test]
async fn key_flood_keeps_circuits_with_calls_in_flight() {
    let scene = Scene::new(three().per_host().max_keys(8));
    for flood in 0..3 {
        scene.upstream.does(Deed::Hang);
        let mut call = later(scene.service.clone().oneshot(host(0)));
        assert!(poll(&mut call).is_pending());
        scene.upstream.does(Deed::Status(204));
        for number in 1..100 {
            scene.send(host(flood * 100 + number)).await;
        }
        scene.clock.advance(10 * SECOND);
        drop(call); // cancelled while the service hangs
    }
    let key = CircuitBreakerLayer::host_key("http://h0.example").unwrap();
    assert_eq!(scene.breaker.key(key).unwrap().state(), CircuitState::Open);
}

#[tokio::test]
async fn used_or_forced_circuits_are_not_evicted() {
    let scene = Scene::new(three().per_host().max_keys(1));
    scene.upstream.does(Deed::Error);
    for _ in 0..10 {
        scene.send(host(0)).await;
        scene.clock.advance(300 * SECOND);
    }
    scene.send(host(1)).await;
    assert!(scene.log.lines().contains(&"overflow".into()), "the other is asked for every five minutes");

    scene.breaker.key(CircuitBreakerLayer::host_key("http://h0.example").unwrap()).unwrap().force_open();
    scene.clock.advance(Duration::from_secs(86_400));
    scene.send(host(1)).await;
    assert!(!scene.log.lines().iter().any(|line| line.ends_with("forgotten")));
    assert_eq!(scene.send(host(0)).await, 503);
}

#[test]
fn host_key_is_host_and_port_in_one_spelling() {
    let key = CircuitBreakerLayer::host_key;
    for (one, other) in [
        ("http://h", "h:80"),
        ("https://h", "h:443"),
        ("ws://h", "http://h"),
        ("wss://h", "https://h"),
        ("http://h:", "http://h:80"),
        ("http://h:8080/path?query", "h:8080"),
        ("http://H.Example.", "http://h.example"),
        ("user:word@a.example:8080", "A.example:8080"),
        ("http://[::1]", "[::1]:80"),
        ("h.", "h"),
    ] {
        assert_eq!(key(one).expect(one), key(other).expect(other), "{one} and {other}");
    }
    for (one, other) in [("http://h", "https://h"), ("h", "h:80"), ("h:80", "h:8080"), ("h.example", "h")] {
        assert_ne!(key(one).expect(one), key(other).expect(other), "{one} and {other}");
    }
    for text in ["", "/path", ".", "http://", "a b", &"a".repeat(300)] {
        assert_eq!(key(text), None, "{text:?}");
    }
}

#[tokio::test]
async fn request_of_any_spelling_finds_the_circuit_of_its_host() {
    let origin = |host: &str| Request::get("/").header("host", host).body(Full::<Bytes>::default()).unwrap();
    for (request, expected) in [
        (get("http://h/"), "h:80"),
        (get("https://h/"), "h:443"),
        (get("https://h.:443/"), "h:443"),
        (origin("h"), "h"),
        (origin("H.:"), "h"),
        (origin("h:80"), "h:80"),
        (origin("[::1]"), "[::1]"),
        (origin("[::1]:80"), "[::1]:80"),
    ] {
        let scene = Scene::new(three().per_host());
        let shown = format!("{request:?}");
        scene.breaker.key(CircuitBreakerLayer::host_key(expected).unwrap()).unwrap().force_open();
        assert_eq!(scene.send(request).await, 503, "{shown} is {expected}");
    }
}

#[tokio::test]
async fn dead_port_80_does_not_refuse_port_443() {
    let scene = Scene::new(three().per_host());
    scene.upstream.does(Deed::Error);
    for _ in 0..3 {
        scene.send(get("http://h/")).await;
    }
    scene.upstream.does(Deed::Status(204));
    assert_eq!(scene.send(get("https://h/")).await, 204);
    assert_eq!(scene.send(get("http://h.:80/")).await, 503);
}

#[test]
fn keyed_breaker_polls_readiness_with_unkeyed_circuit_open() {
    let layer = three().per_host();
    layer.handle().force_open();
    let mut service = layer.layer(NeverReady);
    let ready = Service::<Request<Full<Bytes>>>::poll_ready(&mut service, &mut Context::from_waker(Waker::noop()));
    assert!(ready.is_pending());
}
