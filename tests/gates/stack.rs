//! A stack of members in front of a scripted handler, and the operations that callers do with it.

use std::{
    any::Any,
    fmt::Write,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use proptest::prelude::*;
use tollgate::Refusal;
use tower::Service;

use crate::{
    layers::{Command, Control, World},
    script::{Readiness, Script, script},
    scripted::{Broken, Handler},
};

/// Services of one stack; each is a clone.
const SERVICES: usize = 2;

/// Requests in flight.
const FLIGHTS: usize = 3;

/// An operation of a caller, or a change from outside.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Script(Vec<Readiness>),
    Ready(usize),
    Call(usize, usize, Box<Script>),
    Poll(usize),
    Drop(usize),
    Ask(usize),
    Clone(usize, usize),
    Command(usize, Command),
    Advance(u64),
    RespondersPanic(bool),
    /// A usual request: ready, call, all polls.
    Through(usize, Box<Script>),
}

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let readiness = prop_oneof![
        3 => Just(Readiness::Pending),
        2 => Just(Readiness::Ready),
        1 => Just(Readiness::Fails),
        1 => Just(Readiness::Panics),
    ];
    let command = prop_oneof![Just(Command::Shut), Just(Command::Open), Just(Command::Reset)];
    let advance = prop::sample::select(vec![0_u64, 1, 6, 11, 61, 3_600]);
    prop_oneof![
        2 => prop::collection::vec(readiness, 1..4).prop_map(Operation::Script),
        6 => (0..SERVICES).prop_map(Operation::Ready),
        6 => (0..SERVICES, 0..FLIGHTS, script()).prop_map(|(service, flight, script)| Operation::Call(service, flight, Box::new(script))),
        10 => (0..FLIGHTS).prop_map(Operation::Poll),
        2 => (0..FLIGHTS).prop_map(Operation::Drop),
        2 => (0..FLIGHTS).prop_map(Operation::Ask),
        1 => (0..SERVICES, 0..SERVICES).prop_map(|(from, to)| Operation::Clone(from, to)),
        2 => (0_usize..4, command).prop_map(|(member, command)| Operation::Command(member, command)),
        2 => advance.prop_map(Operation::Advance),
        1 => prop::bool::weighted(0.2).prop_map(Operation::RespondersPanic),
        6 => (0..SERVICES, script()).prop_map(|(service, script)| Operation::Through(service, Box::new(script))),
    ]
}

/// A stack to which operations are applied.
pub(crate) trait Drive {
    /// Applies an operation; returns what its caller sees, and everything that was recorded.
    fn apply(&mut self, operation: &Operation) -> String;

    /// Drops all requests and services; returns everything that was recorded, and the state of each member.
    fn end(self: Box<Self>) -> String;
}

enum Flight<F, B> {
    None,
    Future(Pin<Box<F>>),
    Body(Pin<Box<B>>),
}

pub(crate) struct Stack<S: Service<Request<Full<Bytes>>>, B> {
    services: Vec<S>,
    flights: Vec<Flight<S::Future, B>>,
    handler: Handler,
    world: World,
    controls: Vec<Control>,
    /// Services whose last call has panicked. Nothing is said about their readiness, so that clones take their places.
    panicked: [bool; SERVICES],
}

/// Returns what a caught panic says.
fn panicked(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<String>().cloned();
    let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let text = text.unwrap_or_else(|| "?".into());
    // A misuse is a misuse, wherever it is found.
    let is_misuse = text.contains("polled after completion") || text.contains("polled ready");
    format!("panicked: {}", if is_misuse { "misuse" } else { &text })
}

