//! A policy that behaves as the script of each request says, and records everything that is asked of it.

use std::{
    any::Any,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{Extensions, HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use tollgate::{Admit, Client, Digester, Lasts, MaybeFuture, Outcome, Permit, PolicyName, Refusal, RequestHead};

use crate::{
    script::{OnResponse, Place, Script, Step},
    scripted::{Broken, panic_now},
    support::gate::{Log, yield_times},
};

/// Names of the members that a request has passed, with or without a permit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks(pub(crate) Vec<String>);

/// A policy whose permits last as `T` says.
pub(crate) struct Probe<T> {
    pub(crate) at: usize,
    pub(crate) log: Log,
    pub(crate) shut: Arc<AtomicBool>,
    pub(crate) lasts: PhantomData<fn() -> T>,
}

/// Permit of a [`Probe`].
pub(crate) struct ProbePermit<T> {
    at: usize,
    log: Log,
    script: Arc<Script>,
    lasts: PhantomData<fn() -> T>,
}

/// Returns the step of member `at`; panics if it panics in `place`.
pub(crate) fn reach(script: &Script, at: usize, place: Place) -> &Step {
    let step = &script.steps[at];
    if step.panics == Some(place) {
        panic_now(&format!("{place:?} of {at}"));
    }
    step
}

/// Returns the script of a request.
pub(crate) fn script_of(extensions: &Extensions) -> Arc<Script> {
    Arc::clone(extensions.get::<Arc<Script>>().unwrap())
}

fn mark(extensions: &mut Extensions, name: String) {
    let Marks(mut marks) = extensions.remove().unwrap_or_default();
    marks.push(name);
    extensions.insert(Marks(marks));
}

impl<T: Lasts> Probe<T> {
    fn permit(&self, script: &Arc<Script>) -> ProbePermit<T> {
        ProbePermit { at: self.at, log: self.log.clone(), script: Arc::clone(script), lasts: PhantomData }
    }
}

impl<T: Lasts> Admit for Probe<T> {
    type Permit = ProbePermit<T>;

    fn identify(&self, request: &RequestHead<'_>) -> Option<Client> {
        let script = script_of(request.extensions);
        reach(&script, self.at, Place::Identify);
        (script.client < 2).then(|| Digester::process().named(format!("probe {}", script.client)))
    }

    fn admit(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        client: Option<&Client>,
    ) -> MaybeFuture<Result<ProbePermit<T>, Refusal>> {
        let at = self.at;
        let marks = request.extensions.get::<Marks>().cloned().unwrap_or_default();
        self.log.push(format!("{at} admit {client:?} {marks:?}"));
        let script = script_of(request.extensions);
        let step = reach(&script, at, Place::Admit);
        let decision = match step.refuses {
            None => Ok(self.permit(&script)),
            Some(why) => Err(Refusal::new(why.reason(), PolicyName::try_new("probe").unwrap())),
        };
        let Some(polls) = step.pending else { return MaybeFuture::Ready(decision) };
        // A permit that is dropped with a pending decision is not settled, so that the decision makes it at its end.
        let (this, refusal) = (Arc::clone(self), decision.err());
        MaybeFuture::future(async move {
            yield_times(polls.into()).await;
            this.log.push(format!("{at} decides"));
            reach(&script, at, Place::Decision);
            refusal.map_or_else(|| Ok(this.permit(&script)), Err)
        })
    }

    fn shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    fn on_bypass(&self, extensions: &mut Extensions) {
        let script = script_of(extensions);
        self.log.push(format!("{} on_bypass", self.at));
        reach(&script, self.at, Place::OnBypass);
        mark(extensions, format!("bypass {}", self.at));
    }

    fn unready(self: &Arc<Self>, error: &dyn Any) {
        self.log.push(format!("{} unready {:?}", self.at, error.downcast_ref::<Broken>()));
    }
}

impl<T: Lasts> ProbePermit<T> {
    fn reach(&self, place: Place) -> &Step {
        reach(&self.script, self.at, place)
    }
}

impl<T: Lasts> Permit for ProbePermit<T> {
    type Lasts = T;

    fn on_request(&mut self, extensions: &mut Extensions) {
        self.log.push(format!("{} on_request", self.at));
        self.reach(Place::OnRequest);
        mark(extensions, format!("permit {}", self.at));
    }

    fn on_response<B>(&mut self, response: &mut Response<B>) {
        self.log.push(format!("{} on_response {}", self.at, response.status()));
        let change = self.reach(Place::OnResponse).on_response;
        let headers = response.headers_mut();
        match change {
            OnResponse::Nothing => {}
            OnResponse::AddsField => drop(headers.append("x-member", HeaderValue::from(self.at))),
            OnResponse::SetsLength => drop(headers.insert("content-length", HeaderValue::from(3))),
            OnResponse::RemovesType => drop(headers.remove(CONTENT_TYPE)),
            OnResponse::SetsStatus => *response.status_mut() = StatusCode::NO_CONTENT,
            OnResponse::InsertsRefusal => {
                let refusal = Refusal::new(tollgate::Reason::Capacity, PolicyName::try_new("changed").unwrap());
                response.extensions_mut().insert(refusal);
            }
            OnResponse::RemovesRefusal => drop(response.extensions_mut().remove::<Refusal>()),
        }
    }

    fn ends_at_head(&self) -> bool {
        self.reach(Place::EndsAtHead).ends_at_head
    }

    fn on_body(&mut self) {
        self.log.push(format!("{} on_body", self.at));
        self.reach(Place::OnBody);
    }

    fn on_data(&mut self, bytes: usize) {
        self.log.push(format!("{} on_data {bytes}", self.at));
        self.reach(Place::OnData);
    }

    fn settle(self, outcome: Outcome<'_>) {
        let outcome = match outcome {
            Outcome::Failed(error) => format!("failed {:?}", error.downcast_ref::<Broken>()),
            Outcome::BodyFailed(error) => format!("body failed {:?}", error.downcast_ref::<Broken>()),
            outcome => format!("{outcome:?}"),
        };
        self.log.push(format!("{} settle {outcome}", self.at));
        self.reach(Place::Settle);
    }
}
