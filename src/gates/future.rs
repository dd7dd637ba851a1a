//! The response future of gates: waits for decisions, for the inner service and for its response.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    body::{AnswerBody, GatesBody},
    chain::Chain,
    members::{ChainOf, Members},
    permits::{GatesFacts, Permits, PermitsInBody},
    waiting::StoppedCall,
};
use crate::{
    gate::{Body, Guard, Watched},
    refusal::OwnText,
};

type CallPermitsOf<L> = <ChainOf<L> as Chain>::Permits;

pin_project! {
    /// Future of the response of a [`GatesService`](crate::gates::GatesService).
    ///
    /// # Cancel safety
    /// If it is dropped before the response head, the request counts as cancelled for each member that has admitted it,
    /// whether another one was deciding or it was being served. All that it holds is released.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use http::{Request, Response};
    /// use tollgate::{CircuitBreakerLayer, Gates, Trip};
    /// use tower::{Layer, Service, service_fn};
    ///
    /// let breaker = |name| CircuitBreakerLayer::for_server().trip(Trip::consecutive(1)).named(name);
    /// let gates = Gates::new((breaker("outer"), breaker("inner")));
    /// let mut service = gates.layer(service_fn(|_: Request<String>| async {
    ///     std::future::pending::<Result<Response<String>, Infallible>>().await
    /// }));
    /// drop(service.call(Request::new(String::new()))); // cancelled, so it counts as no failure
    /// assert_eq!(gates.layers().0.handle().counts().calls, 0);
    /// ```
    pub struct GatesFuture<S, ReqB, L>
    where
        S: Service<Request<ReqB>>,
        L: Members,
    {
        #[pin]
        state: CallState<S, ReqB, ChainOf<L>>,
        permits: CallPermitsOf<L>, // dropped after the state
        facts: GatesFacts,
    }
}

pin_project! {
    #[project = CallStateProjection]
    enum CallState<S, ReqB, C>
    where
        S: Service<Request<ReqB>>,
        C: Chain,
    {
        /// The inner service is not called yet. Boxed, because a future is as large as its largest state, and this state
        /// is rare.
        Waiting { waiting: Box<StoppedCall<S, ReqB, C>> },
        /// The inner service was called.
        Serving { #[pin] future: S::Future },
        /// Refused, or completed.
        Refused { answer: Option<Response<OwnText>> },
    }
}

impl<S, ReqB, L> GatesFuture<S, ReqB, L>
where
    S: Service<Request<ReqB>>,
    L: Members,
{
    /// Creates the future of a call. The inner service has returned.
    #[inline]
    pub(super) fn serving(future: S::Future, permits: CallPermitsOf<L>, facts: GatesFacts) -> Self {
        let mut serving = Self { state: CallState::Serving { future }, permits, facts };
        serving.permits.called(); // in its place: a move of what was just written stalls
        serving
    }

    pub(super) fn refused(answer: Response<OwnText>, permits: CallPermitsOf<L>, facts: GatesFacts) -> Self {
        Self { state: CallState::Refused { answer: Some(answer) }, permits, facts }
    }

    pub(super) fn waiting(
        waiting: StoppedCall<S, ReqB, ChainOf<L>>,
        permits: CallPermitsOf<L>,
        facts: GatesFacts,
    ) -> Self {
        Self { state: CallState::Waiting { waiting: Box::new(waiting) }, permits, facts }
    }
}

impl<S, ReqB, ResB, L> Future for GatesFuture<S, ReqB, L>
where
    S: Service<Request<ReqB>, Response = Response<ResB>>,
    S::Error: 'static,
    ResB: http_body::Body,
    ResB::Error: 'static,
    L: Members,
{
    type Output = Result<Response<GatesBody<ResB, L>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (mut state, permits, facts) = (this.state, this.permits, *this.facts);
        loop {
            let next = match state.as_mut().project() {
                CallStateProjection::Serving { future } => {
                    let mut polled = permits.run(|| future.poll(cx));
                    let held = match &mut polled {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Ok(response)) => permits.pass_head(0, response, facts),
                        Poll::Ready(Err(error)) => {
                            permits.fail(error);
                            PermitsInBody::none()
                        }
                    };
                    // The response was not moved until here: a move of what was just written stalls.
                    return polled.map_ok(|response| {
                        response.map(|body| GatesBody::new(Body::inner(body, Guard::new(None)), held))
                    });
                }
                CallStateProjection::Refused { answer } => {
                    let answer = permits.run(|| answer.take().expect("polled after completion"));
                    return Poll::Ready(Ok(refused(answer, permits, facts)));
                }
                CallStateProjection::Waiting { waiting } => match ready!(waiting.poll(permits, cx)) {
                    Ok(Ok(future)) => CallState::Serving { future },
                    Ok(Err(answer)) => CallState::Refused { answer: Some(answer) },
                    Err(error) => {
                        permits.fail(&error);
                        return Poll::Ready(Err(error));
                    }
                },
            };
            state.set(next);
        }
    }
}

/// Passes the answer of a member to those outside of it.
#[cold]
fn refused<ResB, L: Members>(
    answer: Response<OwnText>,
    permits: &mut CallPermitsOf<L>,
    facts: GatesFacts,
) -> Response<GatesBody<ResB, L>> {
    let mut answer = answer.map(AnswerBody);
    let held = permits.pass_head(0, &mut answer, facts);
    answer.map(|AnswerBody(text)| GatesBody::new(Body::refused(text), held))
}

impl<S, ReqB, L> fmt::Debug for GatesFuture<S, ReqB, L>
where
    S: Service<Request<ReqB>>,
    L: Members,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.state {
            CallState::Waiting { .. } => "GatesFuture(waiting)",
            CallState::Serving { .. } => "GatesFuture(serving)",
            CallState::Refused { .. } => "GatesFuture(refused)",
        })
    }
}
