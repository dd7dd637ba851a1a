//! Holds a permit and settles it exactly once, whatever happens.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::{Outcome, Permit};

/// A permit on its way to the end of the response; a drop settles it by how far the response had come.
#[derive(Debug)]
pub(crate) struct Guard<P: Permit> {
    permit: Option<P>,
    stage: Stage,
    /// Code of the inner service is running: whoever finds this set afterwards knows that it panicked.
    inside: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No head yet.
    Waiting,
    /// The head has been passed on; nobody knows how many body bytes are still to come.
    Streaming,
    /// The head has been passed on; so many body bytes are still to come.
    Counting(u64),
    /// The last frame has been passed on.
    Ended,
}

impl<P: Permit> Guard<P> {
    pub(crate) fn new(permit: P) -> Self {
        Self { permit: Some(permit), stage: Stage::Waiting, inside: false }
    }

    /// The permit, until it is settled.
    pub(crate) fn permit(&mut self) -> Option<&mut P> {
        self.permit.as_mut()
    }

    /// Runs code of the inner service; a panic in it is remembered, also when somebody further out catches it.
    pub(crate) fn run<T>(&mut self, inner: impl FnOnce() -> T) -> T {
        self.inside = true;
        let value = inner();
        self.inside = false;
        value
    }

    /// The head has been passed on; `left` body bytes are still to come, if that is known.
    pub(crate) fn head_sent(&mut self, left: Option<u64>) {
        self.stage = left.map_or(Stage::Streaming, Stage::Counting);
    }

    /// A frame of `bytes` body bytes was passed on, perhaps the `last` one.
    pub(crate) fn passed(&mut self, bytes: usize, last: bool) {
        if let Some(permit) = &mut self.permit {
            permit.on_data(bytes);
        }
        if let Stage::Counting(left) = &mut self.stage {
            *left = left.saturating_sub(bytes as u64);
        }
        if last {
            self.stage = Stage::Ended;
        }
    }

    /// The end; later calls do nothing.
    pub(crate) fn settle(&mut self, outcome: Outcome<'_>) {
        if let Some(permit) = self.permit.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| permit.settle(outcome)));
        }
    }
}

impl<P: Permit> Drop for Guard<P> {
    fn drop(&mut self) {
        if self.permit.is_none() {
            return;
        }
        let outcome = match self.stage {
            _ if self.inside => Outcome::Panicked,
            Stage::Waiting => Outcome::Cancelled { head_sent: false },
            // hyper drops most complete bodies without polling them to their end.
            Stage::Ended | Stage::Counting(0) => Outcome::Complete { trailers: None },
            Stage::Streaming | Stage::Counting(_) => Outcome::Cancelled { head_sent: true },
        };
        self.settle(outcome);
    }
}
