//! Policy by which the gate asks a circuit breaker, its permit, and the verdict on results.

use std::{any::Any, fmt, sync::Arc, time::Duration};

use http::{
    HeaderMap, Response,
    header::{DATE, RETRY_AFTER},
};
use httpdate::parse_http_date;

use super::{
    circuit::{CallProgress, CircuitShared, Judged, Ticket},
    handle::CircuitBreaker,
    keys::Keys,
    layer::CircuitBreakerLayer,
};
use crate::{
    classify::{CallOutcome, Classify, DefaultClassifier, Verdict},
    gate::{
        Admit, AskPolicy, Event, MaybeFuture, MemberDecision, Outcome, Permit, PolicyContext, RequestTimes, ToEnd,
        caught,
    },
    head::{RequestHead, ResponseHead},
    identity::Client,
    refusal::{GrpcHead, Refusal},
    time::Moment,
};

/// Policy of a [`CircuitBreakerLayer`](crate::CircuitBreakerLayer).
///
/// ```
/// use tollgate::{Gate, circuit_breaker::CircuitBreakerPolicy};
/// type Guarded<S> = Gate<S, CircuitBreakerPolicy>; // the service behind the layer
/// ```
pub struct CircuitBreakerPolicy(pub(super) CircuitBreaker);

impl Admit for CircuitBreakerPolicy {
    type Permit = CircuitBreakerPermit;

    #[inline]
    fn admit(
        self: &Arc<Self>,
        request: &RequestHead<'_>,
        _: Option<&Client>,
    ) -> MaybeFuture<Result<CircuitBreakerPermit, Refusal>> {
        let CircuitBreaker { circuit, keys } = &self.0;
        MaybeFuture::Ready(match keys {
            Some(keys) => self.permit_by_key(keys, request),
            None => circuit.permit(None),
        })
    }

    #[inline]
    fn shut(&self) -> bool {
        // Also while a probe is due or under way: a probe waits for readiness on its own lease, and no other call
        // should wait. With keys, the circuit is known only with the request.
        self.0.keys.is_none() && self.0.circuit.is_shut()
    }

    fn unready(self: &Arc<Self>, error: &dyn Any) {
        let CircuitBreaker { circuit, keys } = &self.0;
        if keys.is_none() {
            let verdict = circuit.shared.classifier.judge(&CallOutcome::Error(error));
            circuit.unready(verdict);
        }
    }

    /// Reads the clock itself where it needs the time: the code of others that has run since the last reading is no part of
    /// the call, and another thread may have opened the circuit since.
    #[inline(always)]
    fn admit_in_place<'a>(
        self: &'a Arc<Self>,
        request: &RequestHead<'_>,
        _: Option<&Client>,
        _: &mut RequestTimes<'a>,
        permit: &mut Option<CircuitBreakerPermit>,
    ) -> MemberDecision<Self> {
        let CircuitBreaker { circuit, keys } = &self.0;
        let decision = match keys {
            Some(keys) => self.permit_by_key(keys, request),
            None => {
                if let Some(stripe) = circuit.fast_paths.admit_counted() {
                    let started =
                        if circuit.shared.times_calls() { circuit.shared.time(None) } else { Moment::default() };
                    // The ticket is made in its place: one that passes through memory is read in other pieces than written.
                    let ticket = Ticket::Counted(CallProgress::default(), stripe);
                    *permit = Some(CircuitBreakerPermit::new(ticket, started));
                    return MemberDecision::Admitted;
                }
                circuit.permit(None)
            }
        };
        decision.map(|admitted| *permit = Some(admitted)).into()
    }
}

impl AskPolicy for CircuitBreakerLayer {}

impl CircuitBreakerPolicy {
    /// Decides by the circuit of the request's key.
    #[inline]
    fn permit_by_key(&self, keys: &Keys, request: &RequestHead<'_>) -> Result<CircuitBreakerPermit, Refusal> {
        let CircuitBreaker { circuit, .. } = &self.0;
        let now = circuit.shared.time(None);
        match keys.of_request(request, now) {
            None => circuit.permit(Some(now)),
            Some(Some(circuit)) => circuit.permit(Some(now)),
            Some(None) => {
                let PolicyContext { name: policy, observers, .. } = &circuit.shared.context;
                observers.emit(&Event::Overflow { policy });
                Ok(CircuitBreakerPermit::new(Ticket::Uncounted, now))
            }
        }
    }
}

impl fmt::Debug for CircuitBreakerPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerPolicy").field("breaker", &self.0).finish_non_exhaustive()
    }
}

