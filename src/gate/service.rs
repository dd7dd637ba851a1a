//! The service: decides, then calls the inner service.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    Body,
    admit::Admit,
    future::{DecisionFuture, GateFuture, Waiting, begin},
    guard::Guard,
    layer::GateShared,
    member::{MemberDecision, RequestTimes},
};
use crate::{
    head::RequestHead,
    identity::Client,
    refusal::{OwnText, Refusal},
};

/// A service behind a policy. Every layer of this crate, such as [`GateLayer`](crate::GateLayer), wraps services in it.
///
/// The policy decides in `call`, on the very service that was polled ready. If the request is refused, that service is
/// dropped and a clone takes its place. The dropped one may hold a reservation that other requests wait for, such as a
/// slot of a concurrency limit. Response bodies become [`Body`]; the error type stays.
///
/// ```
/// use http::{Request, Response};
/// use tollgate::{Gate, OnUnidentified, Rate, TokenBucketLayer};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let inner = service_fn(|_: Request<String>| async { Ok::<_, ()>(Response::new(String::from("hello"))) });
/// let limit = TokenBucketLayer::new(Rate::per_second(5)).on_unidentified(OnUnidentified::Share);
/// let gate: Gate<_, _> = limit.layer(inner);
/// assert_eq!(gate.oneshot(Request::new(String::new())).await.unwrap().status(), 200);
/// # });
/// ```
pub struct Gate<S, A> {
    inner: S,
    shared: Arc<GateShared<A>>,
    readiness: Readiness,
}

/// Result of the inner service's `poll_ready` since its last call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Readiness {
    /// It was not polled and holds nothing.
    NotPolled,
    /// It was polled and is not ready. It may hold a place in a queue.
    NotReady,
    /// It is ready. It may hold a reservation, such as a slot of a concurrency limit.
    Ready,
}

impl<S, A> Gate<S, A> {
    pub(super) fn new(inner: S, shared: Arc<GateShared<A>>) -> Self {
        Self { inner, shared, readiness: Readiness::NotPolled }
    }

    /// Returns the inner service.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service. A call through it bypasses the policy. The gate polls it before its next call, even
    /// if it was polled ready before.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut S {
        if matches!(self.readiness, Readiness::Ready) {
            self.readiness = Readiness::NotReady;
        }
        &mut self.inner
    }

    /// Returns the inner service without its gate.
    ///
    /// ```
    /// use tollgate::{CircuitBreakerLayer, CircuitBreakerService};
    /// use tower::Layer;
    ///
    /// let mut service: CircuitBreakerService<&str> = CircuitBreakerLayer::for_server().layer("a service");
    /// *service.get_mut() = "another service";
    /// assert_eq!(*service.get_ref(), "another service");
    /// assert_eq!(service.into_inner(), "another service");
    /// ```
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, A, ReqB, ResB> Service<Request<ReqB>> for Gate<S, A>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone,
    S::Error: 'static,
    ResB: http_body::Body,
    ResB::Error: 'static,
    A: Admit,
{
    type Response = Response<Body<ResB, A::Permit>>;
    type Error = S::Error;
    type Future = GateFuture<S, ReqB, A>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // A dead upstream never becomes ready: a caller that waited for it here would never receive its refusal.
        if self.shared.shut() {
            return Poll::Ready(Ok(()));
        }
        self.readiness = Readiness::NotReady; // also if the poll panics
        let polled = self.inner.poll_ready(cx);
        if let Poll::Ready(Ok(())) = polled {
            self.readiness = Readiness::Ready;
        }
        if let Poll::Ready(Err(error)) = &polled
            && self.shared.options.enabled
        {
            self.shared.policy.unready(error);
        }
        polled
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let ready = self.readiness == Readiness::Ready;
        let mut guard = Guard::new(None);
        if !self.shared.bypasses(&request) {
            let policy = &self.shared.policy;
            let mut times = RequestTimes::default();
            times.read(policy.decision_clock());
            let head = RequestHead::of(&request);
            let mut client = policy.identify(&head);
            Client::identified(&mut client);
            match policy.admit_in_place(&head, client.as_ref(), &mut times, guard.place()) {
                MemberDecision::Admitted => self.shared.admitted(client.as_ref()),
                MemberDecision::Refused(refusal) => {
                    if let Err(refusal) = self.shared.refused(refusal, client.as_ref()) {
                        return GateFuture::refused(self.refuse(refusal, &RequestHead::of(&request)));
                    }
                }
                MemberDecision::Pending(decision) => return self.wait(ready, request, Some(decision), client, guard),
            }
        }
        if !ready {
            return self.wait(ready, request, None, None, guard);
        }
        self.readiness = Readiness::NotPolled;
        let facts = begin(&self.shared, &mut request, &mut guard);
        guard.calling();
        let future = self.inner.call(request);
        GateFuture::serving(future, guard, facts)
    }
}

impl<S: Clone, A> Gate<S, A> {
    /// Returns the service that was polled and puts a clone, which was not, in its place.
    fn take(&mut self) -> S {
        let clone = self.inner.clone();
        self.readiness = Readiness::NotPolled;
        mem::replace(&mut self.inner, clone)
    }

    /// Creates the future of a call that cannot be made yet.
    fn wait<ReqB>(
        &mut self,
        ready: bool,
        request: Request<ReqB>,
        decision: Option<DecisionFuture<A>>,
        client: Option<Client>,
        guard: Guard<A::Permit>,
    ) -> GateFuture<S, ReqB, A>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static,
        A: Admit,
    {
        let service = Some(guard.run(|| self.take()));
        let shared = Arc::clone(&self.shared);
        GateFuture::waiting(Waiting { service, ready, request: Some(request), shared, decision, client, guard })
    }

    /// Answers a refused request, after the service has released what it reserved for it.
    fn refuse(&mut self, refusal: Refusal, request: &RequestHead<'_>) -> Response<OwnText>
    where
        A: Admit,
    {
        if self.readiness != Readiness::NotPolled {
            drop(self.take());
        }
        self.shared.answer(refusal, request)
    }
}

impl<S: Clone, A> Clone for Gate<S, A> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.shared))
    }
}

impl<S: fmt::Debug, A> fmt::Debug for Gate<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("inner", &self.inner).finish_non_exhaustive()
    }
}
