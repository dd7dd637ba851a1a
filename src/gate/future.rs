//! The response future: waits for a decision, for the inner service and for its response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_LENGTH};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    Body,
    guard::{Guard, Watched},
    lasts::InBody,
    layer::GateShared,
};
use crate::{
    gate::{Admit, Outcome, Permit},
    head::RequestHead,
    identity::Client,
    refusal::{OwnText, Refusal, has_grpc_trailers},
};

pin_project! {
    /// Future of the response of a [`Gate`](crate::Gate).
    ///
    /// # Cancel safety
    /// If it is dropped before the response head, the request counts as cancelled, whether it was being decided or served.
    /// All that it holds is released.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tollgate::{CircuitBreakerLayer, Trip};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// let layer = CircuitBreakerLayer::for_server().trip(Trip::consecutive(1));
    /// let mut service = layer.layer(service_fn(|_: Request<String>| async {
    ///     std::future::pending::<Result<Response<String>, Infallible>>().await
    /// }));
    /// drop(service.call(Request::new(String::new()))); // cancelled, so it counts as no failure
    /// assert_eq!(layer.handle().counts().calls, 0);
    /// ```
    pub struct GateFuture<S, ReqB, A>
    where
        S: Service<Request<ReqB>>,
        A: Admit,
    {
        #[pin]
        state: State<S, ReqB, A>,
    }
}

pub(crate) type DecisionFuture<A> = Pin<Box<dyn Future<Output = Result<<A as Admit>::Permit, Refusal>> + Send>>;

pin_project! {
    #[project = StateProjection]
    enum State<S, ReqB, A>
    where
        S: Service<Request<ReqB>>,
        A: Admit,
    {
        /// The inner service is not called yet. Boxed, because a future is as large as its largest state, and this state
        /// is rare.
        Waiting { waiting: Box<Waiting<S, ReqB, A>> },
        /// The inner service was called.
        Serving { #[pin] future: S::Future, guard: Guard<A::Permit>, facts: CallFacts },
        /// Refused, or completed.
        Refused { answer: Option<Response<OwnText>> },
    }
}

/// A call of the inner service that waits for a decision or for readiness.
pub(super) struct Waiting<S, ReqB, A: Admit> {
    /// The service to call; `None` once it was called or is no longer needed.
    pub(super) service: Option<S>,
    /// Whether the service was polled ready.
    pub(super) ready: bool,
    pub(super) request: Option<Request<ReqB>>,
    pub(super) shared: Arc<GateShared<A>>,
    /// The pending decision, until it is applied.
    pub(super) decision: Option<DecisionFuture<A>>,
    /// The client that is decided on, for events.
    pub(super) client: Option<Client>,
    pub(super) guard: Guard<A::Permit>,
}

impl<S, ReqB, A> Waiting<S, ReqB, A>
where
    S: Service<Request<ReqB>>,
    S::Error: 'static,
    A: Admit,
{
    /// Waits for the decision, then for the service, and calls it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<State<S, ReqB, A>, S::Error>> {
        if let Some(decision) = &mut self.decision {
            let decision = ready!(decision.as_mut().poll(cx));
            let request = self.request.as_ref().expect("polled after completion");
            match self.shared.apply(decision, self.client.as_ref()) {
                Ok(permit) => self.guard = Guard::new(permit),
                Err(refusal) => {
                    self.service = None; // releases what the service has reserved before the answer is made
                    let answer = Some(self.shared.answer(refusal, &RequestHead::of(request)));
                    return Poll::Ready(Ok(State::Refused { answer }));
                }
            }
            self.decision = None;
        }
        let service = self.service.as_mut().expect("polled after completion");
        if !self.ready
            && let Err(error) = ready!(self.guard.run(|| service.poll_ready(cx)))
        {
            self.guard.settle(Outcome::Failed(&error));
            self.service = None; // a later poll must not call it without a permit
            return Poll::Ready(Err(error));
        }
        let mut request = self.request.take().expect("polled after completion");
        let mut guard = self.guard.take();
        let facts = begin(&self.shared, &mut request, &mut guard);
        let service = self.service.take();
        let future = guard.run(move || service.expect("polled ready above").call(request)); // drops the service too
        Poll::Ready(Ok(State::Serving { future, guard, facts }))
    }
}

/// Facts about a call that are needed at the head of its response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallFacts {
    /// Whether the method is HEAD or CONNECT, which determine the framing of the response.
    head: bool,
    connect: bool,
    /// Whether the gate is around a client of the server.
    outbound: bool,
}

impl CallFacts {
    #[inline]
    pub(crate) fn new(method: &Method, outbound: bool) -> Self {
        Self { head: method == Method::HEAD, connect: method == Method::CONNECT, outbound }
    }

