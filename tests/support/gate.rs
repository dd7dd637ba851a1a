//! A recording policy, and services with special readiness.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::sync::mpsc;
use tollgate::{Admit, Client, GateLayer, MaybeFuture, Outcome, Permit, PolicyName, Reason, Refusal, RequestHead};
use tower::Service;

/// A policy that admits or refuses, and records the outcome of each request.
pub(crate) struct Recorder {
    pub(crate) refuse: AtomicBool,
    pub(crate) shut: AtomicBool,
    /// Decides at the third poll, as a store across the network does.
    pub(crate) later: bool,
    pub(crate) held: Arc<AtomicUsize>,
    pub(crate) unready: AtomicUsize,
    ends: mpsc::UnboundedSender<String>,
}

/// Outcomes that a [`Recorder`] recorded.
pub(crate) struct Ends(mpsc::UnboundedReceiver<String>);

impl Ends {
    /// Waits for the outcome of the next request.
    pub(crate) async fn next(&mut self) -> String {
        let patience = Duration::from_secs(300);
        tokio::time::timeout(patience, self.0.recv()).await.expect("a permit was never settled").expect("recorder gone")
    }

    /// Returns the outcome of the next request, if there is one.
    pub(crate) fn now(&mut self) -> Option<String> {
        self.0.try_recv().ok()
    }
}

impl Recorder {
    pub(crate) fn layer() -> (GateLayer<Self>, Arc<Self>, Ends) {
        Self::build(false)
    }

    pub(crate) fn later() -> (GateLayer<Self>, Arc<Self>, Ends) {
        Self::build(true)
    }

    fn build(later: bool) -> (GateLayer<Self>, Arc<Self>, Ends) {
        let (ends, receiver) = mpsc::unbounded_channel();
        let recorder = Arc::new(Self {
            refuse: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            later,
            held: Arc::default(),
            unready: AtomicUsize::new(0),
            ends,
        });
        (GateLayer::from_arc(Arc::clone(&recorder)), recorder, Ends(receiver))
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    fn decide(self: &Arc<Self>) -> Result<Held, Refusal> {
        if self.refuse.load(Ordering::SeqCst) {
            return Err(Refusal::new(Reason::Capacity, PolicyName::try_new("recorder").unwrap()));
        }
        self.held.fetch_add(1, Ordering::SeqCst);
        Ok(Held { recorder: Arc::clone(self), status: None, bytes: 0 })
    }
}

impl Admit for Recorder {
    type Permit = Held;

    fn admit(self: &Arc<Self>, _: &RequestHead<'_>, _: Option<&Client>) -> MaybeFuture<Result<Held, Refusal>> {
        if !self.later {
            return MaybeFuture::Ready(self.decide());
        }
        let this = Arc::clone(self);
        MaybeFuture::future(async move {
            yield_times(2).await;
            this.decide()
        })
    }

    fn shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    fn unready(self: &Arc<Self>, _: &dyn std::any::Any) {
        self.unready.fetch_add(1, Ordering::SeqCst);
    }
}

/// A permit of a [`Recorder`].
pub(crate) struct Held {
    recorder: Arc<Recorder>,
    status: Option<u16>,
    bytes: usize,
}

impl Permit for Held {
    type Lasts = tollgate::ToEnd;
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        self.status = Some(response.status().as_u16());
    }

    fn on_data(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    fn settle(self, outcome: Outcome<'_>) {
        self.recorder.held.fetch_sub(1, Ordering::SeqCst);
        let text = match outcome {
            Outcome::Complete { trailers: None } => format!("complete {}", self.bytes),
            Outcome::Complete { trailers: Some(_) } => format!("complete {} with trailers", self.bytes),
            Outcome::Cancelled { head_sent: false } => "cancelled before the head".into(),
            Outcome::Cancelled { head_sent: true } => "cancelled after the head".into(),
            Outcome::Failed(_) => "failed".into(),
            Outcome::BodyFailed(_) => "body failed".into(),
            Outcome::Refused(_) => "refused further in".into(),
            Outcome::Panicked => "panicked".into(),
            other => format!("{other:?}"),
        };
        let _ = self.recorder.ends.send(text);
    }
}

/// Returns the output of a future that must be ready at its first poll.
pub(crate) fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the future is pending"),
    }
}

/// Polls a future once.
pub(crate) fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// Pending for a number of polls.
pub(crate) async fn yield_times(times: usize) {
    for _ in 0..times {
        tokio::task::yield_now().await;
    }
}

/// Panics when it is called without having been polled ready; a clone is not ready.
#[derive(Debug, Default)]
pub(crate) struct Strict {
    ready: bool,
    pub(crate) polls: usize,
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Service<Request<Full<Bytes>>> for Strict {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.polls += 1;
        if self.polls < 3 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without having been polled ready");
        self.polls = 0;
        ready(Ok(Response::new(Full::from("served"))))
    }
}

/// Never ready, like a dead upstream behind a connection pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeverReady;

impl Service<Request<Full<Bytes>>> for NeverReady {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Pending
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        panic!("called a service that was never ready")
    }
}

/// Fails in `poll_ready`, like a pool without a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Broken;

impl Service<Request<Full<Bytes>>> for Broken {
    type Response = Response<Full<Bytes>>;
    type Error = &'static str;
    type Future = Ready<Result<Self::Response, &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        Poll::Ready(Err("no connection"))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        unreachable!("called a service that was never ready")
    }
}

/// Lines that a test recorded, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn push(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Returns the lines since the last call.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}
