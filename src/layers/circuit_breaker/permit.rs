//! What an admitted request holds, and when it is judged.

use http::{HeaderMap, header::CONTENT_TYPE, request, response};

use super::ticket::Ticket;
use crate::{Moment, Outcome, Permit, Refusal, Seen, Verdict};

/// What a request holds that passed a circuit breaker; judged as soon as its result is known.
#[derive(Debug)]
pub struct CircuitPermit {
    ticket: Ticket,
    started: Moment,
    grpc: bool,
    judged: Judged,
    /// Whether the head was slow, for what is judged after it.
    slow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Judged {
    NotYet,
    /// The head was good; the body may still fail.
    Well,
    /// There is nothing more to say.
    Done,
}

impl CircuitPermit {
    #[inline]
    pub(super) fn new(ticket: Ticket, started: Moment, request: &request::Parts) -> Self {
        let grpc = speaks_grpc(&request.headers);
        Self { ticket, started, grpc, judged: Judged::NotYet, slow: false }
    }

    #[inline]
    fn tell(&mut self, verdict: Verdict, now: Moment) {
        self.judged = if verdict == Verdict::Success { Judged::Well } else { Judged::Done };
        self.ticket.tell(verdict, self.slow, now);
    }

    /// Judges what came at the end, once; `None` asks nobody and is a failure.
    fn judge_end(&mut self, seen: Option<&Seen<'_>>) {
        let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
        let Some(setup) = self.ticket.setup() else { return };
        let verdict = seen.map_or(Verdict::Failure, |seen| setup.judge.of(seen));
        match self.judged {
            Judged::Done => return,
            // Counted as a success at its head: only a failure adds anything.
            Judged::Well if verdict == Verdict::Success || verdict == Verdict::Ignore => return,
            Judged::Well => self.slow = false,
            Judged::NotYet if setup.judge.slow_to_end || !self.grpc => self.slow = slow,
            Judged::NotYet => {}
        }
        self.tell(verdict, now);
        self.judged = Judged::Done;
    }
}

impl Permit for CircuitPermit {
    #[inline]
    fn on_response(&mut self, head: &mut response::Parts) {
        if head.extensions.get::<Refusal>().is_some() {
            return; // settled as refused
        }
        let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
        let Some(setup) = self.ticket.setup() else { return };
        self.slow = slow;
        let verdict = if self.grpc && head.status.is_success() {
            if !head.headers.contains_key(GRPC_STATUS) {
                return; // known at the trailers
            }
            setup.judge.of(&Seen::Trailers(Some(&head.headers)))
        } else {
            setup.judge.of_head(head)
        };
        if verdict == Verdict::Success && setup.judge.slow_to_end {
            return; // known at the end
        }
        self.tell(verdict, now);
    }

    #[inline]
    fn settle(mut self, outcome: Outcome<'_>) {
        match outcome {
            Outcome::Complete { .. } | Outcome::Cancelled { head_sent: true } if self.judged != Judged::NotYet => {}
            Outcome::Complete { trailers } if self.grpc => self.judge_end(Some(&Seen::Trailers(trailers))),
            Outcome::Failed(error) => self.judge_end(Some(&Seen::Error(error))),
            Outcome::BodyFailed(error) => self.judge_end(Some(&Seen::BodyError(error))),
            Outcome::Panicked => self.judge_end(None),
            Outcome::Refused(_) => self.ticket.tell(Verdict::Ignore, false, self.started),
            Outcome::Cancelled { head_sent: true } if self.grpc => {
                self.ticket.tell(Verdict::Ignore, false, self.started);
            }
            // A good head whose end was waited for.
            Outcome::Complete { .. } | Outcome::Cancelled { head_sent: true } => {
                let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
                self.ticket.tell(Verdict::Success, slow, now);
            }
            Outcome::Cancelled { head_sent: false } => {
                let Some((now, slow)) = self.ticket.elapsed(self.started) else { return };
                // Its caller gave up on a service that hangs.
                self.ticket.tell(if slow { Verdict::Failure } else { Verdict::Ignore }, slow, now);
            }
        }
    }
}

const GRPC_STATUS: &str = "grpc-status";

/// Whether a request speaks gRPC: `application/grpc`, alone or followed by `+` or `;`. grpc-web is another protocol.
#[inline]
fn speaks_grpc(fields: &HeaderMap) -> bool {
    let kind = fields.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest, [] | [b'+' | b';', ..]))
}
