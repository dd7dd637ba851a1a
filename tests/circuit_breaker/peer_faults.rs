//! Faults seen in circuit breakers; each name states the behaviour that must not occur.

use std::{
    collections::HashSet,
    future::{Future, pending},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tollgate::{CircuitBreakerLayer, CircuitState, Event, FakeClock, Trip};
use tower::{Layer, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);

/// Polls a future once; returns whether it is pending.
fn waits<F: Future>(future: &mut Pin<Box<F>>) -> bool {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

/// Opens a breaker with three failures in a row; returns it with its clock.
async fn opened(layer: CircuitBreakerLayer) -> (CircuitBreakerLayer, FakeClock) {
    let clock = FakeClock::new();
    let layer = layer.recovery_timeout(10 * SECOND).clock(clock.clone());
    for _ in 0..3 {
        let _ = layer.handle().call(async { Err::<(), _>("down") }).await;
    }
    assert_eq!(layer.handle().state(), CircuitState::Open);
    (layer, clock)
}

#[tokio::test]
async fn ten_thousand_successes_do_not_outweigh_a_window_of_failures() {
    for trip in [Trip::failure_rate(0.5).over_calls(100), Trip::failure_rate(0.5).over_time(10 * SECOND)] {
        let clock = FakeClock::new();
        let breaker = CircuitBreakerLayer::for_client(10 * SECOND).trip(trip).clock(clock.clone()).handle();
        for _ in 0..10_000 {
            breaker.call(async { Ok::<_, ()>(()) }).await.unwrap();
        }
        clock.advance(10 * SECOND);
        let mut failures = 0;
        while breaker.state() == CircuitState::Closed && failures <= 100 {
            let _ = breaker.call(async { Err::<(), _>(()) }).await;
            failures += 1;
        }
        assert!(failures <= 100, "{failures}");
    }
}

#[tokio::test]
async fn thousand_callers_are_not_a_thousand_probes() {
    let (layer, clock) =
        opened(CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3)).probes(3)).await;
    clock.advance(12 * SECOND);
    let calls = AtomicUsize::new(0);
    let breaker = layer.handle();
    let call = || {
        breaker.call(async {
            calls.fetch_add(1, Ordering::SeqCst);
            pending::<Result<(), ()>>().await
        })
    };
    let mut all: Vec<_> = (0..1_000).map(|_| Box::pin(call())).collect();
    assert_eq!(all.iter_mut().map(waits).filter(|waits| *waits).count(), 3);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn cancelled_probe_neither_wedges_nor_closes_a_circuit() {
    let (layer, clock) = opened(CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3))).await;
    let breaker = layer.handle();
    clock.advance(12 * SECOND);
    for _ in 0..1_000 {
        let mut probe = Box::pin(breaker.call(pending::<Result<(), ()>>()));
        assert!(waits(&mut probe), "each gets the slot of the last");
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    breaker.call(async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test]
async fn lost_probe_does_not_wedge_a_circuit() {
    let (layer, clock) = opened(CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3))).await;
    let breaker = layer.handle();
    clock.advance(12 * SECOND);
    let mut lost = Box::pin(breaker.call(pending::<Result<(), ()>>()));
    assert!(waits(&mut lost));
    std::mem::forget(lost);
    clock.advance(31 * SECOND);
    layer.handle().call(async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(layer.handle().state(), CircuitState::Closed);
}

#[tokio::test]
async fn successes_from_before_the_trip_do_not_close_it() {
    let clock = FakeClock::new();
    let layer = CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3)).clock(clock.clone());
    let breaker = layer.handle();
    let (release, released) = tokio::sync::watch::channel(false);
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let (breaker, mut released) = (breaker.clone(), released.clone());
            tokio::spawn(async move {
                breaker.call(async { released.wait_for(|go| *go).await.map(|_| ()).map_err(|_| ()) }).await
            })
        })
        .collect();
    crate::support::gate::yield_times(10).await;
    for _ in 0..3 {
        let _ = breaker.call(async { Err::<(), _>(()) }).await;
    }
    clock.advance(12 * SECOND);
    let mut probe = Box::pin(breaker.call(pending::<Result<(), ()>>()));
    assert!(waits(&mut probe));
    release.send(true).unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
}

#[tokio::test]
async fn server_errors_and_grpc_trailers_are_not_invisible() {
    let failing = service_fn(|request: Request<()>| async move {
        let grpc = request.headers().contains_key("content-type");
        let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), "14".parse().unwrap())]);
        let body = Full::<Bytes>::default().with_trailers(async move { grpc.then_some(Ok(trailers)) });
        let status = if grpc { 200 } else { 503 };
        Ok::<_, ()>(Response::builder().status(status).header("content-type", "application/grpc").body(body).unwrap())
    });
    let grpc: &[(&'static str, &str)] = &[("content-type", "application/grpc")];
    for lines in [&[], grpc] {
        let layer = CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3));
        for _ in 0..3 {
            let mut request = Request::new(());
            for (name, value) in lines {
                request.headers_mut().append(*name, value.parse().unwrap());
            }
            let response = layer.layer(failing).oneshot(request).await.unwrap();
            let _ = Box::pin(response.into_body()).collect().await;
        }
        assert_eq!(layer.handle().state(), CircuitState::Open, "{lines:?}");
    }
}

#[tokio::test]
async fn callers_that_time_out_are_not_invisible() {
    let clock = FakeClock::new();
    let breaker = CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3)).clock(clock.clone()).handle();
    for _ in 0..3 {
        let mut call = Box::pin(breaker.call(pending::<Result<(), ()>>()));
        assert!(waits(&mut call));
        clock.advance(10 * SECOND);
        drop(call); // the caller's own time-out
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test]
async fn gauge_of_the_old_state_does_not_stay_up() {
    let up = Arc::new(Mutex::new(HashSet::from(["closed"])));
    let gauges = Arc::clone(&up);
    let layer =
        CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(3)).observe(move |event: &Event<'_>| {
            if let Event::Transition { from, to, .. } = event {
                let mut up = gauges.lock().unwrap();
                assert!(up.remove(from.as_str()) && up.insert(to.as_str()), "{from} -> {to}");
            }
        });
    let (layer, clock) = opened(layer).await;
    assert_eq!(*up.lock().unwrap(), ["open"].into());
    clock.advance(12 * SECOND);
    layer.handle().call(async { Ok::<_, ()>(()) }).await.unwrap();
    assert_eq!(*up.lock().unwrap(), ["closed"].into());
}
