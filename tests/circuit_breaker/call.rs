//! A circuit breaker around plain futures: cancelled at each poll, from many threads, in any order.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use tollgate::{CallError, CircuitBreaker, CircuitBreakerLayer, CircuitState, Event, FakeClock, Trip};

use crate::support::gate::{poll, yield_times};

const SECOND: Duration = Duration::from_secs(1);

fn breaker(trip: Trip) -> (CircuitBreaker, FakeClock) {
    let clock = FakeClock::new();
    (CircuitBreakerLayer::for_client(10 * SECOND).trip(trip).clock(clock.clone()).handle(), clock)
}

fn half_open(breaker: &CircuitBreaker, clock: &FakeClock) {
    while breaker.state() != CircuitState::Open {
        let _ = poll(&mut Box::pin(breaker.call(async { Err::<(), _>(()) })));
    }
    clock.advance(12 * SECOND);
}

#[test]
fn call_dropped_at_any_poll_releases_its_probe() {
    let (breaker, clock) = breaker(Trip::consecutive(3));
    half_open(&breaker, &clock);
    for polls in 0..6 {
        let mut call = Box::pin(breaker.call(async {
            yield_times(5).await;
            Ok::<_, ()>(())
        }));
        for _ in 0..polls {
            assert!(poll(&mut call).is_pending());
        }
        drop(call); // releases the only probe slot each time
        assert_ne!(breaker.state(), CircuitState::Closed);
    }
    assert_eq!(poll(&mut Box::pin(breaker.call(async { Ok::<_, ()>(7) }))), Poll::Ready(Ok(7)));
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[tokio::test]
async fn call_can_be_spawned() {
    let (breaker, _) = breaker(Trip::consecutive(3));
    let call = tokio::spawn(async move { breaker.call(async { Ok::<_, std::io::Error>(7) }).await });
    assert_eq!(call.await.unwrap().unwrap(), 7);
}

#[test]
fn unpolled_call_is_not_counted() {
    let (breaker, _) = breaker(Trip::consecutive(1));
    drop(breaker.call(async { Err::<(), _>(()) }));
    assert_eq!((breaker.counts().calls, breaker.state()), (0, CircuitState::Closed));
}

#[test]
fn panic_fails_a_call_and_a_probe() {
    let (breaker, clock) = breaker(Trip::consecutive(1));
    for state in [CircuitState::Closed, CircuitState::HalfOpen] {
        assert_eq!(breaker.state(), state);
        let panics = async { std::panic::resume_unwind(Box::new("without a word")) };
        let mut call = Box::pin(breaker.call::<(), ()>(panics));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut call)));
        assert!(caught.is_err());
        drop(call);
        assert_eq!(breaker.state(), CircuitState::Open);
        clock.advance(30 * SECOND);
    }
    assert_eq!(breaker.counts().generation, 4, "closed, open, half-open, open");
}

#[test]
fn refused_call_has_retry_after_and_is_not_polled() {
    let (breaker, _) = breaker(Trip::consecutive(1));
    breaker.force_open();
    let called = AtomicUsize::new(0);
    let mut call = Box::pin(breaker.call(async {
        called.fetch_add(1, Ordering::SeqCst);
        Ok::<(), ()>(())
    }));
    let Poll::Ready(Err(CallError::Refused(refusal))) = poll(&mut call) else { panic!("refused") };
    assert_eq!(refusal.to_string(), "policy \"circuit_breaker\": circuit open, retry in 10s");
    assert_eq!(called.load(Ordering::SeqCst), 0);
}

#[test]
fn ten_thousand_successes_do_not_hide_a_hundred_failures() {
    let windows = [Trip::failure_rate(1.0).over_calls(100), Trip::failure_rate(0.5).over_time(10 * SECOND)];
    for (trip, by_time) in windows.into_iter().zip([false, true]) {
        let (breaker, clock) = breaker(trip);
        for _ in 0..10_000 {
            assert!(poll(&mut Box::pin(breaker.call(async { Ok::<_, ()>(()) }))).is_ready());
        }
        if by_time {
            clock.advance(10 * SECOND);
        }
        for failed in 0..100 {
            assert_eq!(breaker.state() == CircuitState::Open, by_time && failed >= 20, "after {failed} failures");
            let _ = poll(&mut Box::pin(breaker.call(async { Err::<(), _>(()) })));
        }
        assert_eq!(breaker.state(), CircuitState::Open);
    }
}

#[test]
fn concurrent_threads_get_exactly_the_configured_probes() {
    for probes in [1_usize, 5] {
        let clock = FakeClock::new();
        let layer = CircuitBreakerLayer::for_client(10 * SECOND)
            .trip(Trip::consecutive(1))
            .probes(probes as u32)
            .clock(clock.clone());
        let breaker = layer.handle();
        half_open(&breaker, &clock);
        let inside = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut calls: Vec<_> = (0..125)
                        .map(|_| {
                            Box::pin(breaker.call(async {
                                inside.fetch_add(1, Ordering::SeqCst);
                                std::future::pending::<Result<(), ()>>().await
                            }))
                        })
                        .collect();
                    let waiting = calls.iter_mut().filter_map(|call| poll(call).is_pending().then_some(())).count();
                    std::mem::forget(calls); // lost for ever, as probes are
                    assert!(waiting <= probes);
                });
            }
        });
        assert_eq!(inside.load(Ordering::SeqCst), probes);
        clock.advance(31 * SECOND);
        assert_eq!(poll(&mut Box::pin(breaker.call(async { Ok::<_, ()>(7) }))), Poll::Ready(Ok(7)));
    }
}

