//! Holds a permit and settles it exactly once.

use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use http_body::Frame;

use super::{
    admit::{Outcome, Permit},
    panics::caught,
};

/// A permit until its outcome is known. Dropping the guard settles the permit with the outcome that the response's
/// progress implies.
///
/// Kept small (the permit and one word), because it moves with every future and body.
#[derive(Debug)]
#[repr(C)] // the progress first: a future and its permit side by side would be copied through the stack by memcpy
pub struct Guard<P: Permit> {
    /// Body bytes remaining once the head was sent. [`HEAD`] before that, [`UNKNOWN`] if no length was declared,
    /// [`PANICKED`] for good after a panic; all exceed any real length.
    ///
    /// Atomic, because `is_end_stream` and `size_hint` run code of the inner service behind a shared reference.
    progress: AtomicU64,
    permit: Option<P>,
}

const PANICKED: u64 = u64::MAX;
const HEAD: u64 = u64::MAX - 1;
const UNKNOWN: u64 = u64::MAX - 2;

impl<P: Permit> Guard<P> {
    /// Creates a guard; without a permit there is nothing to settle.
    #[inline]
    pub(crate) const fn new(permit: Option<P>) -> Self {
        Self { permit, progress: AtomicU64::new(HEAD) }
    }

    /// Moves the permit and its progress out and leaves a guard without a permit. One that was settled is not read: a move
    /// of what was just written stalls.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        if self.is_live() { mem::replace(self, Self::new(None)) } else { Self::new(None) }
    }

    /// Returns the place of the permit, into which a decision writes it.
    #[inline]
    pub(crate) fn place(&mut self) -> &mut Option<P> {
        &mut self.permit
    }

    /// Returns the permit, or `None` once it is settled.
    #[inline]
    pub(crate) fn permit(&mut self) -> Option<&mut P> {
        self.permit.as_mut()
    }

    /// Returns whether there is a permit that is not settled.
    #[inline]
    pub(crate) fn is_live(&self) -> bool {
        self.permit.is_some()
    }

    /// Watches code of the inner service from here to [`Watch::disarm`]: a panic in between settles the permit as
    /// [`Outcome::Panicked`], even if an outer layer catches it. Nothing is written unless it panics.
    ///
    /// Every call into the inner service, its future and its body is watched, except their drops. By then the outcome
    /// is known or the caller has left, and a `Drop` on the response future would make its moves dearer.
    #[inline]
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch(&self.progress)
    }

    /// Runs code of the inner service under [`watch`](Self::watch).
    #[inline(always)]
    pub(crate) fn run<T>(&self, inner: impl FnOnce() -> T) -> T {
        let watch = self.watch();
        let value = inner();
        watch.disarm();
        value
    }

    /// Watches the call of a service that was polled ready, until [`called`](Self::called), by two stores: beside a
    /// [`Watch`] the response future would be copied. The permit must be new.
    #[inline]
    pub(crate) fn calling(&mut self) {
        *self.progress.get_mut() = PANICKED;
    }

    /// Records that the service was called and did not panic.
    #[inline]
    pub(crate) fn called(&mut self) {
        *self.progress.get_mut() = HEAD;
    }

    /// Records that the head was sent and how many body bytes follow, if known.
    #[inline]
    pub(crate) fn head_sent(&mut self, left: Option<u64>) {
        if let Some(permit) = &mut self.permit {
            permit.on_body();
            self.advance(|_| left.map_or(UNKNOWN, |left| left.min(UNKNOWN)));
        }
    }

    /// Records a body frame of `bytes`; `last` tells whether the body ends with it.
    #[inline]
    pub(crate) fn passed(&mut self, bytes: usize, last: bool) {
        if let Some(permit) = &mut self.permit {
            permit.on_data(bytes);
            self.advance(|left| if last { 0 } else { left.saturating_sub(bytes as u64) });
        }
    }

    #[inline]
    fn advance(&mut self, next: impl FnOnce(u64) -> u64) {
        let progress = self.progress.get_mut();
        if *progress != PANICKED {
            *progress = next(*progress);
        }
    }

    /// Records the result of a poll for the next frame. `data` returns the bytes of a data frame, and whether the body ends
    /// with it.
    #[inline(always)]
    pub(crate) fn polled<D, E: 'static>(
        &mut self,
        frame: &Option<Result<Frame<D>, E>>,
        data: impl FnOnce(&Self, &D) -> (usize, bool),
    ) {
        match frame {
            _ if !self.is_live() => {}
            None => self.settle(Outcome::Complete { trailers: None }),
            Some(Err(error)) => self.settle(Outcome::BodyFailed(error)),
            Some(Ok(frame)) => match frame.data_ref() {
                Some(bytes) => {
                    let (bytes, last) = data(self, bytes);
                    self.passed(bytes, last);
                }
                None => self.settle(Outcome::Complete { trailers: frame.trailers_ref() }),
            },
        }
    }

    /// Settles the permit, as [`Outcome::Panicked`] if the inner service has panicked. Later calls have no effect. A panic
    /// in `settle` is caught.
    #[inline]
    pub(crate) fn settle(&mut self, outcome: Outcome<'_>) {
        self.settle_inline(outcome);
    }

    /// [`settle`](Self::settle) for the usual end: little remains of it where the outcome is known.
    #[inline(always)]
    pub(crate) fn settle_inline(&mut self, outcome: Outcome<'_>) {
        let outcome = if *self.progress.get_mut() == PANICKED { Outcome::Panicked } else { outcome };
        if self.permit.as_ref().is_some_and(|permit| permit.is_settled_by(&outcome)) {
            let _ = caught(|| self.permit = None);
        } else if let Some(permit) = self.permit.take() {
            let _ = caught(|| permit.settle(outcome));
        }
    }

    #[cold]
    fn abandon(&mut self) {
        let outcome = match *self.progress.get_mut() {
            HEAD => Outcome::Cancelled { head_sent: false },
            0 => Outcome::Complete { trailers: None }, // hyper drops most complete bodies without polling them to their end
            _ => Outcome::Cancelled { head_sent: true },
        };
        self.settle(outcome);
    }
}

impl<P: Permit> Drop for Guard<P> {
    #[inline]
    fn drop(&mut self) {
        if self.is_live() {
            self.abandon();
        }
    }
}

/// Permits that watch code of the inner service together.
pub trait Watched {
    /// Runs code under the [watch](Guard::watch) of each permit.
    fn run<T>(&self, inner: impl FnOnce() -> T) -> T;
}

/// No permit.
impl Watched for () {
    #[inline(always)]
    fn run<T>(&self, inner: impl FnOnce() -> T) -> T {
        inner()
    }
}

/// Records a panic when it is dropped, which only a panic does.
#[must_use = "records a panic unless it is disarmed"]
pub(crate) struct Watch<'a>(&'a AtomicU64);

impl Watch<'_> {
    /// Ends the watch: the code did not panic.
    #[inline]
    pub(crate) fn disarm(self) {
        mem::forget(self);
    }
}

impl Drop for Watch<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.store(PANICKED, Relaxed);
    }
}
