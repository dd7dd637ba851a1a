//! Pool of boxes for each thread, so that values move as a pointer and are not allocated in the long run.

use std::{cell::RefCell, thread::LocalKey};

/// Blank boxes of one thread.
pub(crate) struct Pool<T>(RefCell<Vec<Box<T>>>);

/// Greatest number of blank boxes per thread; rarely are more in use at once.
const KEPT: usize = 256;

impl<T: Default> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Returns a blank box, new or [kept](Self::keep).
    #[inline]
    pub(crate) fn take(pool: &'static LocalKey<Self>) -> Box<T> {
        // A thread that is ending has no pool any more.
        let kept = pool.try_with(|pool| pool.0.borrow_mut().pop()).ok().flatten();
        kept.unwrap_or_default()
    }

    /// Drops the content of a box by `blank` and keeps it for the next use on this thread, unless the pool is full.
    #[inline]
    pub(crate) fn keep(pool: &'static LocalKey<Self>, mut used: Box<T>, blank: impl FnOnce(&mut T)) {
        blank(&mut used); // before the pool is borrowed: it may hold such a box itself
        let _ = pool.try_with(|pool| {
            let mut pool = pool.0.borrow_mut();
            if pool.len() < KEPT {
                pool.push(used);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static NUMBERS: Pool<u64> = const { Pool::new() });

    fn keep(number: Box<u64>) {
        Pool::keep(&NUMBERS, number, |number| *number = 0);
    }

    fn kept() -> usize {
        NUMBERS.with(|pool| pool.0.borrow().len())
    }

    fn number(n: u64) -> Box<u64> {
        let mut number = Pool::take(&NUMBERS);
        assert_eq!(*number, 0, "blank");
        *number = n;
        number
    }

    #[test]
    fn box_is_reused_and_the_pool_is_bounded() {
        let one = number(1);
        assert_eq!(kept(), 0);
        keep(one);
        assert_eq!(kept(), 1);
        let two = number(2);
        assert_eq!(kept(), 0);
        let many: Vec<_> = (0..300).map(number).collect();
        keep(two);
        many.into_iter().for_each(keep);
        assert_eq!(kept(), KEPT);
    }

    #[test]
    fn box_may_be_dropped_on_another_thread() {
        let here = number(7);
        std::thread::spawn(move || {
            keep(here);
            assert_eq!(kept(), 1);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn content_of_a_box_may_return_another_box() {
        #[derive(Default)]
        struct Nested(Option<Box<Nested>>);
        thread_local!(static NESTED: Pool<Nested> = const { Pool::new() });
        fn keep(nested: Box<Nested>) {
            Pool::keep(&NESTED, nested, |nested| nested.0.take().into_iter().for_each(keep));
        }
        keep(Box::new(Nested(Some(Box::default()))));
        assert_eq!(NESTED.with(|pool| pool.0.borrow().len()), 2);
    }
}
