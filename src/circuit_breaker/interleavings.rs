//! Every interleaving of two or three threads: `RUSTFLAGS="--cfg tollgate_loom" cargo test --release --lib loom_`.

use std::{sync::Arc, time::Duration};

use loom::thread;

use super::{
    circuit::Circuit,
    setup::{BreakerConfig, Judge},
    ticket::Ticket,
    window::{ring::Ring, tallies::Tallies},
};
use super::{
    machine::{Mode, Recovery},
    trip::{Mark, Trip, Window},
};
use crate::{
    backoff::Backoff,
    classify::Verdict,
    gate::Observers,
    policy_name::PolicyName,
    time::{Clock, FakeClock, Moment},
};

const FAILURE: Mark = Mark { failure: true, slow: false };
const SECOND: Duration = Duration::from_secs(1);

/// Runs `work` in two threads at once and says what both returned.
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
    let setup = BreakerConfig {
        name: PolicyName::try_new("loom").unwrap(),
        clock: Clock::from(clock),
        observers: Observers::default(),
        trip,
        recovery: Recovery { open, probes: 1, close_after: 1, probe_timeout: SECOND },
        judge: Judge::default(),
    };
    (Circuit::new(Arc::new(setup), 1, None), now)
}

fn label(circuit: &Circuit) -> &'static str {
    circuit.look(|machine| machine.label())
}

#[test]
fn loom_whoever_records_last_sees_all() {
    for window in [Window::Calls(2), Window::Time(SECOND)] {
        loom::model(move || {
            let tallies = Arc::new(Tallies::new(window, 2));
            let now = Moment::from_nanos(1);
            let seen = twice(move |seat| {
                tallies.record(seat, FAILURE, now);
                tallies.tally(now)
            });
            assert!(seen.iter().any(|tally| tally.failures == 2 && tally.calls == 2), "{seen:?}");
        });
    }
}

#[test]
fn loom_the_sums_are_those_of_the_places_once_all_is_quiet() {
    loom::model(|| {
        // One place for two calls: whichever mark is in it, it alone is counted.
        let ring = Arc::new(Ring::new(1));
        let shared = Arc::clone(&ring);
        twice(move |thread| shared.record(Mark { failure: thread == 0, slow: thread == 1 }));
        let tally = ring.tally();
        assert_eq!((tally.calls, tally.failures + tally.slow), (1, 1));
        ring.record(Mark::default());
        assert_eq!(ring.tally().failures + ring.tally().slow, 0);
    });
}

#[test]
fn loom_two_failures_open_the_circuit_once() {
    for trip in [Trip::consecutive(2), Trip::failure_rate(1.0).over_calls(2).min_requests(2)] {
        loom::model(move || {
            let (circuit, now) = circuit(trip);
            let shared = Arc::clone(&circuit);
            twice(move |_| shared.admit(now).map(|mut ticket| ticket.tell(Verdict::Failure, false, now)).is_ok());
            assert_eq!(label(&circuit), "open");
            assert_eq!(circuit.counts(now).generation, 2);
        });
    }
}

#[test]
fn loom_a_late_result_changes_nothing() {
    loom::model(|| {
        let (circuit, now) = circuit(Trip::consecutive(1));
        let late = circuit.admit(now).unwrap();
        let late = loom::sync::Mutex::new(Some(late));
        let shared = Arc::clone(&circuit);
        twice(move |thread| match thread {
            0 => late.lock().unwrap().take().unwrap().tell(Verdict::Failure, false, now),
            _ => shared.order(Mode::Automatic, "reset"),
        });
        assert_eq!((label(&circuit), circuit.counts(now).calls), ("closed", 0));
    });
}

#[test]
fn loom_a_half_open_circuit_has_one_probe() {
    loom::model(|| {
        let (circuit, now) = circuit(Trip::consecutive(1));
        circuit.admit(now).unwrap().tell(Verdict::Failure, false, now);
        let due = now + 2 * SECOND;
        let shared = Arc::clone(&circuit);
        let admitted = twice(move |_| shared.admit(due).ok());
        let mut probes: Vec<_> = admitted.into_iter().flatten().collect();
        assert_eq!(probes.len(), 1);
        assert!(matches!(probes[0], Ticket::Probe(_)));
        // Given back and taken by somebody else, it counts once.
        probes[0].tell(Verdict::Ignore, false, due);
        circuit.admit(due).unwrap().tell(Verdict::Success, false, due);
        assert_eq!(label(&circuit), "closed");
    });
}
