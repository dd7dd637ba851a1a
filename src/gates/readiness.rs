//! Readiness of the services inside of each member, as nested gates keep it.

/// Results of `poll_ready` since the last call, for the service inside of each member. A member that is shut makes those
/// outside of it ready, and the inner service is not polled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberReadiness(u32);

/// Bit of the inner service: it was polled, and may hold a reservation or a place in a queue. The lower bits are members'.
const POLLED: u32 = 1 << 31;

/// Greatest number of members.
pub(super) const MOST: u32 = 31;

impl MemberReadiness {
    /// Returns whether the service inside of member `at` was polled ready.
    #[inline]
    pub(super) const fn is(self, at: u32) -> bool {
        self.0 & (1 << at) != 0
    }

    #[inline]
    pub(super) const fn set(&mut self, at: u32) {
        self.0 |= 1 << at;
    }

    #[inline]
    pub(super) const fn clear(&mut self, at: u32) {
        self.0 &= !(1 << at);
    }

    /// Records that the inner service is polled.
    #[inline]
    pub(super) const fn poll_service(&mut self) {
        self.0 |= POLLED;
    }

    /// Returns whether the inner service was polled.
    #[inline]
    pub(super) const fn is_polled(self) -> bool {
        self.0 & POLLED != 0
    }

    /// Makes the inner service be polled before its next call.
    #[inline]
    pub(super) const fn forget(&mut self) {
        self.0 &= POLLED;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_the_service_have_bits_of_their_own() {
        let mut ready = MemberReadiness::default();
        for at in 0..MOST {
            assert!(!ready.is(at));
            ready.set(at);
            assert!(ready.is(at) && !ready.is_polled());
        }
        ready.poll_service();
        ready.clear(1);
        assert_eq!([0, 1, MOST - 1].map(|at| ready.is(at)), [true, false, true]);
        ready.forget();
        assert!(ready.is_polled() && (0..MOST).all(|at| !ready.is(at)));
    }
}
