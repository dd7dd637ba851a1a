//! The two ends of a permit's work, as types: a body has room for the permit only if it may last that long.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use http_body::{Body, Frame};

use super::{admit::Permit, guard::Guard};

/// The end of a permit's work, unless the request fails, is cancelled or is refused before: [`ToHead`] or [`ToEnd`].
///
/// ```
/// use http::Response;
/// use tollgate::{Outcome, Permit, ToHead};
///
/// /// Counts responses by status; their bodies are of no interest.
/// struct Counted(u16);
/// impl Permit for Counted {
///     type Lasts = ToHead;
///     fn on_response<B>(&mut self, response: &mut Response<B>) {
///         self.0 = response.status().as_u16();
///     }
///     fn settle(self, outcome: Outcome<'_>) {
///         println!("{} {outcome:?}", self.0);
///     }
/// }
/// ```
pub trait Lasts: InBody {}

/// A permit is settled at the head of the response, as [`Outcome::Responded`](crate::Outcome::Responded).
#[derive(Clone, Copy, Debug)]
pub enum ToHead {}

/// A permit lasts to the last byte of the response body, or to its trailers.
///
/// It may still [end at the head](Permit::ends_at_head) of one response.
#[derive(Clone, Copy, Debug)]
pub enum ToEnd {}

impl Lasts for ToHead {}
impl Lasts for ToEnd {}

/// Result of a poll for the next frame of a body.
type NextFrame<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

/// The part of a permit that a body holds, and its work there. It seals [`Lasts`].
#[doc(hidden)]
pub trait InBody: 'static {
    /// Whether every permit of the type is settled at the head.
    const ENDS_AT_HEAD: bool;

    /// The permit in a body.
    type Held<P: Permit>: Send;

    /// Passes a permit to the body; one that is not settled must last.
    fn hold<P: Permit>(guard: Guard<P>) -> Self::Held<P>;

    /// Polls a body for the next frame and tells the permit.
    fn poll_frame<P, B>(held: &mut Self::Held<P>, body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<NextFrame<B>>
    where
        P: Permit,
        B: Body,
        B::Error: 'static;

    /// Runs code of the body, whose panic is the permit's outcome.
    fn run<P: Permit, T>(held: &Self::Held<P>, code: impl FnOnce() -> T) -> T;

    /// Returns the permit in a body, unless none can be there.
    fn guard<P: Permit>(held: &mut Self::Held<P>) -> Option<&mut Guard<P>>;
}

impl InBody for ToHead {
    const ENDS_AT_HEAD: bool = true;

    type Held<P: Permit> = ();

    #[inline]
    fn hold<P: Permit>(_: Guard<P>) {}

    #[inline]
    fn poll_frame<P, B>((): &mut (), body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<NextFrame<B>>
    where
        P: Permit,
        B: Body,
        B::Error: 'static,
    {
        body.poll_frame(cx)
    }

    #[inline]
    fn run<P: Permit, T>((): &(), code: impl FnOnce() -> T) -> T {
        code()
    }

    #[inline]
    fn guard<P: Permit>((): &mut ()) -> Option<&mut Guard<P>> {
        None
    }
}

impl InBody for ToEnd {
    const ENDS_AT_HEAD: bool = false;

    type Held<P: Permit> = Guard<P>;

    #[inline]
    fn hold<P: Permit>(guard: Guard<P>) -> Guard<P> {
        guard
    }

    fn poll_frame<P, B>(guard: &mut Guard<P>, mut body: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<NextFrame<B>>
    where
        P: Permit,
        B: Body,
        B::Error: 'static,
    {
        let frame = ready!(guard.run(|| body.as_mut().poll_frame(cx)));
        guard.polled(&frame, |guard, data| guard.run(|| (data.remaining(), body.is_end_stream())));
        Poll::Ready(frame)
    }

    #[inline]
    fn run<P: Permit, T>(guard: &Guard<P>, code: impl FnOnce() -> T) -> T {
        guard.run(code)
    }

    #[inline]
    fn guard<P: Permit>(guard: &mut Guard<P>) -> Option<&mut Guard<P>> {
        Some(guard)
    }
}