/// Permit of a request that passed a circuit breaker. It reports the request's result as soon as that is known.
///
/// ```
/// use tollgate::{Body, circuit_breaker::CircuitBreakerPermit};
/// type GuardedResponse = http::Response<Body<String, CircuitBreakerPermit>>; // of a service behind a breaker
/// ```
#[repr(C)] // the tag of the ticket last, where it tells apart the kinds of a body too
pub struct CircuitBreakerPermit {
    started: Moment,
    ticket: Ticket,
}

impl CircuitBreakerPermit {
    #[inline]
    pub(super) fn new(ticket: Ticket, started: Moment) -> Self {
        Self { started, ticket }
    }

    /// Reports the verdict on a call that is not a request.
    pub(super) fn report(&mut self, verdict: Verdict) {
        let Some((shared, read, slow)) = self.ticket.elapsed(self.started) else { return };
        let verdict = shared.answered(verdict, slow);
        self.ticket.set_progress(CallProgress { judged: Judged::Done, ..CallProgress::default() });
        self.ticket.report(verdict, slow, read);
    }

    /// Judges the end of a request that is not judged for good.
    #[inline(never)]
    fn judge_end(&mut self, outcome: &Outcome<'_>) {
        let CallProgress { judged, grpc, slow_head } = self.ticket.progress();
        let Some((shared, read, slow_by_now)) = self.ticket.elapsed(self.started) else { return };
        let answer = match outcome {
            Outcome::Complete { trailers } if grpc => Some(CallOutcome::Trailers(*trailers)),
            Outcome::Failed(error) => Some(CallOutcome::Error(*error)),
            Outcome::BodyFailed(error) => Some(CallOutcome::BodyError(*error)),
            _ => None,
        };
        let verdict = match (&answer, outcome, slow_head) {
            (Some(answer), ..) => shared.classifier.judge(answer),
            (_, Outcome::Panicked, _) => Verdict::Failure,
            (_, Outcome::Refused(_), _) => Verdict::Ignore,
            (.., Some(_)) if grpc => Verdict::Ignore, // cut before its trailers
            (.., Some(_)) => Verdict::Success,        // a good head whose end was awaited
            // The caller gave up on a service that hangs. Of a server, a stranger may be as impatient at any time.
            (.., None) if slow_by_now && shared.classifier.default.is_client => Verdict::Failure,
            (.., None) => Verdict::Ignore,
        };
        let slow = match (judged, slow_head) {
            // Already counted as a success, and as slow if it was: only a failure adds to that.
            (Judged::Success, _) if matches!(verdict, Verdict::Success | Verdict::Ignore) => return,
            (Judged::Success, _) => false,
            (_, Some(slow)) if !shared.classifier.slow_to_end => slow,
            _ => slow_by_now,
        };
        let verdict = if answer.is_some() { shared.answered(verdict, slow) } else { verdict };
        self.ticket.report(verdict, slow, read);
    }

    /// Reports a gRPC probe that still delivers after half of its time as a success. Otherwise a long stream would lose
    /// its slot before its trailers, and a service of long streams would stay half-open for ever.
    fn report_delivering_probe(&mut self) {
        let Ticket::Probe(progress, probe) = &mut self.ticket else { return };
        let shared = &*probe.circuit.shared;
        let (now, to_end) = (shared.context.clock.now(), shared.classifier.slow_to_end);
        let took = now.since(self.started);
        let slow = if to_end { took >= shared.trip.slow_bound() } else { progress.slow_head == Some(true) };
        if took >= shared.recovery.probe_timeout / 2 {
            progress.judged = Judged::Success;
            self.ticket.report(Verdict::Success, slow, Some(now));
        } else if !(shared.trip.has_slow_rate() && (slow || to_end)) {
            // If the stream pauses from here on, it counts as answered. Not if it was slow, or if only its end decides.
            probe.renew(now);
        }
    }
}

