//! Random histories of a breaker against a naive model that keeps every call in a list.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::prelude::*;
use tokio::sync::oneshot;
use tollgate::{CallError, CircuitBreaker, CircuitBreakerLayer, CircuitState, Event, FakeClock, Moment, Trip, Verdict};

const SLOW_AFTER: Duration = Duration::from_secs(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(30);
const RECOVERY: Duration = Duration::from_secs(10);
const MAX_OPEN: Duration = Duration::from_secs(35);

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    Finish(usize, End),
    Drop(usize),
    Wait(u64),
    Order(u8),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Good,
    Bad,
    Ignored,
    Trip,
    Panic,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    /// Calls, or seconds.
    window: (bool, u32),
    failure: Option<(u32, u32)>,
    slow: Option<(u32, u32)>,
    consecutive: Option<u32>,
    probes: u32,
    close_after: u32,
}

impl Rules {
    fn layer(&self) -> CircuitBreakerLayer {
        let share =
            |rate: fn(f64) -> Trip, (percent, min): (u32, u32)| rate(f64::from(percent) / 100.0).min_requests(min);
        let mut trip = Trip::on_classifier();
        trip = self.failure.map_or(trip, |rule| trip.or(share(Trip::failure_rate, rule)));
        trip = self.slow.map_or(trip, |rule| trip.or(share(Trip::slow_rate, rule)));
        trip = self.consecutive.map_or(trip, |n| trip.or(Trip::consecutive(n)));
        trip = match self.window {
            (true, calls) => trip.over_calls(calls),
            (false, seconds) => trip.over_time(Duration::from_secs(seconds.into())),
        };
        CircuitBreakerLayer::new(trip.slow_after(SLOW_AFTER))
            .recovery_timeout(RECOVERY)
            .max_open(MAX_OPEN)
            .probes(self.probes)
            .close_after(self.close_after)
            .probe_timeout(PROBE_TIMEOUT)
    }
}

