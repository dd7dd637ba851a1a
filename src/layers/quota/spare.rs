//! Boxes that are used again: what is moved about is a pointer, and in the long run nothing is allocated.

use std::{cell::RefCell, thread::LocalKey};

/// The empty boxes of one thread.
pub(super) struct Pool<T>(RefCell<Vec<Box<Option<T>>>>);

/// A box that goes back to the pool of the thread on which it is dropped.
pub(super) struct Spare<T: 'static> {
    held: Option<Box<Option<T>>>,
    pool: &'static LocalKey<Pool<T>>,
}

/// So many empty boxes a thread keeps: what it has under way at once, as a rule.
const KEPT: usize = 256;

impl<T> Pool<T> {
    pub(super) const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }
}

impl<T> Spare<T> {
    /// A box with `value` in it.
    #[inline]
    pub(super) fn of(pool: &'static LocalKey<Pool<T>>, value: T) -> Self {
        // A thread that is just ending has no pool any more.
        let empty = pool.try_with(|pool| pool.0.borrow_mut().pop()).ok().flatten();
        let mut held = empty.unwrap_or_default();
        *held = Some(value);
        Self { held: Some(held), pool }
    }

    #[inline]
    pub(super) fn get(&mut self) -> Option<&mut T> {
        self.held.as_deref_mut().and_then(Option::as_mut)
    }
}

impl<T> Drop for Spare<T> {
    #[inline]
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        *held = None; // before the pool is borrowed: it may hold such a box itself
        let _ = self.pool.try_with(|pool| {
            let mut pool = pool.0.borrow_mut();
            if pool.len() < KEPT {
                pool.push(held);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static NUMBERS: Pool<u64> = const { Pool::new() });

    fn kept() -> usize {
        NUMBERS.with(|pool| pool.0.borrow().len())
    }

    #[test]
    fn a_box_is_used_again_and_never_too_many_are_kept() {
        let mut one = Spare::of(&NUMBERS, 1);
        assert_eq!((one.get().copied(), kept()), (Some(1), 0));
        drop(one);
        assert_eq!(kept(), 1);
        let mut two = Spare::of(&NUMBERS, 2);
        assert_eq!((two.get().copied(), kept()), (Some(2), 0));
        let many: Vec<_> = (0..300).map(|n| Spare::of(&NUMBERS, n)).collect();
        drop((two, many));
        assert_eq!(kept(), KEPT);
    }

    #[test]
    fn a_box_may_end_on_another_thread() {
        let here = Spare::of(&NUMBERS, 7);
        std::thread::spawn(move || {
            drop(here);
            assert_eq!(kept(), 1);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_is_in_a_box_may_hold_another() {
        struct Nested(#[expect(dead_code, reason = "dropped")] Option<Spare<Nested>>);
        thread_local!(static NESTED: Pool<Nested> = const { Pool::new() });
        let inner = Spare::of(&NESTED, Nested(None));
        drop(Spare::of(&NESTED, Nested(Some(inner))));
        assert_eq!(NESTED.with(|pool| pool.0.borrow().len()), 2);
    }
}
