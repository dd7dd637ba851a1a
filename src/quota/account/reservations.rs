//! How a reservation ends, and how it is kept open.

use std::num::NonZeroU64;

use super::{Account, AccountSettings, Closed, Now, Stage};
use crate::quota::Amounts;

impl Account {
    /// Ends a reservation: with what was really used (what is not named, as it was estimated), or with nothing; gives the
    /// limits at which the client is to be warned, one bit each. Later calls for it change nothing.
    ///
    /// One that nobody can ask for again is to be `forgotten` at once.
    pub(crate) fn close(
        &mut self,
        hold: NonZeroU64,
        actual: Option<&Amounts>,
        forget: bool,
        now: Now,
        settings: &AccountSettings,
    ) -> (Closed, u64) {
        let stage = if actual.is_some() { Stage::Committed } else { Stage::RolledBack };
        let closed = self.rare().reservations.close(hold, stage, forget);
        let warned = match (&closed, actual) {
            (Closed::Now(held), actual) => {
                self.counts.settle(held, false);
                actual.map_or(0, |actual| self.record(&held.amounts.overridden_by(actual), Some(held.epoch), now))
            }
            (Closed::TooLate(held), Some(actual)) => {
                if settings.charge_expired {
                    self.give_back(&held.amounts, held.epoch);
                }
                self.record(&held.amounts.overridden_by(actual), Some(held.epoch), now)
            }
            _ => 0,
        };
        (closed, warned)
    }

    /// Puts off the end of a reservation.
    pub(crate) fn renew(&mut self, hold: NonZeroU64, now: Now, settings: &AccountSettings) {
        self.rare().reservations.renew(hold, now.moment, settings.ttl);
    }
}
