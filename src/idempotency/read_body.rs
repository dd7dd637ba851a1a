//! Bodies that are read: those of requests as a whole, those of answers up to a bound.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use crate::sync::ShareExceeded;

/// A body that was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLong,
    NoRoom(ShareExceeded),
    Failed,
}

/// Reads a body of at most `most` bytes, and its trailers. Before it keeps bytes, it calls `reserve` with the length that
/// the body then has.
pub(super) async fn whole<B: Body<Data = Bytes>>(
    body: B,
    most: usize,
    mut reserve: impl FnMut(usize) -> Result<(), ShareExceeded>,
) -> Result<(Bytes, Option<HeaderMap>), Unread> {
    let mut body = pin!(body);
    let (mut read, mut trailers) = (JoinedFrames::default(), None);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map_err(|_| Unread::Failed)?.into_data() {
            Ok(data) if read.len() + data.len() > most => return Err(Unread::TooLong),
            Ok(data) => {
                reserve(read.len() + data.len()).map_err(Unread::NoRoom)?;
                read.add(data);
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    Ok((read.bytes(), trailers))
}

/// Bytes of frames, without a copy if there is one.
#[derive(Default)]
struct JoinedFrames {
    first: Bytes,
    more: BytesMut,
}

impl JoinedFrames {
    fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    fn add(&mut self, data: Bytes) {
        if self.len() == 0 {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&data);
    }

    fn bytes(self) -> Bytes {
        if self.more.is_empty() { self.first } else { self.more.freeze() }
    }
}

/// End of the reading of an answer.
pub(super) enum AnswerEnd<E> {
    Whole,
    /// It is longer or takes longer than the bound, or has this frame, which does not belong to what was read.
    Beyond(Option<Frame<Bytes>>),
    Failed(E),
}

/// Reads an answer until its end, an error, trailers, more than `most` bytes, or the end of `overdue`. Before it keeps bytes,
/// it calls `reserve` with their number.
pub(super) async fn answer<B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    most: usize,
    overdue: impl Future<Output = ()>,
    mut reserve: impl FnMut(usize) -> bool,
) -> (Bytes, AnswerEnd<B::Error>) {
    let (mut read, mut overdue) = (JoinedFrames::default(), pin!(overdue));
    if body.size_hint().lower() > most as u64 {
        return (Bytes::new(), AnswerEnd::Beyond(None));
    }
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => overdue.as_mut().poll(cx).map(|()| None),
        });
        let end = match frame.await.map(|frame| frame.map(|frame| frame.map(Frame::into_data))) {
            Some(Some(Ok(Ok(data)))) if read.len() + data.len() <= most && reserve(data.len()) => {
                read.add(data);
                continue;
            }
            Some(Some(Ok(Ok(data)))) => AnswerEnd::Beyond(Some(Frame::data(data))),
            Some(Some(Ok(Err(other)))) => AnswerEnd::Beyond(Some(other)),
            Some(Some(Err(error))) => AnswerEnd::Failed(error),
            Some(None) => AnswerEnd::Whole,
            None => AnswerEnd::Beyond(None),
        };
        return (read.bytes(), end);
    }
}
