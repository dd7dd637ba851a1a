//! The body of a response that came through gates.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    chain::Chain,
    members::{ChainOf, Members},
    permits::{Permits, PermitsInBody},
};
use crate::{
    gate::{Body, Watched},
    refusal::OwnText,
};

/// The permits of gates in a body.
type BodyPermitsOf<L> = <<ChainOf<L> as Chain>::Permits as Permits>::InBody;

pin_project! {
    /// The body of a response that came through [`Gates`](crate::Gates); holds the permits that
    /// [last](crate::ToEnd) to its end.
    ///
    /// It is never cut short; `is_end_stream` and `size_hint` are the inner body's. The default is an empty body.
    pub struct GatesBody<B, L>
    where
        L: Members,
    {
        #[pin]
        body: Body<B, ()>, // of the inner service, or of a refusal
        permits: BodyPermitsOf<L>, // dropped after the body
    }
}

impl<B, L: Members> GatesBody<B, L> {
    #[inline]
    pub(super) const fn new(body: Body<B, ()>, permits: BodyPermitsOf<L>) -> Self {
        Self { body, permits }
    }
}

impl<B, L: Members> Default for GatesBody<B, L> {
    fn default() -> Self {
        Self::new(Body::default(), BodyPermitsOf::<L>::none())
    }
}

impl<B, L> http_body::Body for GatesBody<B, L>
where
    B: http_body::Body,
    B::Data: From<Bytes>,
    B::Error: 'static,
    L: Members,
{
    type Data = B::Data;
    type Error = B::Error;

    #[inline]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let (mut body, permits) = (this.body, this.permits);
        let frame = ready!(permits.run(|| body.as_mut().poll_frame(cx)));
        if permits.are_live() {
            let data = match &frame {
                Some(Ok(frame)) => frame.data_ref(),
                _ => None,
            };
            let passed = data.map(|data| permits.run(|| (data.remaining(), body.is_end_stream())));
            permits.polled(&frame, passed.unwrap_or_default());
        }
        Poll::Ready(frame)
    }

    #[inline]
    fn is_end_stream(&self) -> bool {
        self.permits.run(|| self.body.is_end_stream())
    }

    #[inline]
    fn size_hint(&self) -> SizeHint {
        self.permits.run(|| self.body.size_hint())
    }
}

/// The body of a member's answer, as the members outside of it see it.
pub(super) struct AnswerBody(pub(super) OwnText);

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let text = self.0.take();
        Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

impl<B, L: Members> fmt::Debug for GatesBody<B, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatesBody").field("body", &self.body).finish_non_exhaustive()
    }
}
