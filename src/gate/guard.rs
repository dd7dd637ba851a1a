//! Holds a permit and settles it exactly once, whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::admit::{Outcome, Permit};

/// A permit on its way to the end of the response; a drop settles it by how far the response had come.
///
/// It is moved about with everything that a call returns, so it is as small as can be: that there is none any more is
/// written into one of its flags.
#[derive(Debug)]
pub(crate) struct Guard<P: Permit>(Option<Held<P>>);

#[derive(Debug)]
struct Held<P> {
    permit: P,
    /// How many body bytes are still to come once the head is there, less what has passed: [`UNKNOWN`] if nobody said, and
    /// before the head [`HEAD`]; so many nobody sends.
    left: u64,
    inside: Inside,
}

const HEAD: u64 = u64::MAX;
const UNKNOWN: u64 = u64::MAX - 1;

/// Whether code of the inner service is running: whoever finds that it is, afterwards, knows that it panicked.
///
/// A whole word, because it is moved as one just after it was written: a byte would stall the move.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
enum Inside {
    No,
    Yes,
}

impl<P: Permit> Guard<P> {
    /// Without a permit there is nothing to settle.
    #[inline]
    pub(crate) fn new(permit: Option<P>) -> Self {
        Self(permit.map(|permit| Held { permit, left: HEAD, inside: Inside::No }))
    }

    /// The permit, until it is settled.
    #[inline]
    pub(crate) fn permit(&mut self) -> Option<&mut P> {
        self.0.as_mut().map(|held| &mut held.permit)
    }

    /// Runs code of the inner service; a panic in it is remembered, also when somebody further out catches it.
    #[inline]
    pub(crate) fn run<T>(&mut self, inner: impl FnOnce() -> T) -> T {
        self.inside(true);
        let value = inner();
        self.inside(false);
        value
    }

    /// Code of the inner service begins to run, or has ended.
    #[inline]
    pub(crate) fn inside(&mut self, inside: bool) {
        if let Some(held) = &mut self.0 {
            held.inside = if inside { Inside::Yes } else { Inside::No };
        }
    }

    /// The head has been passed on; `left` body bytes are still to come, if that is known.
    #[inline]
    pub(crate) fn head_sent(&mut self, left: Option<u64>) {
        if let Some(held) = &mut self.0 {
            held.permit.on_body();
            held.left = left.map_or(UNKNOWN, |left| left.min(UNKNOWN));
        }
    }

    /// A frame of `bytes` body bytes was passed on, perhaps the `last` one.
    #[inline]
    pub(crate) fn passed(&mut self, bytes: usize, last: impl FnOnce() -> bool) {
        if let Some(held) = &mut self.0 {
            held.permit.on_data(bytes);
            held.left = if last() { 0 } else { held.left.saturating_sub(bytes as u64) };
        }
    }

    /// The end; later calls do nothing.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome<'_>) {
        if let Some(held) = self.0.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| held.permit.settle(outcome)));
        }
    }

    #[cold]
    fn abandon(&mut self) {
        let Some(Held { left, inside, .. }) = self.0 else { return };
        self.settle(match left {
            _ if matches!(inside, Inside::Yes) => Outcome::Panicked,
            HEAD => Outcome::Cancelled { head_sent: false },
            0 => Outcome::Complete { trailers: None }, // hyper drops most complete bodies without polling them to their end
            _ => Outcome::Cancelled { head_sent: true },
        });
    }
}

impl<P: Permit> Drop for Guard<P> {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.abandon();
        }
    }
}
