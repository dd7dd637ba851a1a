//! Bodies of the requests that the handler receives, and of the responses that the client receives.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::state::ClientBytes;
use crate::{refusal::OwnText, sync::Share};

pin_project! {
    /// Body of a request behind an [`IdempotencyLayer`](super::IdempotencyLayer): read to its end, or untouched.
    pub struct IdempotentBody<B> {
        #[pin]
        content: RequestContent<B>,
    }
}

pin_project! {
    #[project = RequestContentProjection]
    enum RequestContent<B> {
        Read { data: Option<Bytes>, trailers: Option<HeaderMap> },
        Untouched { #[pin] body: B },
    }
}

impl<B> IdempotentBody<B> {
    pub(super) const fn untouched(body: B) -> Self {
        Self { content: RequestContent::Untouched { body } }
    }

    pub(super) fn read(data: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self { content: RequestContent::Read { data: Some(data).filter(|data| !data.is_empty()), trailers } }
    }
}

impl<B: Body<Data = Bytes>> Body for IdempotentBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().content.project() {
            RequestContentProjection::Untouched { body } => body.poll_frame(cx),
            RequestContentProjection::Read { data, trailers } => {
                let data = data.take().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            RequestContent::Untouched { body } => body.is_end_stream(),
            RequestContent::Read { data, trailers } => data.is_none() && trailers.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            RequestContent::Untouched { body } => body.size_hint(),
            RequestContent::Read { data, .. } => {
                SizeHint::with_exact(data.as_ref().map_or(0, |data| data.len() as u64))
            }
        }
    }
}

impl<B> fmt::Debug for IdempotentBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentBody").finish_non_exhaustive()
    }
}

pin_project! {
    /// Body of a response of an [`IdempotencyService`](super::IdempotencyService): the handler's, a stored one, or that of a
    /// refusal.
    pub struct IdempotentAnswerBody<B: Body> {
        // Bytes that were read.
        front: Option<Bytes>,
        // Place of these bytes.
        buffered: Option<Share<ClientBytes>>,
        // Frame after them that was read too.
        next: Option<Result<Frame<Bytes>, B::Error>>,
        refusal: OwnText,
        #[pin]
        rest: Option<AnswerRest<B>>,
    }
}

pin_project! {
    #[project = AnswerRestProjection]
    enum AnswerRest<B> {
        Untouched { #[pin] body: B },
        // Pieces of it were read.
        Begun { body: Pin<Box<B>> },
    }
}

impl<B: Body> AnswerRest<B> {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Untouched { body } => body.is_end_stream(),
            Self::Begun { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Untouched { body } => body.size_hint(),
            Self::Begun { body } => body.size_hint(),
        }
    }
}

impl<B: Body> IdempotentAnswerBody<B> {
    pub(super) fn passed(body: B) -> Self {
        Self { rest: Some(AnswerRest::Untouched { body }), ..Self::stored(Bytes::new()) }
    }

    pub(super) fn stored(body: Bytes) -> Self {
        let front = Some(body).filter(|body| !body.is_empty());
        Self { front, buffered: None, next: None, refusal: OwnText::default(), rest: None }
    }

    pub(super) fn refusal(refusal: OwnText) -> Self {
        Self { refusal, ..Self::stored(Bytes::new()) }
    }

    /// Creates a body of bytes that were read, of a frame after them, and of the rest.
    pub(super) fn partly(
        front: Bytes,
        buffered: Share<ClientBytes>,
        next: Option<Result<Frame<Bytes>, B::Error>>,
        rest: Option<Pin<Box<B>>>,
    ) -> Self {
        let rest = rest.map(|body| AnswerRest::Begun { body });
        Self { buffered: Some(buffered), next, rest, ..Self::stored(front) }
    }
}

impl<B: Body<Data = Bytes>> Body for IdempotentAnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if this.refusal.len() > 0 {
            return Poll::Ready(Some(Ok(Frame::data(this.refusal.take()))));
        }
        if let Some(front) = this.front.take() {
            *this.buffered = None;
            return Poll::Ready(Some(Ok(Frame::data(front))));
        }
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(next));
        }
        match this.rest.as_pin_mut().map(AnswerRest::project) {
            Some(AnswerRestProjection::Untouched { body }) => body.poll_frame(cx),
            Some(AnswerRestProjection::Begun { body }) => body.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        let is_read = self.front.is_none() && self.next.is_none() && self.refusal.len() == 0;
        is_read && self.rest.as_ref().is_none_or(AnswerRest::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let front = self.front.as_ref().map_or(0, Bytes::len) + self.refusal.len();
        let next = match &self.next {
            Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => 0,
        };
        let (front, rest) = ((front + next) as u64, self.rest.as_ref().map(AnswerRest::size_hint).unwrap_or_default());
        let mut hint = SizeHint::new();
        hint.set_lower(front.saturating_add(rest.lower()));
        let upper = if self.rest.is_none() { Some(0) } else { rest.upper() };
        if let Some(upper) = upper.filter(|_| !matches!(self.next, Some(Err(_)))) {
            hint.set_upper(front.saturating_add(upper));
        }
        hint
    }
}

impl<B: Body> fmt::Debug for IdempotentAnswerBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdempotentAnswerBody").finish_non_exhaustive()
    }
}
