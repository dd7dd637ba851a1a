//! The service of gates: asks the members in their order, then calls the inner service.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    body::GatesBody,
    chain::{Asking, Chain, Stop, StoppedClients},
    future::GatesFuture,
    layer::GatesShared,
    members::{ChainOf, Members},
    permits::{GatesFacts, Permits},
    readiness::MemberReadiness,
    waiting::{StoppedCall, WaitingCall},
};
use crate::{
    gate::{CallFacts, RequestTimes, Watched},
    head::RequestHead,
};

/// A service behind the policies of several layers: that of [`Gates`](crate::Gates).
///
/// The policies decide in `call`, on the very service that was polled ready, as those of a [`Gate`](crate::Gate) do. Response
/// bodies become [`GatesBody`](crate::gates::GatesBody); the error type stays.
///
/// ```
/// use tollgate::{CircuitBreakerLayer, Gates, Rate, TokenBucketLayer};
/// use tower::Layer;
///
/// let gates = Gates::new((TokenBucketLayer::new(Rate::per_second(5)), CircuitBreakerLayer::for_server()));
/// let mut service = gates.layer("a service");
/// *service.get_mut() = "another service";
/// assert_eq!(*service.get_ref(), "another service");
/// assert_eq!(service.into_inner(), "another service");
/// ```
pub struct GatesService<S, L: Members> {
    inner: S,
    shared: Arc<GatesShared<ChainOf<L>>>,
    ready: MemberReadiness,
}

impl<S, L: Members> GatesService<S, L> {
    pub(super) fn new(inner: S, shared: Arc<GatesShared<ChainOf<L>>>) -> Self {
        Self { inner, shared, ready: MemberReadiness::default() }
    }

    /// Returns the inner service.
    #[must_use]
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Returns the inner service. A call through it bypasses the policies. The gates poll it before its next call, even if it
    /// was polled ready before.
    #[must_use]
    pub fn get_mut(&mut self) -> &mut S {
        self.ready.forget();
        &mut self.inner
    }

    /// Returns the inner service without its gates.
    #[must_use]
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, L, ReqB, ResB> Service<Request<ReqB>> for GatesService<S, L>
where
    S: Service<Request<ReqB>, Response = Response<ResB>> + Clone,
    S::Error: 'static,
    ResB: http_body::Body,
    ResB::Error: 'static,
    L: Members,
{
    type Response = Response<GatesBody<ResB, L>>;
    type Error = S::Error;
    type Future = GatesFuture<S, ReqB, L>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.shared.chain.poll_ready(0, &mut self.inner, &mut self.ready, cx)
    }

    fn call(&mut self, mut request: Request<ReqB>) -> Self::Future {
        let facts = GatesFacts { call: CallFacts::new(request.method(), false), outbound: self.shared.outbound };
        let mut permits = <ChainOf<L> as Chain>::Permits::none();
        let times = RequestTimes::default();
        let mut asking = Asking { request: &mut request, ready: self.ready, times, clients: None };
        if let Err(stop) = self.shared.chain.ask(0, &mut asking, None, &mut permits) {
            let clients = asking.clients.take();
            return self.stop(stop, facts, permits, clients, request);
        }
        self.ready = MemberReadiness::default();
        let future = self.inner.call(request);
        GatesFuture::serving(future, permits, facts)
    }
}

impl<S: Clone, L: Members> GatesService<S, L> {
    /// Returns the service that was polled and puts a clone, which was not, in its place.
    fn take(&mut self) -> S {
        let clone = self.inner.clone();
        self.ready = MemberReadiness::default();
        mem::replace(&mut self.inner, clone)
    }

    /// Creates the future of a call that is refused, or cannot be made yet.
    #[cold]
    fn stop<ReqB>(
        &mut self,
        stop: Stop<<ChainOf<L> as Chain>::Decision>,
        facts: GatesFacts,
        mut permits: <ChainOf<L> as Chain>::Permits,
        clients: Option<Box<StoppedClients>>,
        request: Request<ReqB>,
    ) -> GatesFuture<S, ReqB, L>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static,
    {
        let (at, decision) = match stop {
            Stop::Refused { by, refusal } => {
                if self.ready.is_polled() {
                    drop(self.take()); // releases what it has reserved before the answer is made
                }
                self.ready = MemberReadiness::default();
                let answer = self.shared.chain.answer(by, refusal, &RequestHead::of(&request));
                permits.called();
                return GatesFuture::refused(answer, permits, facts);
            }
            Stop::Deciding { at, decision } => (at, Some(decision)),
            Stop::NotReady { at } => (at, None),
        };
        let ready = self.ready;
        let service = Some(permits.run(|| self.take()));
        permits.called();
        let call = WaitingCall { service, request: Some(request), clients, ready, at };
        GatesFuture::waiting(StoppedCall { call, decision, shared: Arc::clone(&self.shared) }, permits, facts)
    }
}

impl<S: Clone, L: Members> Clone for GatesService<S, L> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.shared))
    }
}

impl<S: fmt::Debug, L: Members> fmt::Debug for GatesService<S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatesService").field("inner", &self.inner).finish_non_exhaustive()
    }
}
