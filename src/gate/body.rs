//! The response body: the inner service's with its permit, or that of a refusal.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::admit::{Outcome, Permit};
use super::guard::Guard;

pin_project! {
    /// The body of a response that came through a [`Gate`](crate::Gate); holds a permit that
    /// [lasts](crate::Permit::lasts) to its end.
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
        Inner { #[pin] body: B, guard: Guard<P> },
        Own { bytes: Bytes },
    }
}

impl<B, P: Permit> Body<B, P> {
    /// Creates the body of the inner service; `guard` is settled when it ends.
    #[inline]
    pub(crate) fn inner(body: B, guard: Guard<P>) -> Self {
        Self { kind: BodyKind::Inner { body, guard } }
    }

    /// Creates the body of a refusal.
    pub(crate) fn own(bytes: Bytes) -> Self {
        Self { kind: BodyKind::Own { bytes } }
    }
}

impl<B, P: Permit> Default for Body<B, P> {
    fn default() -> Self {
        Self::own(Bytes::new())
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
            BodyKindProjection::Own { bytes } if bytes.is_empty() => Poll::Ready(None),
            BodyKindProjection::Own { bytes } => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes).into())))),
            BodyKindProjection::Inner { mut body, guard } => {
                let frame = ready!(guard.run(|| body.as_mut().poll_frame(cx)));
                match &frame {
                    _ if !guard.is_live() => {}
                    None => guard.settle(Outcome::Complete { trailers: None }),
                    Some(Err(error)) => guard.settle(Outcome::BodyFailed(error)),
                    Some(Ok(frame)) => match frame.data_ref() {
                        Some(data) => {
                            let (bytes, last) = guard.run(|| (data.remaining(), body.is_end_stream()));
                            guard.passed(bytes, last);
                        }
                        None => guard.settle(Outcome::Complete { trailers: frame.trailers_ref() }),
                    },
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Inner { body, guard } => guard.run(|| body.is_end_stream()),
            BodyKind::Own { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Inner { body, guard } => guard.run(|| body.size_hint()),
            BodyKind::Own { bytes } => SizeHint::with_exact(bytes.len() as u64),
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