#[test]
fn each_transition_is_emitted_once_and_in_order() {
    for trip in [Trip::failure_rate(1.0), Trip::failure_rate(1.0).over_time(60 * SECOND), Trip::consecutive(20)] {
        for _ in 0..200 {
            let told = Arc::new(Mutex::new(Vec::new()));
            let hear = Arc::clone(&told);
            let layer = CircuitBreakerLayer::for_client(10 * SECOND).trip(trip).observe(move |event: &Event<'_>| {
                if let Event::Transition { from, to, .. } = event {
                    hear.lock().unwrap().push((*from, *to));
                }
            });
            let breaker = layer.handle();
            // Ten from each of two threads: only together they reach the twenty of the trip.
            let ten = || (0..10).for_each(|_| drop(poll(&mut Box::pin(breaker.call(async { Err::<(), _>(()) })))));
            thread::scope(|scope| {
                scope.spawn(ten);
                scope.spawn(ten);
            });
            assert_eq!(breaker.state(), CircuitState::Open);
            assert_eq!(*told.lock().unwrap(), [(CircuitState::Closed, CircuitState::Open)]);
        }
    }
}

#[test]
fn concurrent_switches_emit_one_chain_of_transitions() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&told);
    let layer =
        CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(1)).observe(move |event: &Event<'_>| {
            if let Event::Transition { from, to, .. } = event {
                hear.lock().unwrap().push((*from, *to));
            }
        });
    let breaker = layer.handle();
    thread::scope(|scope| {
        for order in [CircuitBreaker::force_open, CircuitBreaker::reset, CircuitBreaker::disable] {
            let breaker = &breaker;
            scope.spawn(move || (0..500).for_each(|_| order(breaker)));
        }
    });
    let told = told.lock().unwrap();
    assert!(told.windows(2).all(|pair| pair[0].1 == pair[1].0), "a gap in the chain");
    assert_eq!(told.last().unwrap().1, breaker.state());
    assert_eq!(breaker.counts().generation, 1_501);
}

#[test]
fn observer_may_use_the_breaker_that_it_observes() {
    let handle: Arc<Mutex<Option<CircuitBreaker>>> = Arc::default();
    let inside = Arc::clone(&handle);
    let layer =
        CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(1)).observe(move |event: &Event<'_>| {
            if let Event::Transition { to: CircuitState::Open, .. } = event {
                inside.lock().unwrap().take().unwrap().force_closed();
            }
        });
    *handle.lock().unwrap() = Some(layer.handle());
    let _ = poll(&mut Box::pin(layer.handle().call(async { Err::<(), _>(()) })));
    assert_eq!(layer.handle().state(), CircuitState::ForcedClosed);
}

#[test]
fn events_raised_by_an_observer_are_emitted_in_turn() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let handle: Arc<Mutex<Option<CircuitBreaker>>> = Arc::default();
    let (hear, inside) = (Arc::clone(&told), Arc::clone(&handle));
    let layer =
        CircuitBreakerLayer::for_client(10 * SECOND).trip(Trip::consecutive(1)).observe(move |event: &Event<'_>| {
            if let Event::Transition { to, .. } = event {
                let breaker = inside.lock().unwrap().take();
                breaker.inspect(CircuitBreaker::reset);
                hear.lock().unwrap().push(*to);
            }
        });
    *handle.lock().unwrap() = Some(layer.handle());
    layer.handle().force_open();
    assert_eq!(*told.lock().unwrap(), [CircuitState::ForcedOpen, CircuitState::Closed]);
}

/// Ready after a number of polls; panics when it is dropped.
struct PanicsInDrop(usize);

impl Future for PanicsInDrop {
    type Output = Result<(), ()>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), ()>> {
        match self.0.checked_sub(1) {
            Some(left) => {
                self.0 = left;
                Poll::Pending
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("in the drop"))
    }
}

#[test]
fn panic_in_the_drop_of_an_operation_is_a_failure() {
    for polls in [0, 1] {
        let (breaker, _clock) = breaker(Trip::consecutive(1));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut call = Box::pin(breaker.call(PanicsInDrop(polls)));
            assert_eq!(poll(&mut call).is_pending(), polls > 0);
        }));
        assert!(caught.is_err());
        assert_eq!(breaker.state(), CircuitState::Open, "pending for {polls} polls");
    }
}

#[test]
fn panic_of_the_caller_is_not_the_operations() {
    let (breaker, _clock) = breaker(Trip::consecutive(1));
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut call = Box::pin(breaker.call(async { std::future::pending::<Result<(), ()>>().await }));
        assert!(poll(&mut call).is_pending());
        std::panic::resume_unwind(Box::new("the caller"))
    }));
    assert!(caught.is_err());
    assert_eq!(breaker.counts().calls, 0);
}

#[tokio::test]
async fn error_of_a_call_is_an_error_whatever_it_holds() {
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    async fn text(breaker: &CircuitBreaker) -> Result<(), Boxed> {
        Ok(breaker.call(async { Err("a text") }).await?)
    }
    async fn boxed(breaker: &CircuitBreaker) -> Result<(), Boxed> {
        Ok(breaker.call(async { Err(Boxed::from("a boxed error")) }).await?)
    }
    async fn error(breaker: &CircuitBreaker) -> Result<(), Boxed> {
        Ok(breaker.call(async { Err(std::io::Error::other("an error")) }).await?)
    }
    let (breaker, _clock) = breaker(Trip::consecutive(3));
    assert_eq!(text(&breaker).await.unwrap_err().to_string(), "a text");
    assert_eq!(boxed(&breaker).await.unwrap_err().to_string(), "a boxed error");
    assert_eq!(error(&breaker).await.unwrap_err().to_string(), "an error");
    assert!(text(&breaker).await.unwrap_err().to_string().contains("circuit open"));
}
