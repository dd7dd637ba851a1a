//! The state machine of a circuit, with given times.

use std::time::Duration;

use crate::{
    backoff::Backoff,
    circuit_breaker::machine::{BreakerMode, CircuitDecision, Machine, Recovery, Transition},
    circuit_state::CircuitState,
    classify::Verdict,
    sync::Lease,
    time::Moment,
};

const SECOND: Duration = Duration::from_secs(1);
const START: Moment = Moment::from_nanos(1_000_000_000_000);

fn machine(probes: u32, close_after: u32) -> Machine {
    let open = Backoff { first: 10 * SECOND, longest: 60 * SECOND };
    Machine::new(Recovery { open, probes, close_after, probe_timeout: 30 * SECOND }, 7)
}

/// Returns the state after the only transition that is not emitted yet.
fn entered(machine: &mut Machine) -> CircuitState {
    let Transition { to, .. } = machine.transitions.pop_front().expect("a transition");
    assert_eq!(machine.transitions.pop_front(), None);
    to
}

fn opened(probes: u32, close_after: u32) -> Machine {
    let mut machine = machine(probes, close_after);
    machine.trip(1, Duration::ZERO, "failure_rate", START);
    assert_eq!(entered(&mut machine), CircuitState::Open);
    machine
}

fn probe(machine: &mut Machine, now: Moment) -> (u64, Lease) {
    match machine.admit(now) {
        CircuitDecision::Probe { generation, acquired } => (generation, acquired.lease),
        other => panic!("expected a probe, got {other:?}"),
    }
}

#[test]
fn open_time_has_jitter_and_the_wait_is_exact() {
    let mut machine = opened(1, 1);
    let CircuitDecision::Refused(wait) = machine.admit(START + SECOND) else { panic!("open") };
    assert!((9 * SECOND..=11 * SECOND).contains(&wait));
    let due = START + SECOND + wait;
    assert!(matches!(machine.admit(due - Duration::from_nanos(1)), CircuitDecision::Refused(_)));
    assert_eq!(machine.transitions.pop_front(), None);
    assert!(matches!(machine.admit(due), CircuitDecision::Probe { .. }));
    assert_eq!(
        machine.transitions.pop_front().unwrap(),
        Transition { from: CircuitState::Open, to: CircuitState::HalfOpen, cause: "recovery_timeout" }
    );
}

#[test]
fn failed_probes_double_the_open_time_to_its_cap() {
    let mut machine = opened(1, 1);
    let mut now = START;
    for least in [10, 20, 40, 60, 60] {
        let CircuitDecision::Refused(wait) = machine.admit(now) else { panic!("open") };
        assert!((least * SECOND..=least * SECOND * 6 / 5).contains(&wait), "{wait:?}");
        now = now + wait;
        let (generation, lease) = probe(&mut machine, now);
        machine.probe_ended(generation, Some(lease), Verdict::Failure, now);
        assert_eq!(machine.state(), CircuitState::Open);
    }
}

#[test]
fn late_results_from_before_the_trip_change_nothing() {
    let mut machine = opened(1, 1);
    let (generation, lease) = probe(&mut machine, START + 12 * SECOND);
    for old in 0..generation {
        machine.probe_ended(old, None, Verdict::Failure, START);
        machine.trip(old, Duration::ZERO, "failure_rate", START);
    }
    assert_eq!(machine.state(), CircuitState::HalfOpen);
    machine.transitions.clear();
    machine.probe_ended(generation, Some(lease), Verdict::Success, START);
    assert_eq!(entered(&mut machine), CircuitState::Closed);
}

#[test]
fn overdue_probe_loses_its_slot_and_its_result() {
    let mut machine = opened(1, 1);
    let now = START + 12 * SECOND;
    let (generation, lost) = probe(&mut machine, now);
    let CircuitDecision::Refused(wait) = machine.admit(now) else { panic!("one probe at a time") };
    let (_, second) = probe(&mut machine, now + wait);
    machine.transitions.clear();
    for verdict in [Verdict::Success, Verdict::Failure, Verdict::Ignore] {
        machine.probe_ended(generation, Some(lost), verdict, now);
    }
    assert!(matches!(machine.admit(now + wait), CircuitDecision::Refused(_)), "the second probe holds the slot");
    machine.probe_ended(generation, Some(second), Verdict::Success, now);
    assert_eq!(entered(&mut machine), CircuitState::Closed);
}

