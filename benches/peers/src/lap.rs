//! Contestants, and the stopwatch that each of their laps runs.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::allocations;

/// Performs a number of operations and returns their time, without preparation.
pub type Lap = Box<dyn FnMut(u64) -> Duration>;

/// Constructor of a contestant, called when it races; profiles construct one alone.
pub struct Entry {
    pub name: &'static str,
    pub make: fn() -> Lap,
}

static COUNTING: AtomicBool = AtomicBool::new(false);

/// Whether a lap has counted its allocations: one of several threads does not.
static COUNTED: AtomicBool = AtomicBool::new(false);

/// Times `work`, or counts its allocations in a counting round. A function of its own, so that a profiler can tell it
/// from preparation.
#[inline(never)]
pub fn timed(work: impl FnOnce()) -> Duration {
    let counting = COUNTING.load(Relaxed);
    COUNTED.store(counting, Relaxed);
    allocations::watch(counting);
    let start = Instant::now();
    work();
    let took = start.elapsed();
    allocations::watch(false);
    took
}

/// Lets the laps that follow count their allocations, or no longer.
pub fn count_allocations(counting: bool) {
    COUNTING.store(counting, Relaxed);
}

/// Returns whether a lap has counted its allocations since the last call.
pub fn counted_allocations() -> bool {
    COUNTED.swap(false, Relaxed)
}
