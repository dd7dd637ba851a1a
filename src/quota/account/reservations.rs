//! Reservations: amounts that are set aside until the work has ended.

use std::{num::NonZeroU64, time::Duration};

use super::{
    ChargeScope,
    due_map::{DueMap, STEPS},
};
use crate::{quota::Amounts, time::Moment};

/// Open reservations of one client, and closed ones that can still be found by their id.
///
/// A call visits only those that are due, at most [`STEPS`] of them, and each one once for each of its two changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservations {
    /// Open reservations, due when they expire.
    open: DueMap<NonZeroU64, ReservationState>,
    /// Closed and expired reservations, due when they are forgotten. One that expired while a holder will close it is
    /// not due before.
    closed: DueMap<NonZeroU64, ClosedReservation>,
}

/// An open reservation.
#[derive(Clone, Debug)]
pub(super) struct ReservationState {
    pub(super) scope: ChargeScope,
    /// The estimate.
    pub(super) amounts: Amounts,
    /// Time of its expiry; `None` if its holder closes it in any case.
    expires: Option<Moment>,
    /// Set while a holder will close it, so that it is not forgotten after its expiry.
    held: bool,
}

#[derive(Clone, Debug)]
struct ClosedReservation {
    stage: Stage,
    /// As it was while it was open. Its amounts are the estimate if it has expired; otherwise those that were charged.
    state: ReservationState,
}

/// State of a reservation that is not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Committed,
    RolledBack,
    Expired,
}

/// Origin of a call that closes a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClosedBy {
    /// Its holder, which receives no result: its id is unknown afterwards, and a part that no counter takes is cut.
    Holder,
    /// A caller by its id, under which it is remembered. An amount that a counter cannot take in full is refused.
    Id,
}

/// Result of closing a reservation by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CloseResult {
    /// It was open and is closed now.
    Closed,
    /// It had expired.
    Expired,
    /// A counter cannot take this committed amount in full. Nothing has changed.
    TooLarge(u64),
    /// It was closed before, in this stage; a commit charged these amounts, without those of 0.
    AlreadyClosed(Stage, Amounts),
    /// No reservation with this id is known.
    Unknown,
}

/// Time for which a closed reservation is remembered, as a multiple of the time for which it may be open.
const REMEMBERED: u32 = 2;

/// Greatest number of closed reservations that are remembered. Beyond it, those that would be forgotten first are.
pub(crate) const MOST_REMEMBERED: usize = 1 << 16;

impl Reservations {
    /// Opens a reservation, which is held until it is [detached](Self::detach). One without an expiry is closed by its
    /// holder in any case.
    pub(super) fn open(&mut self, id: NonZeroU64, scope: ChargeScope, amounts: Amounts, expires: Option<Moment>) {
        self.open.insert(id, expires, ReservationState { scope, amounts, expires, held: true });
    }

    /// Ends the hold on a reservation, which stays open until it is closed by its id or expires.
    pub(super) fn detach(&mut self, id: NonZeroU64, ttl: Duration) {
        if let Some(reserved) = self.open.get_mut(id) {
            reserved.held = false;
        } else if let Some(closed) = self.closed.get(id).filter(|closed| closed.stage == Stage::Expired) {
            let due = closed.forgotten_at(ttl);
            self.closed.set_due(id, Some(due));
            forget_beyond(&mut self.closed);
        }
    }

    /// Returns the estimate of a reservation that can be committed, and whether it has expired.
    pub(super) fn to_commit(&self, id: NonZeroU64) -> Option<(&Amounts, bool)> {
        let expired = || self.closed.get(id).filter(|closed| closed.stage == Stage::Expired);
        let open = self.open.get(id).map(|open| (&open.amounts, false));
        open.or_else(|| expired().map(|closed| (&closed.state.amounts, true)))
    }