#[test]
fn paused_probes_that_delivered_close_and_reset_the_backoff() {
    let mut machine = opened(1, 2);
    let (generation, lease) = probe(&mut machine, START + 12 * SECOND);
    machine.probe_ended(generation, Some(lease), Verdict::Failure, START + 12 * SECOND);
    let mut now = START + 36 * SECOND;
    for _ in 0..2 {
        let (generation, lease) = probe(&mut machine, now);
        machine.renew_probe(generation, lease, now);
        now = now + 31 * SECOND;
    }
    assert_eq!(machine.state(), CircuitState::HalfOpen);
    machine.transitions.clear();
    assert_eq!(machine.admit(now), CircuitDecision::Counted, "two probes have delivered");
    assert_eq!(entered(&mut machine), CircuitState::Closed);
    machine.trip(machine.generation(), Duration::ZERO, "failure_rate", now);
    let CircuitDecision::Refused(wait) = machine.admit(now) else { panic!("open") };
    assert!(wait <= 12 * SECOND, "the backoff starts again: {wait:?}");
}

#[test]
fn released_probe_does_not_count_for_the_next_holder() {
    let mut machine = opened(1, 1);
    let now = START + 12 * SECOND;
    let (generation, lease) = probe(&mut machine, now);
    machine.renew_probe(generation, lease, now);
    machine.probe_ended(generation, Some(lease), Verdict::Ignore, now);
    let _delivers_nothing = probe(&mut machine, now);
    machine.renew_probe(generation, lease, now); // too late
    let _next = probe(&mut machine, now + 31 * SECOND);
    assert_eq!(machine.state(), CircuitState::HalfOpen);
}

#[test]
fn clock_step_back_does_not_lengthen_the_open_time() {
    let mut machine = opened(1, 1);
    let back = START - 500 * SECOND;
    let CircuitDecision::Refused(wait) = machine.admit(back) else { panic!("open") };
    assert!(wait <= 12 * SECOND);
    probe(&mut machine, back + wait);
}

#[test]
fn observed_circuit_changes_state_and_refuses_no_call() {
    let mut machine = machine(1, 1);
    machine.command(BreakerMode::Observing, "command");
    assert_eq!(entered(&mut machine), CircuitState::ObservedClosed);
    machine.trip(machine.generation(), Duration::ZERO, "failure_rate", START);
    assert_eq!(machine.admit(START), CircuitDecision::Uncounted);
    let (generation, lease) = probe(&mut machine, START + 12 * SECOND);
    assert_eq!(machine.admit(START + 12 * SECOND), CircuitDecision::Uncounted);
    machine.transitions.clear();
    machine.probe_ended(generation, Some(lease), Verdict::Success, START);
    assert_eq!(entered(&mut machine), CircuitState::ObservedClosed);
}

#[test]
fn command_begins_a_generation_and_emits_only_new_states() {
    let mut machine = machine(1, 1);
    machine.command(BreakerMode::Automatic, "command");
    assert_eq!((machine.generation(), machine.transitions.pop_front()), (2, None));
    machine.command(BreakerMode::ForcedOpen, "command");
    assert_eq!(entered(&mut machine), CircuitState::ForcedOpen);
    assert_eq!(machine.admit(START), CircuitDecision::Refused(10 * SECOND));
    machine.command(BreakerMode::ForcedClosed, "command");
    assert_eq!(entered(&mut machine), CircuitState::ForcedClosed);
    machine.trip(machine.generation(), Duration::ZERO, "failure_rate", START);
    assert_eq!(machine.transitions.pop_front(), None);
    machine.command(BreakerMode::Disabled, "command");
    assert_eq!(entered(&mut machine), CircuitState::Disabled);
    assert_eq!(machine.admit(START), CircuitDecision::Uncounted);
    assert_eq!(machine.generation(), 5);
}