fn rules() -> impl Strategy<Value = Rules> {
    (any::<bool>(), 5..20_u32, prop::option::of((20..100_u32, 1..5_u32)), prop::option::of((20..100_u32, 1..5_u32)))
        .prop_flat_map(|(calls, size, failure, slow)| {
            (prop::option::of(1..6_u32), 1..4_u32, 1..5_u32).prop_map(move |(consecutive, probes, close_after)| Rules {
                window: (calls, size),
                failure,
                slow,
                consecutive,
                probes,
                close_after,
            })
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

/// A call under way, its admission as the model sees it, and the way to end it.
struct Call {
    id: usize,
    kind: Kind,
    generation: u64,
    started: Moment,
    future: Pin<Box<dyn Future<Output = Result<End, CallError<End>>>>>,
    end: oneshot::Sender<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Counted,
    Probe,
    Free,
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
            End::Panic => std::panic::resume_unwind(Box::new("the operation panics")), // without a word
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

/// The breaker as one would explain it.
struct Model {
    rules: Rules,
    state: State,
    generation: u64,
    openings: u32,
    told: Vec<String>,
}

enum State {
    Closed { list: Vec<(Moment, bool, bool)>, forced: bool },
    Open { until: Option<Moment>, since: Moment },
    HalfOpen { probes: Vec<(usize, Moment)>, successes: u32 },
    ForcedOpen,
    Disabled,
}

impl Model {
    fn name(&self) -> &'static str {
        match self.state {
            State::Closed { forced: false, .. } => "closed",
            State::Closed { forced: true, .. } => "forced_closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::ForcedOpen => "forced_open",
            State::Disabled => "disabled",
        }
    }

    fn go(&mut self, state: State) {
        let from = self.name();
        self.state = state;
        self.generation += 1;
        if from != self.name() {
            self.told.push(format!("{from} -> {}", self.name()));
        }
    }

    fn open(&mut self, now: Moment) {
        self.openings += 1;
        self.go(State::Open { until: None, since: now });
    }

    fn close(&mut self, forced: bool) {
        self.openings = 0;
        self.go(State::Closed { list: Vec::new(), forced });
    }

    /// What becomes of a call; `None` when it is refused.
    fn admit(&mut self, id: usize, now: Moment) -> Option<Kind> {
        if let State::Open { until: Some(until), .. } = self.state
            && now >= until
        {
            self.go(State::HalfOpen { probes: Vec::new(), successes: 0 });
        }
        let limit = self.rules.probes as usize;
        match &mut self.state {
            State::Closed { .. } => Some(Kind::Counted),
            State::Disabled => Some(Kind::Free),
            State::Open { .. } | State::ForcedOpen => None,
            State::HalfOpen { probes, .. } => {
                if probes.len() == limit {
                    let lost = probes.iter().position(|probe| now.since(probe.1) > PROBE_TIMEOUT)?;
                    probes.remove(lost);
                }
                probes.push((id, now));
                Some(Kind::Probe)
            }
        }
    }

    /// Those calls of the list that the window holds.
    fn window(&self, now: Moment) -> (u64, u64, u64) {
        let State::Closed { list, .. } = &self.state else { return (0, 0, 0) };
        let (by_calls, size) = self.rules.window;
        let live: Vec<_> = if by_calls {
            list.iter().rev().take(size as usize).collect()
        } else {
            let tenth = |moment: Moment| moment.as_nanos() / (u64::from(size) * 100_000_000);
            list.iter().filter(|call| tenth(call.0) + 10 > tenth(now)).collect()
        };
        let count = |bad: fn(&(Moment, bool, bool)) -> bool| live.iter().filter(|call| bad(call)).count() as u64;
        (live.len() as u64, count(|call| call.1), count(|call| call.2))
    }

    fn in_a_row(&self) -> u32 {
        let State::Closed { list, .. } = &self.state else { return 0 };
        list.iter().rev().take_while(|call| call.1).count() as u32
    }

    fn seen_enough(&self, now: Moment) -> bool {
        let (calls, failures, slow) = self.window(now);
        let reached = |rule: Option<(u32, u32)>, bad: u64| {
            rule.is_some_and(|(percent, min)| calls >= u64::from(min) && bad * 100 >= u64::from(percent) * calls)
        };
        reached(self.rules.failure, failures)
            || reached(self.rules.slow, slow)
            || self.rules.consecutive.is_some_and(|limit| self.in_a_row() >= limit)
    }

    fn finish(&mut self, call: &Call, end: End, slow: bool, now: Moment) {
        if call.generation != self.generation || call.kind == Kind::Free {
            return;
        }
        let failure = matches!(end, End::Bad | End::Panic);
        match &mut self.state {
            State::Closed { forced: false, .. } if end == End::Trip => self.open(now),
            State::Closed { .. } if end == End::Trip => {}
            State::Closed { list, forced } if end != End::Ignored => {
                list.push((now, failure, slow));
                if !*forced && (failure || slow) && self.seen_enough(now) {
                    self.open(now);
                }
            }
            State::HalfOpen { probes, successes } => {
                let Some(place) = probes.iter().position(|probe| probe.0 == call.id) else { return };
                probes.remove(place);
                if failure || end == End::Trip || (end != End::Ignored && slow && self.rules.slow.is_some()) {
                    self.open(now);
                } else if end == End::Good {
                    *successes += 1;
                    if *successes == self.rules.close_after {
                        self.close(false);
                    }
                }
            }
            _ => {}
        }
    }

    fn order(&mut self, order: u8, breaker: &CircuitBreaker) {
        match order {
            0 => {
                self.openings = 0;
                self.go(State::ForcedOpen);
                breaker.force_open();
            }
            1 => {
                self.close(true);
                breaker.force_closed();
            }
            2 => {
                self.openings = 0;
                self.go(State::Disabled);
                breaker.disable();
            }
            _ => {
                self.close(false);
                breaker.reset();
            }
        }
    }
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
    let mut model = Model { rules, state: closed, generation: 1, openings: 0, told: Vec::new() };
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
                model.finish(&call, if slow { End::Bad } else { End::Ignored }, slow, now);
            }
            Step::Finish(..) | Step::Drop(_) => {}
            Step::Wait(millis) => clock.advance(Duration::from_millis(millis)),
            Step::Order(order) => model.order(order, &breaker),
        }
        let now = clock.now();
        if let State::Open { until: until @ None, since } = &mut model.state {
            // The jitter is the breaker's own: what it tells must lie in its bounds, and then holds to the nanosecond.
            let (call, polled) = begin(&breaker);
            drop(call);
            let Poll::Ready(Err(CallError::Refused(refusal))) = polled else { panic!("just opened: {polled:?}") };
            let wait = refusal.retry_after().unwrap();
            let base = (RECOVERY * 2_u32.pow(model.openings.min(6) - 1)).min(MAX_OPEN);
            prop_assert!((base..=base * 6 / 5).contains(&wait), "{wait:?} of {base:?}");
            *until = Some(*since + wait);
        }
        prop_assert_eq!(breaker.state().as_str(), model.name());
        let counts = breaker.counts();
        prop_assert_eq!((counts.calls, counts.failures, counts.slow), {
            let (calls, failures, slow) = model.window(now);
            (calls, failures, slow)
        });
        prop_assert_eq!((counts.consecutive, counts.generation), (model.in_a_row(), model.generation));
        prop_assert_eq!(&*told.lock().unwrap(), &model.told);
    }
    // From wherever it is now, somebody is let through in the end.
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
    fn a_breaker_is_its_model(rules in rules(), steps in steps()) {
        history(rules, steps)?;
    }

    /// Whatever the clock does, nothing panics, and once it goes on somebody is let through.
    #[test]
    fn a_clock_that_steps_back_wedges_nothing(rules in rules(), steps in steps(), back in prop::collection::vec(0..100_000_u64, 150)) {
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