    /// Closes a reservation as `stage`, once, and returns it as it was; [`charge`](Self::charge) then stores what it
    /// charged. With `forget` its id is unknown afterwards.
    pub(super) fn close(
        &mut self,
        id: NonZeroU64,
        stage: Stage,
        forget: bool,
        ttl: Duration,
    ) -> (CloseResult, Option<ReservationState>) {
        if let Some(open) = self.open.remove(id) {
            if !forget {
                let state = ReservationState { amounts: Amounts::new(), scope: open.scope.clone(), ..open };
                let closed = ClosedReservation { stage, state };
                self.closed.insert(id, Some(closed.forgotten_at(ttl)), closed);
                forget_beyond(&mut self.closed);
            }
            return (CloseResult::Closed, Some(open));
        }
        let Some(closed) = self.closed.get_mut(id) else { return (CloseResult::Unknown, None) };
        let result = match closed.stage {
            Stage::Expired if stage == Stage::Committed => CloseResult::Expired,
            Stage::Committed => CloseResult::AlreadyClosed(Stage::Committed, closed.state.amounts.clone()),
            before => CloseResult::AlreadyClosed(before, Amounts::new()),
        };
        let late = (result == CloseResult::Expired).then(|| {
            closed.stage = stage;
            let amounts = std::mem::take(&mut closed.state.amounts);
            ReservationState { amounts, scope: closed.state.scope.clone(), ..closed.state }
        });
        if forget {
            self.closed.remove(id);
        }
        (result, late)
    }

    /// Stores the amounts that the commit of a reservation charged.
    pub(super) fn charge(&mut self, id: NonZeroU64, charged: Amounts) {
        if let Some(closed) = self.closed.get_mut(id).filter(|closed| closed.stage == Stage::Committed) {
            closed.state.amounts = charged;
        }
    }

    /// Expires reservations whose time has run out, at most [`STEPS`]. Returns whether none is left.
    ///
    /// Then it forgets some that were closed long ago. The rest can wait: they change no decision, and
    /// [`expire_one`](Self::expire_one) comes before a close.
    pub(super) fn expire(&mut self, now: Moment, ttl: Duration, mut expired: impl FnMut(&ReservationState)) -> bool {
        let steps = self.open.expire(now, STEPS, |id, open| {
            expired(&open);
            add_expired(&mut self.closed, id, open, ttl);
        });
        if self.open.has_due(now) {
            return false;
        }
        self.closed.expire(now, STEPS - steps, |_, _| {});
        true
    }

    /// Brings one reservation up to `now`, whatever others are due: expires it, or forgets it.
    pub(super) fn expire_one(
        &mut self,
        id: NonZeroU64,
        now: Moment,
        ttl: Duration,
        expired: impl FnOnce(&ReservationState),
    ) {
        if let Some(open) = self.open.remove_due(id, now) {
            expired(&open);
            add_expired(&mut self.closed, id, open, ttl);
        }
        self.closed.remove_due(id, now);
    }

    /// Returns the number of open reservations that can expire.
    pub(super) fn expiring(&self) -> usize {
        self.open.len_with_due()
    }

    /// Returns the time at which the next reservation expires.
    pub(super) fn next_expiry(&self) -> Option<Moment> {
        self.open.next_due()
    }

    /// Returns the amounts of a reservation: of an open or expired one the estimate.
    pub(super) fn amounts(&self, id: NonZeroU64) -> Option<&Amounts> {
        let closed = || self.closed.get(id).map(|closed| &closed.state);
        self.open.get(id).or_else(closed).map(|state| &state.amounts)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.closed.is_empty()
    }
}

impl ClosedReservation {
    /// Returns the time at which it is forgotten.
    fn forgotten_at(&self, ttl: Duration) -> Moment {
        self.state.expires.map_or(Moment::MAX, |expires| expires + ttl.saturating_mul(REMEMBERED))
    }
}

/// Adds a reservation that has just expired.
fn add_expired(to: &mut DueMap<NonZeroU64, ClosedReservation>, id: NonZeroU64, state: ReservationState, ttl: Duration) {
    let expired = ClosedReservation { stage: Stage::Expired, state };
    let due = (!expired.state.held).then(|| expired.forgotten_at(ttl));
    to.insert(id, due, expired);
    forget_beyond(to);
}

/// Forgets a reservation if more than [`MOST_REMEMBERED`] can be forgotten.
fn forget_beyond(closed: &mut DueMap<NonZeroU64, ClosedReservation>) {
    if closed.len_with_due() > MOST_REMEMBERED {
        closed.pop_first();
    }
}
