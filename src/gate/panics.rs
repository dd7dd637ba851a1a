//! Calls of foreign code whose panics must not go on.

use std::{
    any::Any,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Runs foreign code, such as an observer; returns `None` if it panics. No panic leaves this function, also none of
/// the `Drop` of a panic's payload.
///
/// It is the one caller of `catch_unwind`, because a payload is easily dropped outside of the catch.
#[inline(always)] // it stands for a bare `catch_unwind` on the path of each request
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard).ok()
}

/// Drops the payload of a panic. If its `Drop` panics, the second payload is leaked: its `Drop` may panic too.
#[cold]
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    /// Payload whose `Drop` panics with a payload of the same kind, this many times.
    struct Chain(u32);

    impl Drop for Chain {
        fn drop(&mut self) {
            if let Some(rest) = self.0.checked_sub(1) {
                panic_any(Self(rest));
            }
        }
    }

    #[test]
    fn payload_that_panics_in_its_drop_does_not_escape() {
        for length in 0..4 {
            let escaped = catch_unwind(|| assert_eq!(caught(|| panic_any(Chain(length))), None::<()>));
            assert!(escaped.map_err(mem::forget).is_ok(), "a chain of {length}");
        }
        assert_eq!(caught(|| 1), Some(1));
    }
}
