//! A handler, its readiness and its bodies, all as a script says. Each request carries its script.

use std::{
    collections::VecDeque,
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    thread,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use tollgate::{Charge, PolicyName, QuotaStatus, Reason, Refusal};
use tower::Service;

use crate::{member::Marks, script::*, support::gate::Log};

/// Panics without the hook, which would print each of thousands.
pub(crate) fn panic_now(place: &str) -> ! {
    resume_unwind(Box::new(place.to_owned()))
}

/// The error of a handler or a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken(pub(crate) &'static str);

/// State of a handler that all of its clones share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Handler {
    pub(crate) log: Log,
    /// Results of the next polls for readiness; ready once it is empty.
    pub(crate) readiness: Arc<Mutex<VecDeque<Readiness>>>,
}

/// A reservation that a handler made when it was polled.
#[derive(Debug)]
struct Held(Log, &'static str);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.push(format!("released {}", self.1));
    }
}

/// The service, whose clones hold no reservation.
#[derive(Debug)]
pub(crate) struct Scripted(Handler, Option<Held>);

impl Scripted {
    pub(crate) fn new(handler: &Handler) -> Self {
        Self(handler.clone(), None)
    }
}

impl Clone for Scripted {
    fn clone(&self) -> Self {
        Self::new(&self.0)
    }
}

impl Service<Request<Full<Bytes>>> for Scripted {
    type Response = Response<ScriptedBody>;
    type Error = Broken;
    type Future = ScriptedFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let next = self.0.readiness.lock().unwrap().pop_front().unwrap_or(Readiness::Ready);
        let log = self.0.log.clone();
        log.push(format!("poll_ready {next:?}"));
        match next {
            Readiness::Ready => {
                if self.1.as_ref().is_none_or(|held| held.1 != "slot") {
                    self.1 = None;
                    self.1 = Some(Held(log, "slot"));
                }
                Poll::Ready(Ok(()))
            }
            Readiness::Pending => {
                if self.1.is_none() {
                    self.1 = Some(Held(log, "place"));
                }
                Poll::Pending
            }
            Readiness::Fails => Poll::Ready(Err(Broken("not ready"))),
            Readiness::Panics => panic_now("poll_ready"),
        }
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> ScriptedFuture {
        let log = self.0.log.clone();
        let held = self.1.as_ref().map(|held| held.1);
        let marks = request.extensions().get::<Marks>().cloned().unwrap_or_default();
        let status = request.extensions().get::<QuotaStatus>().cloned();
        log.push(format!("call {held:?} {} {marks:?} {status:?}", request.method()));
        self.1 = None;
        let script = Arc::clone(request.extensions().get::<Arc<Script>>().unwrap());
        let charge = request.extensions().get::<Charge>().cloned();
        if script.reply == Reply::PanicInCall {
            panic_now("call");
        }
        ScriptedFuture { log, script, charge, polls: 0 }
    }
}

/// Future of a scripted response.
pub(crate) struct ScriptedFuture {
    log: Log,
    script: Arc<Script>,
    charge: Option<Charge>,
    polls: u8,
}

impl Drop for ScriptedFuture {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.log.push("handler's future dropped");
        }
    }
}

impl Future for ScriptedFuture {
    type Output = Result<Response<ScriptedBody>, Broken>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        if self.polls <= self.script.pending {
            return Poll::Pending;
        }
        match &self.script.reply {
            Reply::PanicInCall | Reply::PanicInPoll => panic_now("poll"),
            Reply::Fails => Poll::Ready(Err(Broken("failed"))),
            Reply::Response(reply) => {
                if let (Some(charge), Some(amount)) = (&self.charge, reply.records) {
                    let recorded = charge.record("tokens", amount);
                    self.log.push(format!("recorded {recorded}"));
                }
                Poll::Ready(Ok(reply.response(&self.log)))
            }
        }
    }
}

impl ScriptedResponse {
    fn response(&self, log: &Log) -> Response<ScriptedBody> {
        let body = ScriptedBody {
            log: log.clone(),
            frames: self.frames.iter().copied().collect(),
            hint: self.hint,
            says_end: self.says_end,
            panics: self.panics,
        };
        let mut response = Response::builder().status(self.status).body(body).unwrap();
        for field in &self.fields {
            let (name, value) = field.line(self);
            response.headers_mut().append(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
        }
        if let Some(reason) = self.passes_on_refusal {
            let name = PolicyName::try_new("another service").unwrap();
            response.extensions_mut().insert(Refusal::new(reason.reason(), name));
        }
        response
    }
}

impl Field {
    fn line(self, reply: &ScriptedResponse) -> (&'static str, String) {
        match self {
            Self::Grpc => ("content-type", "application/grpc".into()),
            Self::GrpcStatus => ("grpc-status", "14".into()),
            Self::Length => ("content-length", reply.bytes().to_string()),
            Self::RateLimit => ("ratelimit", "\"same\";r=7;t=9".into()),
            Self::RateLimitPolicy => ("ratelimit-policy", "\"same\";q=9;w=60".into()),
            Self::XRateLimit => ("x-ratelimit-remaining", "1".into()),
            Self::RetryAfter => ("retry-after", "3".into()),
            Self::Custom => ("x-own", "1".into()),
        }
    }
}

impl Why {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Capacity => Reason::Capacity,
            Self::RateLimited => Reason::RateLimited,
            Self::Unidentified => Reason::Unidentified,
        }
    }
}

/// Body of a scripted response.
pub(crate) struct ScriptedBody {
    log: Log,
    frames: VecDeque<FrameStep>,
    hint: bool,
    says_end: bool,
    panics: Option<BodyPanic>,
}

impl Drop for ScriptedBody {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.log.push("handler's body dropped");
        }
    }
}

impl http_body::Body for ScriptedBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        Poll::Ready(match self.frames.pop_front() {
            None => None,
            Some(FrameStep::Pending) => return Poll::Pending,
            Some(FrameStep::Data(bytes)) => Some(Ok(Frame::data(Bytes::from_static(&[7; 16][..usize::from(bytes)])))),
            Some(FrameStep::Trailers(status)) => {
                let status = HeaderValue::from(u16::from(status));
                Some(Ok(Frame::trailers(HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), status)]))))
            }
            Some(FrameStep::Fails) => Some(Err(Broken("body failed"))),
            Some(FrameStep::Panics) => panic_now("poll_frame"),
        })
    }

    fn is_end_stream(&self) -> bool {
        if self.panics == Some(BodyPanic::IsEndStream) {
            panic_now("is_end_stream");
        }
        self.says_end && self.frames.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if self.panics == Some(BodyPanic::SizeHint) {
            panic_now("size_hint");
        }
        let left = self.frames.iter().map(|frame| frame.bytes()).sum();
        if self.hint { SizeHint::with_exact(left) } else { SizeHint::default() }
    }
}
