//! Ends of reservations: commits, rollbacks, and expiries.

use std::num::NonZeroU64;

use super::{Account, AccountSettings, Changed, CloseResult, ClosedBy, Now, Stage, reservations::ReservationState};
use crate::{kind::Kind, quota::Amounts};

impl Account {
    /// Leaves a reservation to a close by its id, or to its expiry.
    pub(crate) fn detach(&mut self, reservation: NonZeroU64, settings: &AccountSettings) {
        self.rare().reservations.detach(reservation, settings.ttl);
    }

    /// Closes a reservation, once: commits the `actual` amounts (for a kind that they do not name, the reserved
    /// amount), or rolls back.
    pub(crate) fn close(
        &mut self,
        reservation: NonZeroU64,
        actual: Option<&Amounts>,
        by: ClosedBy,
        now: Now,
        settings: &AccountSettings,
    ) -> (CloseResult, Changed) {
        let Some(mut rare) = self.rare.take() else { return (CloseResult::Unknown, Changed::default()) };
        // Whether it has expired depends on the time alone, not on the calls before.
        rare.reservations.expire_one(reservation, now.moment, settings.ttl, |reserved| self.lapse(reserved, settings));
        // The part of the estimate that the counters of the reservation still hold.
        let held = |estimate: &Amounts, expired: bool| {
            if expired && !settings.charge_expired { Amounts::new() } else { estimate.clone() }
        };
        if let (ClosedBy::Id, Some(actual)) = (by, actual)
            && let Some((estimate, expired)) = rare.reservations.to_commit(reservation)
            && let Some(amount) = self.too_large(estimate, &held(estimate, expired), actual, now)
        {
            self.rare = Some(rare);
            return (CloseResult::TooLarge(amount), Changed::default());
        }
        let stage = if actual.is_some() { Stage::Committed } else { Stage::RolledBack };
        let (result, closed) = rare.reservations.close(reservation, stage, by == ClosedBy::Holder, settings.ttl);
        self.rare = Some(rare);
        let Some(reserved) = closed else { return (result, Changed::default()) };
        let (expired, of) = (result == CloseResult::Expired, &reserved.scope);
        let held = held(&reserved.amounts, expired);
        let used = actual.map_or_else(Amounts::new, |actual| reserved.amounts.overridden_by(actual));
        let (within, beyond) = used.split_at(&held);
        let mut changed = Changed::default();
        if expired {
            // Only the difference: a credit may have lowered the counter since the expiry.
            let (_, unused) = held.split_at(&within);
            self.give_back(&unused, of);
        } else {
            changed.cut = self.settle(&held, &within, of);
        }
        let counted = |kind: &Kind| self.plan.counted().iter().any(|limit| limit.kind() == kind);
        let charged = within.iter().chain(beyond.iter().filter(|(kind, _)| counted(kind)));
        let charged = charged.map(|(kind, amount)| (kind.clone(), amount)).collect::<Amounts>().positive();
        self.rare().reservations.charge(reservation, charged);
        if !beyond.is_empty() {
            changed.add(self.record(&beyond, now));
        }
        (result, changed)
    }

    /// Returns an amount of a commit that a counter cannot take in full, if there is one; `held` is the part of the estimate
    /// that the counters of the reservation hold.
    fn too_large(&mut self, estimate: &Amounts, held: &Amounts, actual: &Amounts, now: Now) -> Option<u64> {
        let used = estimate.overridden_by(actual);
        let (_, beyond) = used.split_at(held);
        if beyond.is_empty() {
            return None;
        }
        self.advance_counters(None, now.wall); // as the record of that part
        self.counted().find_map(|(counter, limit)| limit.too_large(counter.taken(), &used, &beyond))
    }

    /// Returns the amounts that an open reservation takes once it is committed with these `actual` amounts: those within
    /// its estimate, and those beyond it.
    pub(crate) fn committed(&self, reservation: NonZeroU64, actual: &Amounts) -> (Amounts, Amounts) {
        let reserved = self.rare.as_ref().and_then(|rare| rare.reservations.amounts(reservation));
        reserved.map(|reserved| reserved.overridden_by(actual).split_at(reserved)).unwrap_or_default()
    }

    /// Returns or charges the amounts of a reservation that has expired.
    pub(super) fn lapse(&mut self, reserved: &ReservationState, settings: &AccountSettings) {
        let used = if settings.charge_expired { reserved.amounts.clone() } else { Amounts::new() };
        let cut = self.settle(&reserved.amounts, &used, &reserved.scope);
        debug_assert!(cut.is_none(), "no counter grows by what it had reserved");
    }
}
