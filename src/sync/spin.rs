//! A spin lock that yields.

#[cfg(not(tollgate_loom))]
pub(crate) use spinlock::{Spin, SpinGuard};

#[cfg(tollgate_loom)]
pub(crate) use model::{Spin, SpinGuard};

#[cfg(not(tollgate_loom))]
mod spinlock {
    use std::{hint, thread};

    use spinning_top::Spinlock;
    pub(crate) use spinning_top::guard::SpinlockGuard as SpinGuard;

    /// A lock that is held for a few instructions, and never while an observer, a classifier or the handler runs.
    ///
    /// It costs one atomic exchange; a mutex costs two, and sleeps when it is taken. Waiting threads spin. If the
    /// scheduler has suspended the holder, they yield. A panic releases the lock.
    pub(crate) struct Spin<T>(Spinlock<T>);

    /// Number of spins before yielding; longer than a running holder keeps the lock.
    const SPINS: u32 = 10;

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
            let mut spins = 0..SPINS;
            loop {
                match spins.next() {
                    // Each attempt takes the cache line from the thread that writes on it, so attempts become rarer.
                    Some(spin) => (0..16 << spin.min(4)).for_each(|_| hint::spin_loop()),
                    None => thread::yield_now(),
                }
                if !self.0.is_locked()
                    && let Some(guard) = self.0.try_lock()
                {
                    return guard;
                }
            }
        }
    }
}

#[cfg(tollgate_loom)]
mod model {
    use std::sync::PoisonError;

    use loom::sync::Mutex;
    pub(crate) use loom::sync::MutexGuard as SpinGuard;

    /// The same lock as a mutex that loom models.
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
