//! Loom models of two or three threads, in every interleaving:
//! `RUSTFLAGS="--cfg tollgate_loom" cargo test --release --lib loom_`.

use std::{sync::Arc, time::Duration};

use loom::thread;

use crate::{
    backoff::Backoff,
    circuit_breaker::{
        circuit::{Circuit, CircuitShared, Ticket},
        machine::{BreakerMode, Recovery},
        policy::ResultClassifier,
        trip::{Trip, WindowLength},
        window::{CallResult, CallWindow, SlidingWindow},
    },
    circuit_state::CircuitState,
    classify::{DefaultClassifier, Verdict},
    gate::PolicyContext,
    policy_name::PolicyName,
    time::{Clock, FakeClock, Moment},
};

const FAILURE: CallResult = CallResult { failure: true, slow: false };
const SECOND: Duration = Duration::from_secs(1);

/// Runs `work` in two threads at once and returns both results.
fn twice<T: Send + 'static>(work: impl Fn(usize) -> T + Send + Sync + 'static) -> [T; 2] {
    let work = Arc::new(work);
    let other = Arc::clone(&work);
    let thread = thread::spawn(move || other(1));
    [work(0), thread.join().unwrap()]
}

fn circuit(trip: Trip) -> (Arc<Circuit>, Moment) {
    let clock = FakeClock::new();
    let now = clock.now();
    let open = Backoff { first: SECOND, longest: SECOND };
    let shared = CircuitShared {
        context: PolicyContext {
            name: PolicyName::try_new("loom").unwrap(),
            clock: Clock::from(clock),
            observers: Default::default(),
            outbound: false,
        },
        trip,
        recovery: Recovery { open, probes: 1, close_after: 1, probe_timeout: SECOND },
        classifier: ResultClassifier::new(DefaultClassifier::for_client()),
    };
    let circuit = Circuit::new(Arc::new(shared), 1, None);
    circuit.admit(Some(now)).ok(); // the first call begins the window
    (circuit, now)
}

#[test]
fn loom_last_thread_to_record_reads_all_results() {
    for length in [WindowLength::Calls(2), WindowLength::Time(SECOND)] {
        loom::model(move || {
            let window = Arc::new(SlidingWindow::new(length, 2));
            let now = Moment::from_nanos(1);
            let seen = twice(move |stripe| {
                window.record(stripe, FAILURE, || now);
                window.tally(now)
            });
            assert!(seen.iter().any(|tally| tally.failures == 2 && tally.calls == 2), "{seen:?}");
        });
    }
}

#[test]
fn loom_sums_equal_the_places_at_rest() {
    loom::model(|| {
        // One place for two calls: only the result that is in it at the end is counted.
        let window = Arc::new(CallWindow::new(1));
        let shared = Arc::clone(&window);
        twice(move |thread| shared.record(CallResult { failure: thread == 0, slow: thread == 1 }));
        let tally = window.tally();
        assert_eq!((tally.calls, tally.failures + tally.slow), (1, 1));
        window.record(CallResult::default());
        assert_eq!(window.tally().failures + window.tally().slow, 0);
    });
}

#[test]
fn loom_two_failures_open_the_circuit_once() {
    for trip in [Trip::consecutive(2), Trip::failure_rate(1.0).over_calls(2).min_requests(2)] {
        loom::model(move || {
            let (circuit, now) = circuit(trip);
            let shared = Arc::clone(&circuit);
            twice(move |_| {
                shared.admit(Some(now)).map(|mut ticket| ticket.report(Verdict::Failure, false, Some(now))).is_ok()
            });
            assert_eq!(circuit.state(), CircuitState::Open);
            assert_eq!(circuit.counts(now).generation, 2);
        });
    }
}

#[test]
fn loom_late_result_changes_nothing() {
    loom::model(|| {
        let (circuit, now) = circuit(Trip::consecutive(1));
        let late = circuit.admit(Some(now)).unwrap();
        let late = loom::sync::Mutex::new(Some(late));
        let shared = Arc::clone(&circuit);
        twice(move |thread| match thread {
            0 => late.lock().unwrap().take().unwrap().report(Verdict::Failure, false, Some(now)),
            _ => shared.command(BreakerMode::Automatic, "reset"),
        });
        assert_eq!((circuit.state(), circuit.counts(now).calls), (CircuitState::Closed, 0));
    });
}

#[test]
fn loom_half_open_circuit_admits_one_probe() {
    loom::model(|| {
        let (circuit, now) = circuit(Trip::consecutive(1));
        circuit.admit(Some(now)).unwrap().report(Verdict::Failure, false, Some(now));
        let due = now + 2 * SECOND;
        let shared = Arc::clone(&circuit);
        let admitted = twice(move |_| shared.admit(Some(due)).ok());
        let mut probes: Vec<_> = admitted.into_iter().flatten().collect();
        assert_eq!(probes.len(), 1);
        assert!(matches!(probes[0], Ticket::Probe(..)));
        // Released and acquired by another call, the slot counts once.
        probes[0].report(Verdict::Ignore, false, Some(due));
        circuit.admit(Some(due)).unwrap().report(Verdict::Success, false, Some(due));
        assert_eq!(circuit.state(), CircuitState::Closed);
    });
}
