//! The primitives of shared state: the standard library's, or loom's where every interleaving is tried.

mod hot_swap;
mod lease;

#[cfg(tollgate_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
#[cfg(not(tollgate_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
};

#[cfg(not(tollgate_loom))]
pub(crate) use spin::{Spin, SpinGuard};

#[cfg(tollgate_loom)]
pub(crate) use model::{Spin, SpinGuard};

pub(crate) use hot_swap::HotSwap;
pub use lease::{Acquired, Lease, Leases};

/// A value on cache lines of its own. 128 bytes, because processors prefetch lines in pairs.
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub(crate) T);

#[cfg(not(tollgate_loom))]
mod spin {
    use std::{fmt, hint, thread};

    use spinning_top::Spinlock;
    pub(crate) use spinning_top::guard::SpinlockGuard as SpinGuard;

    /// A lock that is held for some instructions only, never while anybody else's code runs.
    ///
    /// A mutex costs two exchanges and sleeps when it is taken; this costs one, and whoever finds it taken looks again.
    /// Where its holder was put aside by the scheduler, waiting threads step aside too. A panic leaves it free.
    pub(crate) struct Spin<T>(Spinlock<T>);

    /// So often a thread looks before it steps aside: longer than anybody holds the lock who is running.
    const LOOKS: u32 = 10;

    impl<T> Spin<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(Spinlock::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
            self.0.try_lock().unwrap_or_else(|| self.wait())
        }

        #[inline]
        pub(crate) fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
            self.0.try_lock()
        }

        #[cold]
        fn wait(&self) -> SpinGuard<'_, T> {
            let mut look = 0;
            loop {
                if look < LOOKS {
                    // Rarer and rarer looks: each takes the line away from the thread that writes on it.
                    (0..16 << look.min(4)).for_each(|_| hint::spin_loop());
                    look += 1;
                } else {
                    thread::yield_now();
                }
                if !self.0.is_locked()
                    && let Some(guard) = self.0.try_lock()
                {
                    return guard;
                }
            }
        }
    }

    impl<T> fmt::Debug for Spin<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Spin(..)")
        }
    }
}

#[cfg(tollgate_loom)]
mod model {
    use std::sync::PoisonError;

    use loom::sync::Mutex;
    pub(crate) use loom::sync::MutexGuard as SpinGuard;

    /// The same, as a lock that loom knows.
    #[derive(Debug)]
    pub(crate) struct Spin<T>(Mutex<T>);

    impl<T> Spin<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> SpinGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        pub(crate) fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
            self.0.try_lock().ok()
        }
    }
}
