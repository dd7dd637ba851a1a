//! A naive model of a breaker that keeps every call in a list.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::sync::oneshot;
use tollgate::{CallError, CircuitBreaker, CircuitBreakerLayer, Moment, Trip};

pub(super) const SLOW_AFTER: Duration = Duration::from_secs(5);

pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) const RECOVERY: Duration = Duration::from_secs(10);

pub(super) const MAX_OPEN: Duration = Duration::from_secs(35);

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Good,
    Bad,
    Ignored,
    Trip,
    Panic,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Whether the breaker is on a client, else on a server.
    pub(super) client: bool,
    /// Whether the window counts calls, else seconds; and its size.
    pub(super) window: (bool, u32),
    pub(super) failure: Option<(u32, u32)>,
    pub(super) slow: Option<(u32, u32)>,
    pub(super) consecutive: Option<u32>,
    pub(super) probes: u32,
    pub(super) close_after: u32,
    /// Whether a server's rules have a bound for slow calls without a slow rate too.
    pub(super) bound: bool,
}

impl Rules {
    /// Whether calls are timed, so that one can be slow.
    fn times_calls(&self) -> bool {
        self.client || self.slow.is_some() || self.bound
    }

    pub(super) fn layer(&self) -> CircuitBreakerLayer {
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
        let side =
            if self.client { CircuitBreakerLayer::for_client(SLOW_AFTER) } else { CircuitBreakerLayer::for_server() };
        side.trip(if self.times_calls() { trip.slow_after(SLOW_AFTER) } else { trip })
            .recovery_timeout(RECOVERY)
            .max_open(MAX_OPEN)
            .probes(self.probes)
            .close_after(self.close_after)
            .probe_timeout(PROBE_TIMEOUT)
    }
}

/// A call in flight, its admission in the model, and the sender that ends it.
pub(super) struct Call {
    pub(super) id: usize,
    pub(super) kind: Kind,
    pub(super) generation: u64,
    pub(super) started: Moment,
    pub(super) future: Pin<Box<dyn Future<Output = Result<End, CallError<End>>>>>,
    pub(super) end: oneshot::Sender<End>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Counted,
    Probe,
    Free,
}

/// Naive state of the breaker.
pub(super) struct Model {
    pub(super) rules: Rules,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) openings: u32,
    /// Probes that hold a slot, of every generation, and when they began.
    pub(super) probes: Vec<(usize, Moment)>,
    pub(super) told: Vec<String>,
}

pub(super) enum State {
    Closed { list: Vec<(Moment, bool, bool)>, forced: bool },
    Open { until: Option<Moment>, since: Moment },
    HalfOpen { successes: u32 },
    ForcedOpen,
    Disabled,
}

impl Model {
    pub(super) fn name(&self) -> &'static str {
        match self.state {
            State::Closed { forced: false, .. } => "closed",
            State::Closed { forced: true, .. } => "forced_closed",
            State::Open { .. } => "open",
            State::HalfOpen { .. } => "half_open",
            State::ForcedOpen => "forced_open",
            State::Disabled => "disabled",
        }
    }

    pub(super) fn go(&mut self, state: State) {
        let from = self.name();
        self.state = state;
        self.generation += 1;
        if from != self.name() {
            self.told.push(format!("{from} -> {}", self.name()));
        }
    }

    pub(super) fn open(&mut self, now: Moment) {
        self.openings += 1;
        self.go(State::Open { until: None, since: now });
    }

    pub(super) fn close(&mut self, forced: bool) {
        self.openings = 0;
        self.go(State::Closed { list: Vec::new(), forced });
    }

    /// Returns the kind of an admitted call; `None` if it is refused.
    pub(super) fn admit(&mut self, id: usize, now: Moment) -> Option<Kind> {
        if let State::Open { until: Some(until), .. } = self.state
            && now >= until
        {
            self.go(State::HalfOpen { successes: 0 });
        }
        let limit = self.rules.probes as usize;
        match &self.state {
            State::Closed { .. } => Some(Kind::Counted),
            State::Disabled => Some(Kind::Free),
            State::Open { .. } | State::ForcedOpen => None,
            State::HalfOpen { .. } => {
                if self.probes.len() == limit {
                    let lost = self.probes.iter().position(|probe| now.since(probe.1) > PROBE_TIMEOUT)?;
                    self.probes.remove(lost);
                }
                self.probes.push((id, now));
                Some(Kind::Probe)
            }
        }
    }

    /// Returns calls, failures and slow calls inside the window.
    pub(super) fn window(&self, now: Moment) -> (u64, u64, u64) {
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

    pub(super) fn in_a_row(&self) -> u32 {
        let State::Closed { list, .. } = &self.state else { return 0 };
        list.iter().rev().take_while(|call| call.1).count() as u32
    }

    pub(super) fn seen_enough(&self, now: Moment) -> bool {
        let (calls, failures, slow) = self.window(now);
        let reached = |rule: Option<(u32, u32)>, bad: u64| {
            rule.is_some_and(|(percent, min)| calls >= u64::from(min) && bad * 100 >= u64::from(percent) * calls)
        };
        reached(self.rules.failure, failures)
            || reached(self.rules.slow, slow)
            || self.rules.consecutive.is_some_and(|limit| self.in_a_row() >= limit)
    }

    pub(super) fn finish(&mut self, call: &Call, end: End, slow: bool, now: Moment) {
        let slow = slow && self.rules.times_calls();
        let is_late = slow && self.rules.client && self.rules.slow.is_some();
        let end = if end == End::Ignored && is_late { End::Good } else { end };
        let probe = self.probes.iter().position(|probe| probe.0 == call.id);
        let is_held = probe.map(|place| self.probes.remove(place)).is_some();
        if call.generation != self.generation || call.kind == Kind::Free || (call.kind == Kind::Probe && !is_held) {
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
            State::HalfOpen { successes } => {
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

    pub(super) fn order(&mut self, order: u8, breaker: &CircuitBreaker) {
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
