//! Counts of one generation of a circuit, and the fast path on which threads reach them without the circuit's lock.

use std::{
    sync::{Arc, Weak, atomic::AtomicUsize},
    time::Duration,
};

use super::{
    circuit::{CallProgress, Circuit, CircuitShared, Ticket},
    machine::Passage,
    window::{CallResult, SlidingWindow, Tally},
};
use crate::{
    sync::{AtomicU32, CachePadded, Ordering, Spin},
    time::Moment,
};

/// Window and streak of one generation. An admitted call holds its generation, so a late result is written into counts
/// that are no longer read.
pub(crate) struct Generation {
    circuit: Weak<Circuit>,
    shared: Arc<CircuitShared>,
    number: u64,
    consecutive_failures: AtomicU32,
    window: SlidingWindow,
}

/// A stripe's reference to a generation. Each stripe has its own, because one reference count for all threads would be
/// the bottleneck.
#[repr(align(128))]
pub(crate) struct Stripe {
    generation: Arc<Generation>,
    number: usize,
}

impl Stripe {
    #[inline]
    pub(crate) fn shared(&self) -> &CircuitShared {
        &self.generation.shared
    }

    /// Counts one call, and opens the circuit if that fulfils a rule.
    #[inline]
    pub(crate) fn record(&self, result: CallResult, now: impl FnOnce() -> Moment) {
        if result != CallResult::default() {
            return self.record_bad(result, now());
        }
        let Generation { consecutive_failures, window, .. } = &*self.generation;
        if consecutive_failures.load(Ordering::Relaxed) != 0 {
            consecutive_failures.store(0, Ordering::Release);
        }
        window.record(self.number, result, now);
    }

    /// Counts a failed or slow call, after which the rules are judged.
    #[inline(never)]
    fn record_bad(&self, result: CallResult, now: Moment) {
        let Generation { shared, consecutive_failures, window, .. } = &*self.generation;
        let mut streak = 0;
        if result.failure {
            streak = consecutive_failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        } else {
            consecutive_failures.store(0, Ordering::Release);
        }
        window.record(self.number, result, || now);
        if let Some(cause) = shared.trip.judge(window.tally(now), streak) {
            self.trip(Duration::ZERO, cause, now);
        }
    }

    /// Opens the circuit, unless it has a newer generation by now.
    pub(crate) fn trip(&self, at_least: Duration, cause: &'static str, now: Moment) {
        if let Some(circuit) = self.generation.circuit.upgrade() {
            circuit.update(|machine| machine.trip(self.generation.number, at_least, cause, now));
        }
    }
}

/// Admission of calls in the present generation, without the machine where it permits.
pub(crate) enum FastPath {
    /// Calls pass and are counted.
    Counted(Arc<Stripe>),
    /// Calls pass uncounted, are refused, or ask the machine.
    Other(Passage),
}

/// The present [`FastPath`], once for each stripe. A thread reads the copy of its stripe, under a lock that few other
/// threads want; that costs less than any cell that all threads share.
pub(crate) struct FastPaths(Box<[CachePadded<Spin<FastPath>>]>);

impl FastPaths {
    /// Creates paths to the machine; `stripes` is a power of two.
    pub(crate) fn new(stripes: usize) -> Self {
        Self((0..stripes).map(|_| CachePadded(Spin::new(FastPath::Other(Passage::Asked)))).collect())
    }

    /// Returns the ticket of a call, or the time for which it is refused; `None` if the machine decides.
    #[inline]
    pub(crate) fn admit(&self, now: impl FnOnce() -> Moment) -> Option<Result<Ticket, Duration>> {
        let (since, until) = match &*self.0[thread_number() & (self.0.len() - 1)].0.lock() {
            FastPath::Counted(stripe) => {
                return Some(Ok(Ticket::Counted(CallProgress::default(), Arc::clone(stripe))));
            }
            FastPath::Other(Passage::Uncounted) => return Some(Ok(Ticket::Uncounted)),
            FastPath::Other(Passage::Refused(wait)) => return Some(Err(*wait)),
            FastPath::Other(Passage::RefusedUntil { since, until }) => (*since, *until),
            FastPath::Other(Passage::Counted | Passage::Asked) => return None,
        };
        let now = now();
        (since <= now && now < until).then(|| Err(until.since(now)))
    }

    /// Returns the stripe that counts a call of a closed circuit; `None` if the calls are not admitted and counted.
    #[inline]
    pub(crate) fn admit_counted(&self) -> Option<Arc<Stripe>> {
        match &*self.0[thread_number() & (self.0.len() - 1)].0.lock() {
            FastPath::Counted(stripe) => Some(Arc::clone(stripe)),
            FastPath::Other(_) => None,
        }
    }

    /// Sets how calls of `circuit` are admitted. Calls that are counted begin a generation with this number.
    pub(crate) fn set(&self, passage: Passage, circuit: &Arc<Circuit>, number: u64) {
        let generation = (passage == Passage::Counted).then(|| {
            Arc::new(Generation {
                circuit: Arc::downgrade(circuit),
                shared: Arc::clone(&circuit.shared),
                number,
                consecutive_failures: AtomicU32::new(0),
                window: SlidingWindow::new(circuit.shared.trip.window(), self.0.len()),
            })
        });
        for (number, copy) in self.0.iter().enumerate() {
            let stripe = |generation| FastPath::Counted(Arc::new(Stripe { generation, number }));
            let next = generation.clone().map_or(FastPath::Other(passage), stripe);
            let last = std::mem::replace(&mut *copy.0.lock(), next);
            drop(last); // outside the lock: it may be the last reference to its generation
        }
    }

    /// Whether a call of the present generation is under way.
    pub(crate) fn has_calls(&self) -> bool {
        let in_use = |path: &FastPath| matches!(path, FastPath::Counted(stripe) if Arc::strong_count(stripe) > 1);
        self.0.iter().any(|copy| in_use(&copy.0.lock()))
    }

    /// Returns the tally of the window and the number of consecutive failures.
    pub(crate) fn tally(&self, now: Moment) -> (Tally, u32) {
        match &*self.0[0].0.lock() {
            FastPath::Counted(stripe) => {
                let generation = &*stripe.generation;
                (generation.window.tally(now), generation.consecutive_failures.load(Ordering::Acquire))
            }
            FastPath::Other(_) => (Tally::default(), 0),
        }
    }
}

/// Returns a number that no other thread has, counted from 0.
#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}
