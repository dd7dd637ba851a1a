//! One limit's count, in the period that is under way.

use crate::{
    quota::{Limit, MOST},
    time::{Period, Window},
};

/// How far a clock may step back before what lies ahead of it is taken for a mistake: nobody corrects a clock that is
/// right by more.
const STEP: u64 = 48 * 3_600 * 1_000_000_000;

/// What is used and reserved of one limit in the period under way; times are nanoseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counter {
    /// The period; where it ends at 0, none has begun.
    pub(super) starts: u64,
    pub(super) ends: u64,
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    /// The account's epoch at which this count began: what was charged before belongs to another count.
    pub(super) epoch: u32,
    /// The client was warned in this period.
    pub(super) warned: bool,
    /// Somebody must still be told of the warning in a response.
    pub(super) warning_pending: bool,
}

impl Counter {
    /// Whether a period is under way.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.ends > 0
    }

    /// When the period ends, for one that begins at `wall` if none is under way.
    pub(crate) fn end(&self, period: &Period, wall: u64) -> u64 {
        if self.has_begun() { self.ends } else { bounds(period.window_at(std::time::Duration::from_nanos(wall))).1 }
    }

    /// All of it that is not free.
    #[inline]
    pub(crate) fn taken(&self) -> u64 {
        self.used.saturating_add(self.reserved)
    }

    /// Adds to what is used, or to what is set aside.
    #[inline]
    pub(super) fn take(&mut self, amount: u64, reserve: bool) {
        let sum = if reserve { &mut self.reserved } else { &mut self.used };
        *sum = sum.saturating_add(amount).min(MOST);
    }

    /// The first count of a limit that there was not before this epoch.
    pub(super) fn first_at(epoch: u32) -> Self {
        Self { epoch: epoch, ..Self::default() }
    }

    /// On the wall, while this period is not [over](Self::is_over).
    pub(super) fn stable_range(&self) -> std::ops::Range<u64> {
        if self.has_begun() { self.starts.saturating_sub(STEP)..self.ends } else { 0..u64::MAX }
    }

    /// Whether the period is over at `wall`, or lies so far ahead that the clock must have been wrong.
    pub(super) fn is_over(&self, wall: u64) -> bool {
        self.has_begun() && (wall >= self.ends || self.is_ahead(wall))
    }

    fn is_ahead(&self, wall: u64) -> bool {
        self.starts.saturating_sub(wall) > STEP
    }

    /// Ends the period that is [over](Self::is_over), and says whether it did: a clock that was far ahead and has been
    /// corrected takes its count along. One that stepped back a little finds the period still under way, so that none is
    /// charged twice over.
    pub(super) fn roll(&mut self, period: &Period, wall: u64, epoch: u32) -> bool {
        let ahead = self.is_ahead(wall);
        if ahead {
            self.begin(period, wall);
        } else {
            *self = Self::first_at(epoch);
        }
        !ahead
    }

    /// Begins the period in which `wall` lies, unless it is one that begins with the first use; says whether it did.
    #[cold]
    pub(super) fn may_begin(&mut self, limit: &Limit, amount: u64, wall: u64) -> bool {
        let begins = |period: &&Period| amount > 0 || period.is_calendar();
        let Some(period) = limit.quota.period().filter(begins) else { return false };
        self.begin(period, wall);
        true
    }

    /// Begins the period in which `wall` lies.
    pub(super) fn begin(&mut self, period: &Period, wall: u64) {
        (self.starts, self.ends) = bounds(period.window_at(std::time::Duration::from_nanos(wall)));
    }

    /// Counts from zero in the same period; what is in flight belongs to the count before.
    pub(super) fn reset(&mut self, epoch: u32) {
        *self = Self { starts: self.starts, ends: self.ends, epoch: epoch, ..Self::default() };
    }

    /// Whether what was charged at `epoch` is part of this count.
    #[inline]
    pub(super) fn holds(&self, epoch: u32) -> bool {
        self.epoch <= epoch
    }

    /// Whether the client has just come to where it is to be warned: true once in a period.
    #[inline]
    pub(super) fn warns(&mut self, limit: &Limit) -> bool {
        if self.warned || limit.warn_from == 0 || self.taken() < limit.warn_from {
            return false;
        }
        self.warned = true;
        true
    }

    /// The limit is another: a client that is not near it is to be warned when it comes near it.
    pub(super) fn rearm(&mut self, limit: &Limit) {
        if self.taken() < limit.warn_from {
            (self.warned, self.warning_pending) = (false, false);
        }
    }
}

fn bounds(window: Window) -> (u64, u64) {
    (crate::time::nanos(window.start()), crate::time::nanos(window.end()).max(1))
}
