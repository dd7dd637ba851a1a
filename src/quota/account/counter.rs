//! One limit's counter, in one window.

use std::{ops::Range, time::Duration};

use crate::{
    quota::{Limit, MOST},
    time::Period,
};

/// Greatest plausible correction of a clock, in nanoseconds (48 h). A window or an admission further ahead of the clock
/// comes from a wrong clock.
pub(crate) const MAX_CLOCK_STEP: u64 = 48 * 3_600 * 1_000_000_000;

/// Used and reserved amount of one limit in one window. Times are nanoseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Counter {
    /// Start and end of the window. No window has begun while `ends` is 0; `starts` is then the time at which the last one
    /// was found to be over, and no earlier window begins.
    pub(crate) starts: u64,
    pub(crate) ends: u64,
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    /// Epoch of the account in which this counter began. Charges of earlier epochs belong to another counter.
    pub(crate) epoch: u64,
    /// Set once the client was warned in this window.
    pub(crate) warned: bool,
    /// Set until a response reports the warning.
    pub(crate) warning_pending: bool,
}

impl Counter {
    /// Creates the counter of a limit that begins in this epoch.
    pub(super) fn in_epoch(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Whether a window has begun.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.ends > 0
    }

    /// Returns the end of the window, or of the one that would begin at `wall` if none has begun.
    pub(crate) fn end(&self, period: &Period, wall: u64) -> u64 {
        if self.has_begun() { self.ends } else { bounds(period, self.present(wall)).1 }
    }

    /// Returns the used and reserved amount.
    #[inline]
    pub(crate) fn taken(&self) -> u64 {
        self.used.saturating_add(self.reserved)
    }

    /// Adds the part of `amount` that fits to the used or to the reserved amount; returns the part that is cut. A counter
    /// never exceeds 2^53 - 1. One that was stored above that stays as it is.
    ///
    /// Every amount enters a counter here, unless it was [found to fit](Self::take_fitting).
    #[inline]
    #[must_use = "an amount that is cut must be reported"]
    pub(crate) fn take(&mut self, amount: u64, reserve: bool) -> u64 {
        let sum = self.used.checked_add(self.reserved).and_then(|taken| taken.checked_add(amount));
        if sum.is_none_or(|sum| sum > MOST) {
            return self.fill(amount, reserve);
        }
        self.take_fitting(amount, reserve);
        0
    }

    /// Adds an amount that fits into the limit beside what is taken. No limit exceeds 2^53 - 1, so that nothing is cut.
    #[inline]
    pub(crate) fn take_fitting(&mut self, amount: u64, reserve: bool) {
        *(if reserve { &mut self.reserved } else { &mut self.used }) += amount;
        debug_assert!(self.taken() <= MOST, "{amount} did not fit");
    }

    #[cold]
    fn fill(&mut self, amount: u64, reserve: bool) -> u64 {
        let part = amount.min(MOST.saturating_sub(self.taken()));
        *(if reserve { &mut self.reserved } else { &mut self.used }) += part;
        amount - part
    }

    /// Ends the reservation of an amount.
    pub(crate) fn release(&mut self, amount: u64) {
        self.reserved = self.reserved.saturating_sub(amount);
    }

    /// Refunds at most `amount` of the used amount; returns the refunded part.
    pub(crate) fn give_back(&mut self, amount: u64) -> u64 {
        let returned = amount.min(self.used);
        self.used -= returned;
        returned
    }

    /// Returns the wall-clock range in which the window is not [over](Self::is_over).
    pub(super) fn stable_range(&self) -> Range<u64> {
        if self.has_begun() { self.starts.saturating_sub(MAX_CLOCK_STEP)..self.ends } else { 0..u64::MAX }
    }

    /// Whether the window has ended at `wall`, or is so far ahead that the clock was wrong when it began.
    pub(crate) fn is_over(&self, wall: u64) -> bool {
        self.has_begun() && (wall >= self.ends || self.is_ahead(wall))
    }

    pub(super) fn is_ahead(&self, wall: u64) -> bool {
        self.starts.saturating_sub(wall) > MAX_CLOCK_STEP
    }

    /// Ends a window that is [over](Self::is_over); returns whether the counter restarted.
    ///
    /// The counts of a window from a clock that was far ahead are carried into the present window. A clock that stepped
    /// back a little finds the window still open, so that no amount is charged twice.
    pub(super) fn roll(&mut self, period: &Period, wall: u64, epoch: u64) -> bool {
        let ahead = self.is_ahead(wall);
        if ahead {
            self.begin(period, wall);
        } else {
            *self = Self { starts: wall, ..Self::in_epoch(epoch) };
        }
        !ahead
    }

    /// Begins the window of `wall`, unless the period begins with its first use and `amount` is 0; returns whether it
    /// did.
    #[cold]
    pub(super) fn may_begin(&mut self, limit: &Limit, amount: u64, wall: u64) -> bool {
        let begins = |period: &&Period| amount > 0 || period.is_calendar();
        let Some(period) = limit.quota.period().filter(begins) else { return false };
        self.begin(period, wall);
        true
    }

    /// Begins the window of `wall`. After a clock has stepped back, it is that of the latest time that the counter knows.
    pub(crate) fn begin(&mut self, period: &Period, wall: u64) {
        (self.starts, self.ends) = bounds(period, self.present(wall));
    }

    fn present(&self, wall: u64) -> u64 {
        if self.has_begun() || self.is_ahead(wall) { wall } else { wall.max(self.starts) }
    }

    /// Whether nothing is counted at `wall`, nor in a window that a clock that stepped back would find open.
    pub(super) fn is_blank(&self, wall: u64) -> bool {
        let unused = self.taken() == 0 && (self.starts <= wall || self.is_ahead(wall));
        unused || (self.has_begun() && wall >= self.ends)
    }

    /// Returns the length of the window, in nanoseconds, if something is counted in it.
    pub(super) fn counted_for(&self) -> u64 {
        if self.taken() > 0 { self.ends.saturating_sub(self.starts) } else { 0 }
    }

    /// Restarts the counter in the same window; charges in flight belong to the old counter.
    pub(crate) fn reset(&mut self, epoch: u64) {
        *self = Self { starts: self.starts, ends: self.ends, ..Self::in_epoch(epoch) };
    }

    /// Whether a charge of `epoch` is part of this counter.
    #[inline]
    pub(crate) fn holds(&self, epoch: u64) -> bool {
        self.epoch <= epoch
    }

    /// Returns whether the client has just reached the warning threshold; true once in a window.
    #[inline]
    pub(crate) fn warns(&mut self, limit: &Limit) -> bool {
        if self.warned || limit.warn_from == 0 || self.taken() < limit.warn_from {
            return false;
        }
        (self.warned, self.warning_pending) = (true, true);
        true
    }

    /// Allows another warning if the counter is below the present warning threshold of the limit.
    pub(super) fn rearm(&mut self, limit: &Limit) {
        if self.taken() < limit.warn_from {
            (self.warned, self.warning_pending) = (false, false);
        }
    }
}

fn bounds(period: &Period, wall: u64) -> (u64, u64) {
    let window = period.window_at(Duration::from_nanos(wall));
    (crate::time::nanos(window.start()), crate::time::nanos(window.end()).max(1))
}
