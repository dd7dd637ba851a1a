//! Bodies that are read: those of requests as a whole, those of answers up to a bound.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::{Pin, pin},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

/// A body that was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    TooLong,
    Failed,
}

/// Reads a body of at most `most` bytes, and its trailers.
pub(super) async fn whole<B: Body<Data = Bytes>>(body: B, most: usize) -> Result<(Bytes, Option<HeaderMap>), Unread> {
    let mut body = pin!(body);
    let (mut first, mut more, mut trailers) = (Bytes::new(), BytesMut::new(), None);
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map_err(|_| Unread::Failed)?.into_data() {
            Ok(data) if first.len() + more.len() + data.len() > most => return Err(Unread::TooLong),
            Ok(data) if first.is_empty() && more.is_empty() => first = data,
            Ok(data) => {
                if more.is_empty() {
                    more.extend_from_slice(&std::mem::take(&mut first));
                }
                more.extend_from_slice(&data);
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    Ok((if more.is_empty() { first } else { more.freeze() }, trailers))
}

/// End of the reading of an answer.
pub(super) enum AnswerEnd<E> {
    Whole,
    /// It is longer than the bound, or has this frame, which is no data.
    Beyond(Option<Frame<Bytes>>),
    Failed(E),
}

/// Reads an answer until its end, an error, trailers, or more than `most` bytes.
pub(super) async fn answer<B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    most: usize,
) -> (VecDeque<Bytes>, AnswerEnd<B::Error>) {
    let (mut pieces, mut length) = (VecDeque::new(), 0_usize);
    if body.size_hint().lower() > most as u64 {
        return (pieces, AnswerEnd::Beyond(None));
    }
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                length = length.saturating_add(data.len());
                pieces.push_back(data);
                if length > most {
                    return (pieces, AnswerEnd::Beyond(None));
                }
            }
            Ok(Err(other)) => return (pieces, AnswerEnd::Beyond(Some(other))),
            Err(error) => return (pieces, AnswerEnd::Failed(error)),
        }
    }
    (pieces, AnswerEnd::Whole)
}

/// Joins the pieces of an answer, without a copy if there is one.
pub(super) fn joined(pieces: &VecDeque<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces[0].clone(),
        _ => pieces.iter().fold(BytesMut::new(), |mut all, piece| (all.extend_from_slice(piece), all).1).freeze(),
    }
}
