//! What an admitted request holds, and when it is judged.

use http::Response;

use super::ticket::Ticket;
use crate::{
    classify::{CallOutcome, Verdict},
    gate::{Outcome, Permit},
    head::ResponseHead,
    refusal::{Refusal, has_grpc_trailers, is_grpc_status},
    time::Moment,
};

/// What a request holds that passed a circuit breaker; judged as soon as its result is known.
///
/// ```
/// use tollgate::{Body, circuit_breaker::CircuitBreakerPermit};
/// type GuardedResponse = http::Response<Body<String, CircuitBreakerPermit>>; // of a service behind a breaker
/// ```
#[derive(Debug)]
pub struct CircuitBreakerPermit {
    ticket: Ticket,
    started: Moment,
    /// Whether the answer says so: what a request says of itself, anybody may write.
    grpc: bool,
    judged: Judged,
    /// Whether the head was slow, once it is there.
    slow_head: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    NotYet,
    /// Well so far; the body may still fail.
    Well,
    /// There is nothing more to say.
    Done,
}

impl CircuitBreakerPermit {
    #[inline]
    pub(super) fn new(ticket: Ticket, started: Moment) -> Self {
        Self { ticket, started, grpc: false, judged: Judged::NotYet, slow_head: None }
    }

    /// Judges what came at the end, once; `None` asks nobody and is a failure.
    fn judge_end(&mut self, seen: Option<&CallOutcome<'_>>) {
        let Some((now, slow_by_now)) = self.ticket.elapsed(self.started) else { return };
        let Some(setup) = self.ticket.setup() else { return };
        let verdict = seen.map_or(Verdict::Failure, |seen| setup.judge.of(seen));
        let slow = match (self.judged, self.slow_head) {
            (Judged::Done, _) => return,
            // Counted as a success before, and as slow if it was: only a failure adds anything.
            (Judged::Well, _) if matches!(verdict, Verdict::Success | Verdict::Ignore) => return,
            (Judged::Well, _) => false,
            (Judged::NotYet, Some(slow)) if !setup.judge.slow_to_end => slow,
            (Judged::NotYet, _) => slow_by_now,
        };
        self.judged = Judged::Done;
        self.ticket.tell(verdict, slow, now);
    }

    /// Lets a gRPC probe that is still delivering after half of its time be a success: a long stream would lose its
    /// place before its trailers, and a service of long streams would stay half-open for ever.
    fn answer_in_time(&mut self) {
        let Ticket::Probe(probe) = &self.ticket else { return };
        let setup = probe.circuit.setup();
        let (now, to_end) = (setup.clock.now(), setup.judge.slow_to_end);
        let took = now.since(self.started);
        let slow = if to_end { setup.is_slow(took) } else { self.slow_head == Some(true) };
        if took >= setup.recovery.probe_timeout / 2 {
            self.judged = Judged::Well;
            self.ticket.tell(Verdict::Success, slow, now);
        } else if let Some(lease) = probe.lease
            && !(setup.trip.minds_slowness() && (slow || to_end))
        {
            // Should it fall silent, it has answered: unless it was slow, or nobody knows before its end.
            probe.circuit.probe_delivers(probe.generation, lease, now);
        }
    }
}

impl Permit for CircuitBreakerPermit {
    #[inline]
    fn on_response<B>(&mut self, response: &mut Response<B>) {
        let head = ResponseHead::of(response);
        if head.extensions.get::<Refusal>().is_some() {
            return; // settled as refused
        }
        let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
        let Some(setup) = self.ticket.setup() else { return };
        self.slow_head = Some(slow);
        self.grpc = head.status.is_success() && has_grpc_trailers(head.headers);
        if self.grpc && !is_grpc_status(head.headers) {
            return; // known at the trailers
        }
        let verdict = setup.judge.of_head(head);
        let well = verdict == Verdict::Success && !self.grpc;
        if well && setup.judge.slow_to_end {
            return; // known at the end
        }
        self.judged = if well { Judged::Well } else { Judged::Done };
        self.ticket.tell(verdict, slow, now);
    }

    #[inline]
    fn on_data(&mut self, _: usize) {
        if self.judged == Judged::NotYet && self.grpc {
            self.answer_in_time();
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
            Outcome::Refused(_) => self.ticket.tell(Verdict::Ignore, false, self.started),
            Outcome::Cancelled { head_sent: true } if self.grpc => {
                self.ticket.tell(Verdict::Ignore, false, self.started);
            }
            Outcome::Complete { .. } | Outcome::Cancelled { .. } => {
                let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
                let verdict = match self.slow_head {
                    Some(_) => Verdict::Success,      // a good head whose end was waited for
                    None if slow => Verdict::Failure, // its caller gave up on a service that hangs
                    None => Verdict::Ignore,
                };
                self.ticket.tell(verdict, slow, now);
            }
        }
    }
}
