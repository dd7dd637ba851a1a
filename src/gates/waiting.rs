//! A call that waits for a decision, or for the readiness of the service inside of a member.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    chain::{Asking, Chain, ChainLink, Pending, Stop, StoppedClients},
    layer::GatesShared,
    permits::{CallPermits, Permits},
    readiness::MemberReadiness,
};
use crate::{
    gate::{Admit, AskPolicy, Outcome, RequestTimes, Watched, begin},
    head::RequestHead,
    refusal::OwnText,
};

/// A call that waits. Boxed in its future, because few calls do.
pub(super) struct StoppedCall<S, ReqB, C: Chain> {
    pub(super) call: WaitingCall<S, ReqB>,
    /// The pending decision, until it is applied.
    pub(super) decision: Option<C::Decision>,
    pub(super) shared: Arc<GatesShared<C>>,
}

/// The request and the service of a call that waits at a member.
pub struct WaitingCall<S, ReqB> {
    /// The service to call; `None` once it was called or is no longer needed.
    pub(super) service: Option<S>,
    pub(super) request: Option<Request<ReqB>>,
    pub(super) clients: Option<Box<StoppedClients>>,
    pub(super) ready: MemberReadiness,
    /// The member that decides, or has decided last.
    pub(super) at: u32,
}

/// Next state of a call that has waited.
pub enum Proceeded<F, D> {
    /// The inner service was called.
    Called(F),
    /// A member has refused.
    Refused(Response<OwnText>),
    /// The decision of another member is pending.
    Deciding(D),
    /// Another member has decided, and the service inside of it is not ready.
    NotReady,
}

/// [`Proceeded`], once it is known, or the error of the service while it was polled for readiness.
pub(super) type Proceed<S, ReqB, D> =
    Poll<Result<Proceeded<<S as Service<Request<ReqB>>>::Future, D>, <S as Service<Request<ReqB>>>::Error>>;

/// The end of a wait: the future of the service that was called, or the answer of a member that has refused.
pub(super) type Waited<S, ReqB> = Poll<
    Result<Result<<S as Service<Request<ReqB>>>::Future, Response<OwnText>>, <S as Service<Request<ReqB>>>::Error>,
>;

impl<F, D> Proceeded<F, D> {
    /// Returns the state as the member further out sees it.
    pub(super) fn further<A: Admit>(self) -> Proceeded<F, Pending<A, D>> {
        match self {
            Self::Called(future) => Proceeded::Called(future),
            Self::Refused(answer) => Proceeded::Refused(answer),
            Self::Deciding(decision) => Proceeded::Deciding(Pending::Further(decision)),
            Self::NotReady => Proceeded::NotReady,
        }
    }
}

impl<S, ReqB, C> StoppedCall<S, ReqB, C>
where
    S: Service<Request<ReqB>>,
    S::Error: 'static,
    C: Chain,
{
    /// Waits for decisions and for readiness in their order, and calls the service. Returns its future, or the answer of a
    /// member that has refused.
    pub(super) fn poll(&mut self, permits: &mut C::Permits, cx: &mut Context<'_>) -> Waited<S, ReqB> {
        let Self { call, decision, shared } = self;
        loop {
            if let Some(pending) = decision {
                let request = call.request.as_ref().expect("polled after completion");
                let client = call.clients.as_ref().and_then(|clients| clients.deciding.as_ref());
                let service = &mut call.service;
                let release = || *service = None; // releases what the service has reserved before the answer is made
                let decided = shared.chain.poll_decision(pending, client, request, release, permits, cx);
                if let Err(answer) = ready!(decided) {
                    return Poll::Ready(Ok(Err(answer)));
                }
                *decision = None;
            }
            match ready!(shared.chain.proceed(0, call, permits, cx))? {
                Proceeded::Called(future) => return Poll::Ready(Ok(Ok(future))),
                Proceeded::Refused(answer) => return Poll::Ready(Ok(Err(answer))),
                Proceeded::Deciding(next) => *decision = Some(next),
                Proceeded::NotReady => {}
            }
        }
    }
}

impl<S, ReqB> WaitingCall<S, ReqB>
where
    S: Service<Request<ReqB>>,
    S::Error: 'static,
{
    /// Goes on at `member`, which has decided.
    pub(super) fn proceed<L: AskPolicy, Rest: Chain>(
        &mut self,
        member: &ChainLink<L, Rest>,
        permits: &mut CallPermits<L::Permit, Rest::Permits>,
        cx: &mut Context<'_>,
    ) -> Proceed<S, ReqB, Pending<L::Policy, Rest::Decision>> {
        let further_in = self.at + 1;
        if !self.ready.is(self.at) {
            let service = self.service.as_mut().expect("polled after completion");
            let ready = &mut self.ready;
            let polled = permits.guard.run(|| member.rest.poll_ready(further_in, service, ready, cx));
            if let Err(error) = ready!(polled) {
                permits.guard.settle(Outcome::Failed(&error));
                self.service = None; // a later poll must not call it without a permit
                return Poll::Ready(Err(error));
            }
        }
        // After a panic what follows is dropped from the last to the first, as nested gates would drop it.
        let mut guard = permits.guard.take();
        let mut request = self.request.take().expect("polled after completion");
        begin(&member.gate, &mut request, &mut guard);
        let service = self.service.take();
        let (proceeded, rest) = guard.run(|| self.ask(&member.rest, further_in, service, request));
        *permits = CallPermits { rest, guard };
        Poll::Ready(Ok(proceeded.further()))
    }

    /// Asks the members further in than one that has decided, and calls the service. Returns their permits too.
    fn ask<C: Chain>(
        &mut self,
        further_in: &C,
        at: u32,
        service: Option<S>,
        mut request: Request<ReqB>,
    ) -> (Proceeded<S::Future, C::Decision>, C::Permits) {
        let mut service = service.expect("polled ready");
        let mut permits = C::Permits::none();
        let known = self.clients.as_ref().and_then(|clients| clients.known.as_ref()).map(Option::as_ref);
        // The time that was read before may be long ago.
        let times = RequestTimes::default();
        let mut asking = Asking { request: &mut request, ready: self.ready, times, clients: None };
        let asked = further_in.ask(at, &mut asking, known, &mut permits);
        let clients = asking.clients.take();
        let (at, decision) = match asked {
            Ok(()) => {
                let future = permits.run(|| service.call(request));
                permits.called();
                drop(service);
                return (Proceeded::Called(future), permits);
            }
            Err(Stop::Refused { by, refusal }) => {
                drop(service); // releases what it has reserved before the answer is made
                let answer = further_in.answer(by - at, refusal, &RequestHead::of(&request));
                permits.called();
                return (Proceeded::Refused(answer), permits);
            }
            Err(Stop::Deciding { at, decision }) => (at, Some(decision)),
            Err(Stop::NotReady { at }) => (at, None),
        };
        (self.service, self.request, self.clients, self.at) = (Some(service), Some(request), clients, at);
        permits.called();
        (decision.map_or(Proceeded::NotReady, Proceeded::Deciding), permits)
    }
}