impl Permit for CircuitBreakerPermit {
    type Lasts = ToEnd;

    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        let head = ResponseHead::of(response);
        let Some((shared, read, slow)) = self.ticket.elapsed(self.started) else { return };
        if Refusal::further_in(head.extensions, shared.context.outbound).is_some() {
            return; // settled as refused
        }
        let (progress, verdict) = judge_head(shared, head, slow);
        self.ticket.set_progress(progress);
        if let Some(verdict) = verdict {
            self.ticket.report(verdict, slow, read);
        }
    }

    /// A response that is judged for good needs no body. A good HTTP head does: its body may still fail.
    #[inline]
    fn ends_at_head(&self) -> bool {
        self.ticket.progress().judged == Judged::Done
    }

    #[inline]
    fn on_data(&mut self, _: usize) {
        let CallProgress { judged, grpc, .. } = self.ticket.progress();
        if judged == Judged::NotYet && grpc {
            self.report_delivering_probe();
        }
    }

    #[inline]
    fn settle(mut self, outcome: Outcome<'_>) {
        if !self.is_settled_by(&outcome) {
            self.judge_end(&outcome);
        }
    }

    /// Whether the result is reported already, and this end does not change it.
    #[inline]
    fn is_settled_by(&self, outcome: &Outcome<'_>) -> bool {
        let CallProgress { judged, grpc, .. } = self.ticket.progress();
        match judged {
            Judged::NotYet => false,
            Judged::Success if grpc => false,
            Judged::Success => !matches!(outcome, Outcome::Failed(_) | Outcome::BodyFailed(_) | Outcome::Panicked),
            Judged::Done => true,
        }
    }
}

impl fmt::Debug for CircuitBreakerPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerPermit").field("judged", &self.ticket.progress().judged).finish_non_exhaustive()
    }
}

/// Returns the result of a call as far as its head tells it, and the verdict if that is known.
#[inline(always)] // its result passes through memory otherwise
fn judge_head(shared: &CircuitShared, head: ResponseHead<'_>, slow: bool) -> (CallProgress, Option<Verdict>) {
    let grpc_head = if head.status.is_success() { GrpcHead::of(head.headers) } else { None };
    let grpc = grpc_head.is_some_and(|grpc| grpc.has_trailers);
    let has_grpc_status = grpc_head.is_some_and(|grpc| grpc.has_status);
    let progress = |judged| CallProgress { judged, grpc, slow_head: Some(slow) };
    if grpc && !has_grpc_status {
        return (progress(Judged::NotYet), None); // known at the trailers
    }
    let verdict = shared.answered(shared.classifier.judge_head(head, has_grpc_status), slow);
    let success = verdict == Verdict::Success && !grpc;
    if success && shared.classifier.slow_to_end {
        return (progress(Judged::NotYet), None); // known at the end
    }
    (progress(if success { Judged::Success } else { Judged::Done }), Some(verdict))
}

/// Settings by which results are judged.
#[derive(Clone)]
pub(crate) struct ResultClassifier {
    pub(crate) default: DefaultClassifier,
    pub(crate) custom: Option<Arc<dyn Classify>>,
    pub(crate) slow_to_end: bool,
    pub(crate) honor_retry_after: bool,
}

impl ResultClassifier {
    pub(crate) const fn new(default: DefaultClassifier) -> Self {
        Self { default, custom: None, slow_to_end: false, honor_retry_after: false }
    }

    #[inline]
    pub(crate) fn judge(&self, outcome: &CallOutcome<'_>) -> Verdict {
        match &self.custom {
            // A permit also judges while it is dropped. There a panic would lose the result, and a probe's slot with
            // it.
            Some(custom) => caught(|| custom.classify(outcome)).unwrap_or(Verdict::Failure),
            None => self.default.classify(outcome),
        }
    }

    /// Returns the verdict on a head, with the wait that it asks for where that is honored. A gRPC-Web call that failed
    /// before its first message has its status in the head, under an HTTP status of 200.
    #[inline]
    pub(crate) fn judge_head(&self, head: ResponseHead<'_>, has_grpc_status: bool) -> Verdict {
        if has_grpc_status {
            return self.judge(&CallOutcome::Trailers(Some(head.headers)));
        }
        match self.judge(&CallOutcome::Head(head)) {
            Verdict::Failure if self.honor_retry_after => {
                asked_wait(head.headers).map_or(Verdict::Failure, Verdict::TripFor)
            }
            verdict => verdict,
        }
    }
}

/// Returns the wait that `Retry-After` asks for, in seconds or as a date.
///
/// `None` if the field is absent or malformed, or asks for no wait: 0, or a date that is not after the response's own
/// `Date`. `None` also for a date in a response without a `Date`, because the sender's clock is unknown.
fn asked_wait(fields: &HeaderMap) -> Option<Duration> {
    let text = |name| Some(fields.get(name)?.to_str().ok()?.trim());
    let asked = text(RETRY_AFTER)?;
    let wait = if !asked.is_empty() && asked.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits that exceed a u64 are as long as the cap allows.
        Duration::from_secs(asked.parse().unwrap_or(u64::MAX))
    } else {
        let (until, sent) = (parse_http_date(asked).ok()?, parse_http_date(text(DATE)?).ok()?);
        until.duration_since(sent).ok()?
    };
    (!wait.is_zero()).then_some(wait)
}
