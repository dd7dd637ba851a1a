//! Primitives of shared state, and their substitutes under loom, which tries every interleaving.

mod hot_swap;
mod lease;
mod pool;
#[cfg(feature = "key-value")]
mod shares;
mod spin;

#[cfg(tollgate_loom)]
pub(crate) use loom::thread::yield_now;
#[cfg(not(tollgate_loom))]
pub(crate) use std::thread::yield_now;

#[cfg(tollgate_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
#[cfg(not(tollgate_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

pub(crate) use hot_swap::HotSwap;
pub(crate) use lease::{Acquired, Lease, Leases};
pub(crate) use pool::Pool;
#[cfg(feature = "key-value")]
pub(crate) use shares::{Share, ShareBounds, ShareExceeded, Shares};
pub(crate) use spin::{Spin, SpinGuard};

/// A value on cache lines of its own. 128 bytes, because processors prefetch lines in pairs.
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);
