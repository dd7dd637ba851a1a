//! Random histories of a breaker against its model.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;
use tokio::sync::oneshot;
use tollgate::{CallError, CircuitBreaker, CircuitState, Event, FakeClock, Moment, Verdict};

use super::model::{Call, End, Kind, MAX_OPEN, Model, PROBE_TIMEOUT, RECOVERY, Rules, SLOW_AFTER, State};

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    Finish(usize, End),
    Drop(usize),
    Wait(u64),
    Order(u8),
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), 5..20_u32, prop::option::of((20..100_u32, 1..5_u32)), prop::option::of((20..100_u32, 1..5_u32)))
        .prop_flat_map(|(calls, size, failure, slow)| {
            (any::<bool>(), prop::option::of(1..6_u32), 1..4_u32, 1..5_u32, any::<bool>()).prop_map(
                move |(client, consecutive, probes, close_after, bound)| Rules {
                    client,
                    window: (calls, size),
                    failure,
                    slow,
                    consecutive,
                    probes,
                    close_after,
                    bound,
                },
            )
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = prop_oneof![
        8 => Just(End::Good), 8 => Just(End::Bad), 2 => Just(End::Ignored), 1 => Just(End::Trip), 1 => Just(End::Panic)
    ];
    let step = prop_oneof![
        10 => Just(Step::Call),
        10 => (0..6_usize, end).prop_map(|(which, end)| Step::Finish(which, end)),
        2 => (0..6_usize).prop_map(Step::Drop),
        4 => (0..8_000_u64).prop_map(Step::Wait),
        2 => (8_000..50_000_u64).prop_map(Step::Wait),
        1 => (0..12_u8).prop_map(Step::Order),
    ];
    prop::collection::vec(step, 1..150)
}

fn begin(breaker: &CircuitBreaker) -> (Call, Poll<Result<End, CallError<End>>>) {
    let (end, ended) = oneshot::channel();
    let breaker = breaker.clone();
    let judge = |result: &Result<End, End>| match result {
        Ok(End::Good) => Verdict::Success,
        Err(End::Ignored) => Verdict::Ignore,
        Err(End::Trip) => Verdict::Trip,
        _ => Verdict::Failure,
    };
    let operation = async {
        match ended.await.unwrap() {
            End::Panic => std::panic::resume_unwind(Box::new("the operation panics")), // without a message
            End::Good => Ok(End::Good),
            end => Err(end),
        }
    };
    let future = Box::pin(async move { breaker.call_with(judge, operation).await });
    let mut call = Call { id: 0, kind: Kind::Free, generation: 0, started: Moment::default(), future, end };
    let polled = poll(&mut call);
    (call, polled)
}

fn poll(call: &mut Call) -> Poll<Result<End, CallError<End>>> {
    call.future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn history(rules: Rules, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let (clock, told) = (FakeClock::new(), Arc::new(Mutex::new(Vec::new())));
    let hear = Arc::clone(&told);
    let breaker = rules.layer().clock(clock.clone()).observe(move |event: &Event<'_>| {
        if let Event::Transition { from, to, .. } = event {
            hear.lock().unwrap().push(format!("{from} -> {to}"));
        }
    });
    let breaker = breaker.handle();
    let closed = State::Closed { list: Vec::new(), forced: false };
    let mut model = Model { rules, state: closed, generation: 1, openings: 0, probes: Vec::new(), told: Vec::new() };
    let mut calls: Vec<Call> = Vec::new();
    for (id, step) in steps.into_iter().enumerate() {
        let now = clock.now();
        match step {
            Step::Call => {
                let expected = model.admit(id, now);
                let (call, polled) = begin(&breaker);
                match (expected, polled) {
                    (Some(kind), Poll::Pending) => {
                        calls.push(Call { id, kind, generation: model.generation, started: now, ..call });
                    }
                    (None, Poll::Ready(Err(CallError::Refused(refusal)))) => {
                        prop_assert!(refusal.retry_after_seconds().unwrap() >= 1);
                    }
                    (expected, polled) => prop_assert!(false, "expected {expected:?}, got {polled:?}"),
                }
            }
            Step::Finish(which, end) if which < calls.len() => {
                let mut call = calls.swap_remove(which);
                let slow = now.since(call.started) >= SLOW_AFTER;
                model.finish(&call, end, slow, now);
                let (unused, _) = oneshot::channel();
                std::mem::replace(&mut call.end, unused).send(end).unwrap();
                let polled = catch_unwind(AssertUnwindSafe(|| poll(&mut call)));
                prop_assert_eq!(polled.is_err(), end == End::Panic);
            }
            Step::Drop(which) if which < calls.len() => {
                let call = calls.swap_remove(which);
                let slow = now.since(call.started) >= SLOW_AFTER;
                let gave_up = slow && rules.client;
                model.finish(&call, if gave_up { End::Bad } else { End::Ignored }, gave_up, now);
            }
            Step::Finish(..) | Step::Drop(_) => {}
            Step::Wait(millis) => clock.advance(Duration::from_millis(millis)),
            Step::Order(order) => model.order(order, &breaker),
        }
        let now = clock.now();
        if let State::Open { until: until @ None, since } = &mut model.state {
            // The jitter is the breaker's own. Its reported wait must lie within the bounds and then holds to the
            // nanosecond.
            let (call, polled) = begin(&breaker);
            drop(call);
            let Poll::Ready(Err(CallError::Refused(refusal))) = polled else { panic!("just opened: {polled:?}") };
            let wait = refusal.retry_after().unwrap();
            let base = (RECOVERY * 2_u32.pow(model.openings.min(6) - 1)).min(MAX_OPEN);
            prop_assert!((base..=base * 6 / 5).contains(&wait), "{wait:?} of {base:?}");
            *until = Some(*since + wait);
        }
        let expected = match model.state {
            State::Open { until: Some(until), .. } if now >= until => "half_open", // its next call is a probe
            _ => model.name(),
        };
        prop_assert_eq!(breaker.state().as_str(), expected);
        let running = calls.iter().filter(|call| call.kind == Kind::Probe && now.since(call.started) <= PROBE_TIMEOUT);
        prop_assert!(running.count() <= rules.probes as usize, "more probes under way than may be");
        let counts = breaker.counts();
        prop_assert_eq!((counts.calls, counts.failures, counts.slow), {
            let (calls, failures, slow) = model.window(now);
            (calls, failures, slow)
        });
        prop_assert_eq!((counts.consecutive, counts.generation), (model.in_a_row(), model.generation));
        prop_assert_eq!(&*told.lock().unwrap(), &model.told);
    }
    // From every state a call is admitted in the end.
    if model.name() == "forced_open" {
        breaker.reset();
    }
    clock.advance(MAX_OPEN * 6 / 5 + PROBE_TIMEOUT);
    let (_call, polled) = begin(&breaker);
    prop_assert!(polled.is_pending());
    drop(calls);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn histories_agree_with_the_model(rules in rules(), steps in steps()) {
        history(rules, steps)?;
    }

    /// No clock step causes a panic, and once the clock goes on a call is admitted.
    #[test]
    fn clock_steps_never_wedge_the_breaker(rules in rules(), steps in steps(), back in prop::collection::vec(0..100_000_u64, 150)) {
        let clock = FakeClock::new();
        clock.advance(Duration::from_secs(500));
        let breaker = rules.layer().clock(clock.clone()).handle();
        let mut calls: Vec<Call> = Vec::new();
        for (step, back) in steps.into_iter().zip(back) {
            match step {
                Step::Call => {
                    let (call, polled) = begin(&breaker);
                    if polled.is_pending() {
                        calls.push(call);
                    }
                }
                Step::Finish(which, end) if which < calls.len() => {
                    let mut call = calls.swap_remove(which);
                    let (unused, _) = oneshot::channel();
                    std::mem::replace(&mut call.end, unused).send(end).unwrap();
                    let _ = catch_unwind(AssertUnwindSafe(|| poll(&mut call)));
                }
                Step::Drop(which) if which < calls.len() => drop(calls.swap_remove(which)),
                Step::Wait(millis) => clock.advance(Duration::from_millis(millis)),
                Step::Order(_) => clock.set_back(Duration::from_millis(back)),
                _ => {}
            }
        }
        drop(calls);
        clock.set_back(Duration::from_secs(400));
        let (first, _) = begin(&breaker); // an open circuit notices the step here
        drop(first);
        clock.advance(MAX_OPEN * 6 / 5);
        prop_assert!(begin(&breaker).1.is_pending());
        prop_assert_ne!(breaker.state(), CircuitState::Open);
    }
}
