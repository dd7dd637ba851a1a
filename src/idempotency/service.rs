//! The service: decides by the head whether a request has a record.

use std::{
    fmt, mem,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header::CONTENT_LENGTH};
use http_body::Body;
use tower_service::Service;

use super::{
    body::IdempotentBody,
    config::IdempotencyConfig,
    future::{DetachableCall, IdempotencyFuture},
    guarded_call::{GuardedCall, RETRY, no_room, refuse},
    key::{self, Operation},
    state::{ClientBytes, IdempotencyState, Progress},
};
use crate::{
    head::RequestHead,
    refusal::{Reason, Refusal, Wire},
    sync::Share,
};

/// A service behind an [`IdempotencyLayer`](super::IdempotencyLayer).
///
/// A request with a key is called on a clone of the inner service, once its record is begun: a duplicate that waits holds no
/// reservation of the inner service. Other requests are called on the service that was polled ready. Also a replay waits
/// until the inner service is ready: put a limit of concurrency into the handler's router, or shed load in front of this layer.
#[derive(Clone)]
pub struct IdempotencyService<S> {
    inner: S,
    config: Arc<IdempotencyConfig>,
    state: Arc<IdempotencyState>,
}

impl<S> IdempotencyService<S> {
    pub(super) const fn new(inner: S, config: Arc<IdempotencyConfig>, state: Arc<IdempotencyState>) -> Self {
        Self { inner, config, state }
    }
}

/// Decision on the head of a request.
enum HeadDecision {
    Pass,
    Refuse(Refusal),
    Guard(Operation, Share<ClientBytes>),
}

impl<S> IdempotencyService<S> {
    /// Decides on a request whose body has `known` bytes, if that is known.
    fn decide(&self, head: &RequestHead<'_>, known: Option<u64>) -> HeadDecision {
        let config = &*self.config;
        // Not by the field `Upgrade`: clients that offer HTTP/2 over plain text send it with each request.
        if !config.methods.contains(head.method) || Wire::of(head) != Wire::Http && !config.required {
            return HeadDecision::Pass; // under `required` no content type leads past the key
        }
        let key = match key::read(head.headers, &config.header) {
            Ok(Some(key)) => key,
            Ok(None) if !config.required => return HeadDecision::Pass,
            Ok(None) | Err(()) => return HeadDecision::Refuse(config.refusal(Reason::InvalidIdempotencyKey)),
        };
        let declared = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let [known, declared] = [known, declared].map(|length| Some(usize::try_from(length?).unwrap_or(usize::MAX)));
        if known.max(declared).is_some_and(|length| length > config.max_body) {
            return HeadDecision::Refuse(config.refusal(Reason::BodyTooLong));
        }
        let operation = match config.operation(head, key) {
            Ok(operation) => operation,
            Err(refusal) => return HeadDecision::Refuse(refusal),
        };
        let (client, bytes) = (operation.client_digest.to_bytes(), known.or(declared).unwrap_or(0));
        match self.state.buffered.take(client, bytes, config.buffer_bounds()) {
            Ok(buffered) => HeadDecision::Guard(operation, buffered),
            Err(exceeded) => HeadDecision::Refuse(config.refusal(no_room(exceeded)).with_retry_after(RETRY)),
        }
    }
}

impl<S, ReqB, ResB> Service<Request<ReqB>> for IdempotencyService<S>
where
    S: Service<Request<IdempotentBody<ReqB>>, Response = Response<ResB>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    ReqB: Body<Data = Bytes> + Send + 'static,
    ReqB::Error: Send,
    ResB: Body<Data = Bytes> + Send + 'static,
    ResB::Error: Send,
{
    type Response = Response<super::IdempotentAnswerBody<ResB>>;
    type Error = S::Error;
    type Future = IdempotencyFuture<S::Future, ResB, S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqB>) -> Self::Future {
        let head = RequestHead::of(&request);
        let decided = self.decide(&head, request.body().size_hint().exact());
        if let HeadDecision::Pass = decided {
            return IdempotencyFuture::passed(self.inner.call(request.map(IdempotentBody::untouched)));
        }
        // Frees the reservation of the polled service for others.
        let clone = self.inner.clone();
        drop(mem::replace(&mut self.inner, clone));
        let (operation, buffered) = match decided {
            HeadDecision::Guard(operation, buffered) => (operation, buffered),
            HeadDecision::Refuse(refusal) => {
                return IdempotencyFuture::refused(refuse(&self.config, &self.state, refusal, &head));
            }
            HeadDecision::Pass => unreachable!("returned above"),
        };
        let (config, state) = (Arc::clone(&self.config), Arc::clone(&self.state));
        let (progress, most) = (Arc::<Progress>::default(), config.max_detached);
        let (service, of_drop) = (self.inner.clone(), (Arc::clone(&progress), Arc::clone(&state), buffered.key()));
        let call = Box::pin(GuardedCall { config, state, service, request, operation, buffered, progress }.run());
        IdempotencyFuture::guarded(DetachableCall::new(call, of_drop.0, of_drop.1, of_drop.2, most))
    }
}

/// Shows the inner service and the settings.
impl<S: fmt::Debug> fmt::Debug for IdempotencyService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("IdempotencyService");
        shown.field("inner", &self.inner).field("config", &self.config).finish_non_exhaustive()
    }
}