    /// Returns the same facts for a gate around a client of the server, or for another one.
    #[inline]
    pub(crate) fn with_outbound(self, outbound: bool) -> Self {
        Self { outbound, ..self }
    }

    /// Returns whether no body follows the head, whatever its fields declare (RFC 9112, 6.3).
    #[inline]
    fn has_no_body(self, status: StatusCode) -> bool {
        self.head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || (self.connect && status.is_success())
    }
}

impl<S, ReqB, A> GateFuture<S, ReqB, A>
where
    S: Service<Request<ReqB>>,
    A: Admit,
{
    pub(super) fn refused(answer: Response<OwnText>) -> Self {
        Self { state: State::Refused { answer: Some(answer) } }
    }

    /// Creates the future of a call after [`begin`] and [`Guard::calling`].
    #[inline]
    pub(super) fn serving(future: S::Future, mut guard: Guard<A::Permit>, facts: CallFacts) -> Self {
        guard.called();
        Self { state: State::Serving { future, guard, facts } }
    }

    pub(super) fn waiting(waiting: Waiting<S, ReqB, A>) -> Self {
        Self { state: State::Waiting { waiting: Box::new(waiting) } }
    }
}

impl<S, ReqB, ResB, A> Future for GateFuture<S, ReqB, A>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    S::Error: 'static,
    ResB: http_body::Body,
    ResB::Error: 'static,
    A: Admit,
{
    type Output = Result<Response<Body<ResB, A::Permit>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProjection::Serving { future, guard, facts } => {
                    let watch = guard.watch();
                    let mut polled = future.poll(cx);
                    watch.disarm();
                    match &mut polled {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(response)) => pass_head(response, guard, *facts, &()),
                        Poll::Ready(Err(error)) => guard.settle(Outcome::Failed(error)),
                    }
                    // The response was not moved until here: a move of what was just written stalls.
                    return polled.map_ok(|response| response.map(|body| Body::inner(body, guard.take())));
                }
                StateProjection::Refused { answer } => {
                    let answer = answer.take().expect("polled after completion");
                    return Poll::Ready(Ok(answer.map(Body::refused)));
                }
                StateProjection::Waiting { waiting } => ready!(waiting.poll(cx))?,
            };
            state.set(next);
        }
    }
}

/// Prepares a request for the inner service, with or without a permit; precedes every call of that service.
///
/// The caller itself calls the service: a function in between would copy the head of the request once more.
#[inline(always)]
pub(crate) fn begin<ReqB, A: Admit>(
    shared: &GateShared<A>,
    request: &mut Request<ReqB>,
    guard: &mut Guard<A::Permit>,
) -> CallFacts {
    match guard.permit() {
        Some(permit) => permit.on_request(request.extensions_mut()),
        None => shared.policy.on_bypass(request.extensions_mut()),
    }
    CallFacts::new(request.method(), shared.outbound())
}

/// Passes the head to the permit, and settles the permit unless it lasts longer. `inner` are the permits of members further
/// in that the body has by now.
#[inline(always)]
pub(crate) fn pass_head<ResB: http_body::Body, P: Permit>(
    response: &mut Response<ResB>,
    guard: &mut Guard<P>,
    facts: CallFacts,
    inner: &impl Watched,
) {
    let Some(permit) = guard.permit() else { return };
    permit.on_response(response);
    let ends = P::Lasts::ENDS_AT_HEAD || permit.ends_at_head();
    if let Some(refusal) = Refusal::further_in(response.extensions(), facts.outbound) {
        guard.settle(Outcome::Refused(refusal));
    } else if ends {
        guard.settle_inline(Outcome::Responded);
    } else if facts.has_no_body(response.status()) || guard.run(|| inner.run(|| response.body().is_end_stream())) {
        guard.settle(Outcome::Complete { trailers: None });
    } else {
        let length = guard.run(|| inner.run(|| length(response.body(), response.headers())));
        guard.head_sent(length);
    }
}

/// Returns the length of the body in bytes, if the body or the head declares it. `None` for gRPC, which ends with its
/// trailers.
fn length(body: &impl http_body::Body, fields: &HeaderMap) -> Option<u64> {
    if has_grpc_trailers(fields) {
        return None;
    }
    body.size_hint().exact().or_else(|| fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok())
}

impl<S, ReqB, A> fmt::Debug for GateFuture<S, ReqB, A>
where
    S: Service<Request<ReqB>>,
    A: Admit,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            State::Waiting { .. } => "GateFuture(waiting)",
            State::Serving { .. } => "GateFuture(serving)",
            State::Refused { .. } => "GateFuture(refused)",
        })
    }
}
