//! Members in their order, the outermost first, each with those further in.

use std::{
    marker::PhantomData,
    ptr,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tower_service::Service;

use super::{
    permits::{CallPermits, Permits},
    readiness::MemberReadiness,
    waiting::{Proceed, Proceeded, WaitingCall},
};
use crate::{
    error::ConfigError,
    gate::{Admit, AskPolicy, DecisionFuture, GateShared, Guard, MemberDecision, RequestTimes, begin},
    head::RequestHead,
    identity::{Client, Identify},
    refusal::{OwnText, Refusal},
};

/// A member of gates and those further in.
pub struct ChainLink<L: AskPolicy, Rest> {
    pub(super) gate: Arc<GateShared<L::Policy>>,
    /// Whether other members have the same identity, so that a client that one has found is the client of all.
    shares_identity: bool,
    pub(super) rest: Rest,
    layer: PhantomData<fn() -> L>,
}

/// Members of gates, from one of them inward. The end is `()`.
pub trait Chain: Send + Sync + Sized + 'static {
    /// Number of members.
    const LEN: u32;
    /// Permits of a request.
    type Permits: Permits;
    /// A pending decision of one of them.
    type Decision: Send;

    /// Returns the members that are around a client of the server: bit `at` for the first.
    fn outbound(&self, at: u32) -> u32;

    /// Adds the identities by which members find clients.
    fn identities(&self, found: &mut Vec<Arc<dyn Identify>>);

    /// Says that the members with this identity share it.
    fn share(&mut self, identity: &Arc<dyn Identify>);

    /// Polls the inner service for readiness, unless a member is shut.
    fn poll_ready<S, ReqB>(
        &self,
        at: u32,
        service: &mut S,
        ready: &mut MemberReadiness,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), S::Error>>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static;

    /// Asks each member, until one refuses or cannot go on. Its permit and its extensions precede the next member.
    ///
    /// `known` is the client that members with a shared identity have found.
    fn ask<'a, ReqB>(
        &'a self,
        at: u32,
        asking: &mut Asking<'_, 'a, ReqB>,
        known: Option<Option<&Client>>,
        permits: &mut Self::Permits,
    ) -> Result<(), Stop<Self::Decision>>;

    /// Polls the pending decision of a member, and stores its permit. Returns the answer if it refuses: `release` precedes
    /// the answer.
    fn poll_decision<ReqB>(
        &self,
        decision: &mut Self::Decision,
        client: Option<&Client>,
        request: &Request<ReqB>,
        release: impl FnOnce(),
        permits: &mut Self::Permits,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Response<OwnText>>>;

    /// Goes on with a call that waits at a member that has decided: waits for the service inside of it, then asks the members
    /// further in, and calls the inner service.
    fn proceed<S, ReqB>(
        &self,
        at: u32,
        call: &mut WaitingCall<S, ReqB>,
        permits: &mut Self::Permits,
        cx: &mut Context<'_>,
    ) -> Proceed<S, ReqB, Self::Decision>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static;

    /// Returns the response of a request that member `by` has refused.
    fn answer(&self, by: u32, refusal: Refusal, request: &RequestHead<'_>) -> Response<OwnText>;
}

/// A request whose members are asked.
pub struct Asking<'r, 'a, ReqB> {
    pub(super) request: &'r mut Request<ReqB>,
    pub(super) ready: MemberReadiness,
    pub(super) times: RequestTimes<'a>,
    /// Clients of a request that stops at a member. Boxed, because few do, and a client is large.
    pub(super) clients: Option<Box<StoppedClients>>,
}

/// Clients that were found before a request stopped.
#[derive(Default)]
pub(super) struct StoppedClients {
    /// The client of the pending decision.
    pub(super) deciding: Option<Client>,
    /// The client of the members with a shared identity, once one of them has looked for it.
    pub(super) known: Option<Option<Client>>,
}

/// Reason for which the inner service cannot be called yet.
pub enum Stop<D> {
    /// Member `by` has refused the request.
    Refused {
        /// The member.
        by: u32,
        /// The refusal.
        refusal: Refusal,
    },
    /// The decision of member `at` is pending.
    Deciding {
        /// The member.
        at: u32,
        /// Its decision.
        decision: D,
    },
    /// Member `at` has decided, and the service inside of it was not polled ready.
    NotReady {
        /// The member.
        at: u32,
    },
}

/// A pending decision: that of a member, or of one further in.
pub enum Pending<A: Admit, Further> {
    /// The decision of this member.
    Here(DecisionFuture<A>),
    /// That of a member further in.
    Further(Further),
}

impl<L: AskPolicy, Rest: Chain> ChainLink<L, Rest> {
    /// Creates the member of a layer, in front of others.
    pub(super) fn new(layer: &L, rest: Rest) -> Result<Self, ConfigError> {
        Ok(Self { gate: layer.gate()?, shares_identity: false, rest, layer: PhantomData })
    }
}

impl<ReqB> Asking<'_, '_, ReqB> {
    /// Keeps the clients of a request that stops.
    #[cold]
    fn keep(&mut self, deciding: Option<&Client>, known: Option<Option<&Client>>) {
        let known = known.map(Option::<&Client>::cloned);
        self.clients = Some(Box::new(StoppedClients { deciding: deciding.cloned(), known }));
    }
}

impl<L: AskPolicy, Rest: Chain> Chain for ChainLink<L, Rest> {
    const LEN: u32 = 1 + Rest::LEN;
    type Permits = CallPermits<L::Permit, Rest::Permits>;
    type Decision = Pending<L::Policy, Rest::Decision>;

    fn outbound(&self, at: u32) -> u32 {
        u32::from(self.gate.outbound()) << at | self.rest.outbound(at + 1)
    }

    fn identities(&self, found: &mut Vec<Arc<dyn Identify>>) {
        found.extend(L::identity(&self.gate.policy).cloned());
        self.rest.identities(found);
    }

    fn share(&mut self, identity: &Arc<dyn Identify>) {
        self.shares_identity = L::identity(&self.gate.policy).is_some_and(|own| is_same(own, identity));
        self.rest.share(identity);
    }

    #[inline(always)]
    fn poll_ready<S, ReqB>(
        &self,
        at: u32,
        service: &mut S,
        ready: &mut MemberReadiness,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), S::Error>>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static,
    {
        if self.gate.shut() {
            return Poll::Ready(Ok(()));
        }
        ready.clear(at); // also if the poll panics
        let polled = self.rest.poll_ready(at + 1, service, ready, cx);
        match &polled {
            Poll::Ready(Ok(())) => ready.set(at),
            Poll::Ready(Err(error)) if self.gate.options.enabled => self.gate.policy.unready(error),
            _ => {}
        }
        polled
    }

    #[inline(always)]
    fn ask<'a, ReqB>(
        &'a self,
        at: u32,
        asking: &mut Asking<'_, 'a, ReqB>,
        known: Option<Option<&Client>>,
        permits: &mut Self::Permits,
    ) -> Result<(), Stop<Self::Decision>> {
        let gate = &*self.gate;
        let bypasses = gate.bypasses(asking.request);
        let shared = if self.shares_identity { known } else { None };
        if !bypasses {
            asking.times.read(gate.policy.decision_clock());
        }
        // A client stays where it was written: it is large.
        let mut found =
            if bypasses || shared.is_some() { None } else { gate.policy.identify(&RequestHead::of(asking.request)) };
        let mut known = known;
        if !bypasses {
            Client::identified(&mut found);
            let client = shared.unwrap_or(found.as_ref());
            let head = RequestHead::of(asking.request);
            if self.shares_identity {
                known = Some(client);
            }
            match gate.policy.admit_in_place(&head, client, &mut asking.times, permits.guard.place()) {
                MemberDecision::Admitted => gate.admitted(client),
                MemberDecision::Refused(refusal) => {
                    if let Err(refusal) = gate.refused(refusal, client) {
                        return Err(Stop::Refused { by: at, refusal });
                    }
                }
                MemberDecision::Pending(decision) => {
                    asking.keep(client, known);
                    return Err(Stop::Deciding { at, decision: Pending::Here(decision) });
                }
            }
        }
        if !asking.ready.is(at) {
            asking.keep(None, known);
            return Err(Stop::NotReady { at });
        }
        begin(gate, asking.request, &mut permits.guard);
        permits.guard.calling();
        self.rest.ask(at + 1, asking, known, &mut permits.rest).map_err(Stop::further)
    }

    fn poll_decision<ReqB>(
        &self,
        decision: &mut Self::Decision,
        client: Option<&Client>,
        request: &Request<ReqB>,
        release: impl FnOnce(),
        permits: &mut Self::Permits,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Response<OwnText>>> {
        match decision {
            Pending::Further(decision) => {
                permits.guard.run(|| self.rest.poll_decision(decision, client, request, release, &mut permits.rest, cx))
            }
            Pending::Here(decision) => decision.as_mut().poll(cx).map(|decision| {
                match self.gate.apply(decision, client) {
                    Ok(permit) => permits.guard = Guard::new(permit),
                    Err(refusal) => {
                        release();
                        return Err(self.gate.answer(refusal, &RequestHead::of(request)));
                    }
                }
                Ok(())
            }),
        }
    }

    fn proceed<S, ReqB>(
        &self,
        at: u32,
        call: &mut WaitingCall<S, ReqB>,
        permits: &mut Self::Permits,
        cx: &mut Context<'_>,
    ) -> Proceed<S, ReqB, Self::Decision>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static,
    {
        if at == call.at {
            return call.proceed(self, permits, cx);
        }
        let CallPermits { rest, guard } = permits;
        guard.run(|| self.rest.proceed(at + 1, call, rest, cx)).map_ok(Proceeded::further)
    }

    fn answer(&self, by: u32, refusal: Refusal, request: &RequestHead<'_>) -> Response<OwnText> {
        match by.checked_sub(1) {
            None => self.gate.answer(refusal, request),
            Some(by) => self.rest.answer(by, refusal, request),
        }
    }
}

/// Returns whether two identities are one.
pub(super) fn is_same(one: &Arc<dyn Identify>, other: &Arc<dyn Identify>) -> bool {
    ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}

impl<D> Stop<D> {
    /// Returns the reason as the member further out sees it.
    fn further<A: Admit>(self) -> Stop<Pending<A, D>> {
        match self {
            Self::Refused { by, refusal } => Stop::Refused { by, refusal },
            Self::Deciding { at, decision } => Stop::Deciding { at, decision: Pending::Further(decision) },
            Self::NotReady { at } => Stop::NotReady { at },
        }
    }
}

/// The end of the members: the inner service.
impl Chain for () {
    const LEN: u32 = 0;
    type Permits = ();
    type Decision = std::convert::Infallible;

    fn outbound(&self, _: u32) -> u32 {
        0
    }

    fn identities(&self, _: &mut Vec<Arc<dyn Identify>>) {}

    fn share(&mut self, _: &Arc<dyn Identify>) {}

    #[inline(always)]
    fn poll_ready<S, ReqB>(
        &self,
        _: u32,
        service: &mut S,
        ready: &mut MemberReadiness,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), S::Error>>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static,
    {
        ready.poll_service();
        service.poll_ready(cx)
    }

    #[inline(always)]
    fn ask<'a, ReqB>(
        &'a self,
        _: u32,
        _: &mut Asking<'_, 'a, ReqB>,
        _: Option<Option<&Client>>,
        (): &mut (),
    ) -> Result<(), Stop<Self::Decision>> {
        Ok(())
    }

    fn poll_decision<ReqB>(
        &self,
        decision: &mut Self::Decision,
        _: Option<&Client>,
        _: &Request<ReqB>,
        _: impl FnOnce(),
        (): &mut (),
        _: &mut Context<'_>,
    ) -> Poll<Result<(), Response<OwnText>>> {
        match *decision {}
    }

    fn proceed<S, ReqB>(
        &self,
        at: u32,
        _: &mut WaitingCall<S, ReqB>,
        (): &mut (),
        _: &mut Context<'_>,
    ) -> Proceed<S, ReqB, Self::Decision>
    where
        S: Service<Request<ReqB>>,
        S::Error: 'static,
    {
        unreachable!("no member {at} further in")
    }

    fn answer(&self, by: u32, _: Refusal, _: &RequestHead<'_>) -> Response<OwnText> {
        unreachable!("no member {by} further in")
    }
}
