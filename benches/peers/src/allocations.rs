//! Counts allocations while counting is on; otherwise it costs one relaxed load.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

/// The system's allocator with counters.
pub struct Watched;

static WATCHING: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: each call is forwarded unchanged to the system's allocator.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64, 1);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64, 1);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as i64), 0);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size as i64 - layout.size() as i64, 1);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[inline]
fn note(bytes: i64, allocations: u64) {
    if WATCHING.load(Relaxed) {
        LIVE.fetch_add(bytes, Relaxed);
        COUNT.fetch_add(allocations, Relaxed);
    }
}

/// Switches counting on or off; returns the earlier setting.
pub fn watch(on: bool) -> bool {
    WATCHING.swap(on, Relaxed)
}

/// Returns the number of allocations counted so far.
pub fn count() -> u64 {
    COUNT.load(Relaxed)
}

/// Returns bytes allocated less bytes freed while counting; only differences mean anything.
pub fn live() -> i64 {
    LIVE.load(Relaxed)
}
