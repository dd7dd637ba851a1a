//! The response body: the inner service's with its permit, or that of a refusal.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{admit::Permit, guard::Guard, lasts::InBody};
use crate::refusal::OwnText;

pin_project! {
    /// The body of a response that came through a [`Gate`](crate::Gate); holds a permit that
    /// [lasts](crate::ToEnd) to its end.
    ///
    /// It is never cut short; `is_end_stream` and `size_hint` are the inner body's. The default is an empty body.
    pub struct Body<B, P> where P: Permit {
        #[pin]
        kind: BodyKind<B, P>,
    }
}

pin_project! {
    #[project = BodyKindProjection]
    enum BodyKind<B, P> where P: Permit {
        Inner { #[pin] body: B, held: Held<P> },
        /// A refusal.
        Own { text: OwnText },
    }
}

/// The permit in a body, if its type may last that long.
type Held<P> = <<P as Permit>::Lasts as InBody>::Held<P>;

impl<B, P: Permit> Body<B, P> {
    /// Creates the body of the inner service; `guard` is settled when it ends.
    #[inline]
    pub(crate) fn inner(body: B, guard: Guard<P>) -> Self {
        Self { kind: BodyKind::Inner { body, held: P::Lasts::hold(guard) } }
    }

    /// Creates the body of a refusal.
    pub(crate) fn refused(text: OwnText) -> Self {
        Self { kind: BodyKind::Own { text } }
    }
}

impl<B, P: Permit> Default for Body<B, P> {
    fn default() -> Self {
        Self { kind: BodyKind::Own { text: OwnText::default() } }
    }
}

impl<B, P> http_body::Body for Body<B, P>
where
    B: http_body::Body,
    B::Data: From<Bytes>,
    B::Error: 'static,
    P: Permit,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        match self.project().kind.project() {
            BodyKindProjection::Own { text } => {
                let text = text.take();
                Poll::Ready((!text.is_empty()).then(|| Ok(Frame::data(text.into()))))
            }
            BodyKindProjection::Inner { body, held } => P::Lasts::poll_frame(held, body, cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Inner { body, held } => P::Lasts::run(held, || body.is_end_stream()),
            BodyKind::Own { text } => text.len() == 0,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Inner { body, held } => P::Lasts::run(held, || body.size_hint()),
            BodyKind::Own { text } => SizeHint::with_exact(text.len() as u64),
        }
    }
}

impl<B, P: Permit> fmt::Debug for Body<B, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            BodyKind::Inner { .. } => "Body(inner)",
            BodyKind::Own { .. } => "Body(own)",
        })
    }
}