impl<S, B> Stack<S, B>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Broken> + Clone,
    B: Body<Data = Bytes, Error = Broken>,
{
    pub(crate) fn new(service: S, handler: Handler, world: World, controls: Vec<Control>) -> Self {
        let services = vec![service; SERVICES];
        let flights = (0..FLIGHTS).map(|_| Flight::None).collect();
        Self { services, flights, handler, world, controls, panicked: [false; SERVICES] }
    }

    fn request(script: &Script) -> Request<Full<Bytes>> {
        let mut request = Request::builder().method(script.method.clone()).uri(format!("http://host{}/", script.host));
        if script.grpc {
            request = request.header("content-type", "application/grpc");
        }
        if let Some(job) = script.job {
            request = request.header("idempotency-key", format!("job {job}"));
        }
        request.extension(Arc::new(script.clone())).body(Full::default()).unwrap()
    }

    fn poll(&mut self, flight: usize) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        let flight = &mut self.flights[flight];
        match flight {
            Flight::None => "nothing".into(),
            Flight::Future(future) => match future.as_mut().poll(&mut cx) {
                Poll::Pending => "pending".into(),
                Poll::Ready(Err(error)) => format!("{error:?}"),
                Poll::Ready(Ok(response)) => {
                    let (head, body) = response.into_parts();
                    *flight = Flight::Body(Box::pin(body));
                    format!("{} {:?} {:?}", head.status, head.headers, head.extensions.get::<Refusal>())
                }
            },
            Flight::Body(body) => match body.as_mut().poll_frame(&mut cx) {
                Poll::Pending => "pending".into(),
                Poll::Ready(frame) => format!("{frame:?}"),
            },
        }
    }

    fn ask(&self, flight: usize) -> String {
        match &self.flights[flight] {
            Flight::Body(body) => format!("{} {:?}", body.is_end_stream(), body.size_hint()),
            _ => "no body".into(),
        }
    }

    fn ready(&mut self, service: usize) -> String {
        format!("{:?}", self.services[service].poll_ready(&mut Context::from_waker(Waker::noop())))
    }

    fn call(&mut self, service: usize, flight: usize, script: &Script) {
        self.flights[flight] = Flight::None;
        self.panicked[service] = true;
        let future = self.services[service].call(Self::request(script));
        self.panicked[service] = false;
        self.flights[flight] = Flight::Future(Box::pin(future));
    }

    fn step(&mut self, operation: &Operation) -> String {
        match operation {
            Operation::Script(next) => self.handler.readiness.lock().unwrap().extend(next),
            Operation::Ready(service) => return self.ready(*service),
            Operation::Call(service, flight, script) => {
                self.call(*service, *flight, script);
            }
            Operation::Poll(flight) => return self.poll(*flight),
            Operation::Drop(flight) => self.flights[*flight] = Flight::None,
            Operation::Ask(flight) => return self.ask(*flight),
            Operation::Clone(from, to) => {
                self.services[*to] = self.services[*from].clone();
            }
            Operation::Command(member, command) => {
                if let Some(control) = self.controls.get(*member) {
                    (control.command)(*command);
                }
            }
            Operation::Advance(seconds) => {
                self.world.clock.advance(Duration::from_secs(*seconds));
                self.world.other_clock.advance(Duration::from_secs(*seconds));
            }
            Operation::RespondersPanic(panic) => {
                self.world.responders_panic.store(*panic, std::sync::atomic::Ordering::Relaxed);
            }
            Operation::Through(service, script) => {
                let mut seen = self.ready(*service);
                if seen == "Ready(Ok(()))" {
                    self.call(*service, 0, script);
                    for _ in 0..12 {
                        let polled = self.poll(0);
                        write!(seen, "\n{polled}").unwrap();
                        if polled == "None" || polled.starts_with("Broken") {
                            break;
                        }
                    }
                    self.flights[0] = Flight::None;
                }
                return seen;
            }
        }
        String::new()
    }

    fn news(&mut self) -> String {
        self.world.log.take().join("\n")
    }
}

impl<S, B> Drive for Stack<S, B>
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Broken> + Clone,
    B: Body<Data = Bytes, Error = Broken>,
{
    fn apply(&mut self, operation: &Operation) -> String {
        let seen = catch_unwind(AssertUnwindSafe(|| self.step(operation))).unwrap_or_else(panicked);
        for (service, panicked) in self.services.iter_mut().zip(&mut self.panicked) {
            if std::mem::take(panicked) {
                *service = service.clone();
            }
        }
        format!("{seen}\n{}", self.news())
    }

    fn end(mut self: Box<Self>) -> String {
        for flight in 0..FLIGHTS {
            self.flights[flight] = Flight::None;
        }
        self.services.clear();
        let states: Vec<_> = self.controls.iter().map(|control| (control.state)()).collect();
        format!("{}\n{}", self.news(), states.join("\n"))
    }
}
