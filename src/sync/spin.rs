//! A spin lock that yields.

#[cfg(not(tollgate_loom))]
pub(crate) use spinlock::{Spin, SpinGuard};

#[cfg(tollgate_loom)]
pub(crate) use model::{Spin, SpinGuard};

#[cfg(not(tollgate_loom))]
mod spinlock {
    use std::{hint, thread};

    use spinning_top::{
        RawSpinlock,
        lock_api::{Mutex, MutexGuard},
        relax::Relax,
    };

    /// A lock that is held for a few instructions, and never while an observer, a classifier or the handler runs.
    ///
    /// It costs one atomic exchange; a mutex costs two, and sleeps when it is taken. Waiting threads spin. If the
    /// scheduler has suspended the holder, they yield. A panic releases the lock.
    pub(crate) type Spin<T> = Mutex<RawSpinlock<SpinThenYield>, T>;
    pub(crate) type SpinGuard<'a, T> = MutexGuard<'a, RawSpinlock<SpinThenYield>, T>;

    /// Number of pauses of a waiting thread so far.
    #[derive(Default)]
    pub(crate) struct SpinThenYield(u32);

    /// Number of spins before yielding; longer than a running holder keeps the lock.
    const SPINS: u32 = 10;

    impl Relax for SpinThenYield {
        #[cold]
        fn relax(&mut self) {
            if self.0 < SPINS {
                // Each attempt takes the cache line from the thread that writes on it, so attempts become rarer.
                (0..16 << self.0.min(4)).for_each(|_| hint::spin_loop());
                self.0 += 1;
            } else {
                thread::yield_now();
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
