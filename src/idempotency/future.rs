//! The response future, which lets a call that has begun go on when it is dropped.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::runtime::Handle;

use super::{
    body::IdempotentAnswerBody,
    guarded_call::AnswerOf,
    state::{Background, ClientBytes, IdempotencyState, Progress},
};

pin_project! {
    /// Future of the response of an [`IdempotencyService`](super::IdempotencyService).
    ///
    /// # Cancel safety
    /// Dropped before the record is begun, nothing has happened. Dropped later, the call goes on in a task of the runtime on
    /// which the service was called, and its answer is stored.
    pub struct IdempotencyFuture<F, B: Body, E> {
        #[pin]
        state: CallState<F, B, E>,
    }
}

pin_project! {
    #[project = CallStateProjection]
    enum CallState<F, B: Body, E> {
        Passed { #[pin] future: F },
        Refused { response: Option<AnswerOf<B>> },
        Guarded { call: DetachableCall<B, E> },
    }
}

pub(super) type BoxedCall<B, E> = Pin<Box<dyn Future<Output = Result<AnswerOf<B>, E>> + Send>>;

/// A call with a key, which goes on in a task when it is dropped.
pub(super) struct DetachableCall<B: Body, E> {
    /// Not here while it is polled, so that a panic of its own drops it.
    call: Option<BoxedCall<B, E>>,
    detach: Option<Detach<B, E>>,
}

/// Moves a call to a task.
type Detach<B, E> = Box<dyn FnOnce(BoxedCall<B, E>) + Send>;

impl<B: Body + Send + 'static, E: Send + 'static> DetachableCall<B, E>
where
    B::Error: Send,
{
    pub(super) fn new(
        call: BoxedCall<B, E>,
        progress: Arc<Progress>,
        state: Arc<IdempotencyState>,
        client: ClientBytes,
        most: usize,
    ) -> Self {
        let runtime = Handle::try_current().ok();
        let detach = move |call: BoxedCall<B, E>| {
            if !progress.begun.load(Relaxed) {
                return; // nothing has happened
            }
            let (Some(runtime), Some(place)) = (runtime, Background::handler(&state, client, most)) else { return };
            progress.hung_up.store(true, Relaxed);
            runtime.spawn(async move {
                let _place = place;
                drop(call.await); // the answer is stored, and its client is gone
            });
        };
        Self { call: Some(call), detach: Some(Box::new(detach)) }
    }
}

impl<B: Body, E> Drop for DetachableCall<B, E> {
    fn drop(&mut self) {
        if let (Some(call), Some(detach)) = (self.call.take(), self.detach.take()) {
            detach(call);
        }
    }
}

impl<F, B: Body, E> IdempotencyFuture<F, B, E> {
    pub(super) const fn passed(future: F) -> Self {
        Self { state: CallState::Passed { future } }
    }

    pub(super) const fn refused(response: AnswerOf<B>) -> Self {
        Self { state: CallState::Refused { response: Some(response) } }
    }

    pub(super) const fn guarded(call: DetachableCall<B, E>) -> Self {
        Self { state: CallState::Guarded { call } }
    }
}

impl<F, B, E> Future for IdempotencyFuture<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<AnswerOf<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            CallStateProjection::Passed { future } => {
                Poll::Ready(Ok(ready!(future.poll(cx))?.map(IdempotentAnswerBody::passed)))
            }
            CallStateProjection::Refused { response } => {
                Poll::Ready(Ok(response.take().expect("polled after completion")))
            }
            CallStateProjection::Guarded { call } => {
                let mut taken = call.call.take().expect("polled after completion");
                let polled = taken.as_mut().poll(cx);
                if polled.is_pending() {
                    call.call = Some(taken);
                }
                polled
            }
        }
    }
}

impl<F, B: Body, E> fmt::Debug for IdempotencyFuture<F, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotencyFuture").finish_non_exhaustive()
    }
}
