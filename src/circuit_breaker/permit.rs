//! Permit of a request that passed a circuit breaker.

use std::fmt;

use http::Response;

use super::circuit::Ticket;
use crate::{
    classify::{CallOutcome, Verdict},
    gate::{Lasts, Outcome, Permit},
    head::ResponseHead,
    refusal::{Refusal, has_grpc_trailers, is_grpc_status},
    time::Moment,
};

/// Permit of a request that passed a circuit breaker. It reports the request's result as soon as that is known.
///
/// ```
/// use tollgate::{Body, circuit_breaker::CircuitBreakerPermit};
/// type GuardedResponse = http::Response<Body<String, CircuitBreakerPermit>>; // of a service behind a breaker
/// ```
pub struct CircuitBreakerPermit {
    ticket: Ticket,
    started: Moment,
    /// Whether the response says that it is gRPC. The request does not decide: a client can claim anything.
    grpc: bool,
    judged: Judged,
    /// Whether the head was slow, once it is there.
    slow_head: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    NotYet,
    /// A success so far; the body may still fail.
    Success,
    /// Final.
    Done,
}

impl CircuitBreakerPermit {
    #[inline]
    pub(super) fn new(ticket: Ticket, started: Moment) -> Self {
        Self { ticket, started, grpc: false, judged: Judged::NotYet, slow_head: None }
    }

    /// Judges the end of a request, once. `None` is a failure without asking the classifier.
    fn judge_end(&mut self, outcome: Option<&CallOutcome<'_>>) {
        let Some((config, now, slow_by_now)) = self.ticket.elapsed(self.started) else { return };
        let verdict = outcome.map_or(Verdict::Failure, |outcome| config.classifier.judge(outcome));
        let slow = match (self.judged, self.slow_head) {
            (Judged::Done, _) => return,
            // Already counted as a success, and as slow if it was: only a failure adds to that.
            (Judged::Success, _) if matches!(verdict, Verdict::Success | Verdict::Ignore) => return,
            (Judged::Success, _) => false,
            (Judged::NotYet, Some(slow)) if !config.classifier.slow_to_end => slow,
            (Judged::NotYet, _) => slow_by_now,
        };
        self.judged = Judged::Done;
        self.ticket.report(verdict, slow, now);
    }

    /// Reports a gRPC probe that still delivers after half of its time as a success. Otherwise a long stream would lose
    /// its slot before its trailers, and a service of long streams would stay half-open for ever.
    fn report_delivering_probe(&mut self) {
        let Ticket::Probe(probe) = &self.ticket else { return };
        let config = &*probe.circuit.config;
        let (now, to_end) = (config.context.clock.now(), config.classifier.slow_to_end);
        let took = now.since(self.started);
        let slow = if to_end { config.is_slow(took) } else { self.slow_head == Some(true) };
        if took >= config.recovery.probe_timeout / 2 {
            self.judged = Judged::Success;
            self.ticket.report(Verdict::Success, slow, now);
        } else if !(config.trip.has_slow_rate() && (slow || to_end)) {
            // If the stream pauses from here on, it counts as answered. Not if it was slow, or if only its end decides.
            probe.renew(now);
        }
    }
}

impl Permit for CircuitBreakerPermit {
    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        let head = ResponseHead::of(response);
        let Some((config, now, slow)) = self.ticket.elapsed(self.started) else { return };
        if Refusal::further_in(head.extensions, config.context.outbound).is_some() {
            return; // settled as refused
        }
        self.slow_head = Some(slow);
        self.grpc = head.status.is_success() && has_grpc_trailers(head.headers);
        if self.grpc && !is_grpc_status(head.headers) {
            return; // known at the trailers
        }
        let verdict = config.classifier.judge_head(head);
        let success = verdict == Verdict::Success && !self.grpc;
        if success && config.classifier.slow_to_end {
            return; // known at the end
        }
        self.judged = if success { Judged::Success } else { Judged::Done };
        self.ticket.report(verdict, slow, now);
    }

    /// A response that is judged for good needs no body. A good HTTP head does: its body may still fail.
    #[inline]
    fn lasts(&self) -> Lasts {
        if self.judged == Judged::Done { Lasts::Head } else { Lasts::Body }
    }

    #[inline]
    fn on_data(&mut self, _: usize) {
        if self.judged == Judged::NotYet && self.grpc {
            self.report_delivering_probe();
        }
    }

    #[inline]
    fn settle(mut self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Complete { trailers } if self.grpc => self.judge_end(Some(&CallOutcome::Trailers(trailers))),
            Outcome::Failed(error) => self.judge_end(Some(&CallOutcome::Error(error))),
            Outcome::BodyFailed(error) => self.judge_end(Some(&CallOutcome::BodyError(error))),
            Outcome::Panicked => self.judge_end(None),
            _ if self.judged != Judged::NotYet => {}
            Outcome::Refused(_) => self.ticket.report(Verdict::Ignore, false, self.started),
            Outcome::Responded | Outcome::Complete { .. } | Outcome::Cancelled { .. } => {
                let Some((_, now, slow)) = self.ticket.elapsed(self.started) else { return };
                let verdict = match self.slow_head {
                    Some(_) if self.grpc => Verdict::Ignore, // cut before its trailers
                    Some(_) => Verdict::Success,             // a good head whose end was awaited
                    None if slow => Verdict::Failure,        // the caller gave up on a service that hangs
                    None => Verdict::Ignore,
                };
                self.ticket.report(verdict, slow, now);
            }
        }
    }
}

impl fmt::Debug for CircuitBreakerPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerPermit").field("judged", &self.judged).finish_non_exhaustive()
    }
}
