//! Reservations: amounts that are set aside until the work has ended.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    time::Duration,
};

use super::ChargeScope;
use crate::{quota::Amounts, time::Moment};

/// Open reservations of one client, and closed ones that can still be found by their id.
///
/// Those that time changes are in order of their times, so that a call visits only those that are due, at most
/// [`STEPS`] of them, and each one once for each of its two changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservations {
    all: BTreeMap<NonZeroU64, ReservationState>,
    /// Open reservations that can expire, by the time at which they do.
    expiring: BTreeSet<(Moment, NonZeroU64)>,
    /// Closed reservations, by the time at which they are forgotten.
    closed: BTreeSet<(Moment, NonZeroU64)>,
}

/// A reservation and its state.
#[derive(Clone, Debug)]
pub(super) struct ReservationState {
    pub(super) scope: ChargeScope,
    /// The estimate while it is open or expired; afterwards what was charged.
    pub(super) amounts: Amounts,
    /// Time of its expiry; `None` if its holder closes it in any case.
    expires: Option<Moment>,
    stage: Stage,
    /// Set while a holder will close it, so that it is not forgotten after its expiry.
    held: bool,
}

/// State of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    Committed,
    RolledBack,
    Expired,
}

/// Result of closing a reservation by its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CloseResult {
    /// It was open and is closed now.
    Closed,
    /// It had expired.
    Expired,
    /// It was closed before, in this stage; a commit charged these amounts, without those of 0.
    AlreadyClosed(Stage, Amounts),
    /// No reservation with this id is known.
    Unknown,
}

/// Greatest number of reservations that one call expires or forgets, so that no lock is held long.
pub(crate) const STEPS: usize = 64;

/// Time for which a closed reservation is remembered, as a multiple of the time for which it may be open.
const REMEMBERED: u32 = 2;

/// Greatest number of closed reservations that are remembered. Beyond it, those that would be forgotten first are.
pub(crate) const MOST_REMEMBERED: usize = 1 << 16;

impl Reservations {
    /// Opens a reservation, which is held until it is [detached](Self::detach). One without an expiry is closed by its
    /// holder in any case.
    pub(super) fn open(&mut self, id: NonZeroU64, scope: ChargeScope, amounts: Amounts, expires: Option<Moment>) {
        self.all.insert(id, ReservationState { scope, amounts, expires, stage: Stage::Open, held: true });
        self.expiring.extend(expires.map(|expires| (expires, id)));
    }

    /// Ends the hold on a reservation, which stays open until it is closed by its id or expires.
    pub(super) fn detach(&mut self, id: NonZeroU64, ttl: Duration) {
        let Some(reserved) = self.all.get_mut(&id) else { return };
        reserved.held = false;
        if reserved.stage == Stage::Expired {
            let expires = reserved.expires;
            self.remember(id, expires, ttl);
        }
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
        let Some(reserved) = self.all.get_mut(&id) else { return (CloseResult::Unknown, None) };
        let before = reserved.stage;
        let result = match before {
            Stage::Open => CloseResult::Closed,
            Stage::Expired if stage == Stage::Committed => CloseResult::Expired,
            Stage::Committed => CloseResult::AlreadyClosed(Stage::Committed, reserved.amounts.clone()),
            before => CloseResult::AlreadyClosed(before, Amounts::new()),
        };
        let closed = (!matches!(result, CloseResult::AlreadyClosed(..))).then(|| {
            let closed = reserved.clone();
            (reserved.stage, reserved.amounts) = (stage, Amounts::new());
            closed
        });
        let (expires, was_open) = (reserved.expires, before == Stage::Open);
        if was_open {
            self.take_place(id, expires);
        }
        if forget {
            self.all.remove(&id);
            self.closed.remove(&(forgotten_at(expires, ttl), id));
        } else if was_open {
            self.remember(id, expires, ttl);
        }
        (result, closed)
    }

    /// Stores the amounts that the commit of a reservation charged.
    pub(super) fn charge(&mut self, id: NonZeroU64, charged: Amounts) {
        if let Some(reserved) = self.all.get_mut(&id).filter(|reserved| reserved.stage == Stage::Committed) {
            reserved.amounts = charged;
        }
    }

    /// Expires reservations whose time has run out, at most [`STEPS`]. Returns whether none is left.
    ///
    /// Then it forgets some that were closed long ago. The rest can wait: they change no decision, and
    /// [`expire_one`](Self::expire_one) comes before a close.
    pub(super) fn expire(&mut self, now: Moment, ttl: Duration, mut expired: impl FnMut(&ReservationState)) -> bool {
        let mut steps = 0..STEPS;
        while let Some(&(due, id)) = self.expiring.first().filter(|(due, _)| now >= *due) {
            if steps.next().is_none() {
                return false;
            }
            self.expire_at(due, id, ttl, &mut expired);
        }
        while self.closed.first().is_some_and(|(due, _)| now >= *due) && steps.next().is_some() {
            self.forget_first();
        }
        true
    }

    /// Brings one reservation up to `now`, whatever others are due: expires it, or forgets it.
    pub(super) fn expire_one(
        &mut self,
        id: NonZeroU64,
        now: Moment,
        ttl: Duration,
        mut expired: impl FnMut(&ReservationState),
    ) {
        let Some(reserved) = self.all.get(&id) else { return };
        let (expires, stage) = (reserved.expires, reserved.stage);
        if let (Stage::Open, Some(due)) = (stage, expires)
            && now >= due
        {
            self.expire_at(due, id, ttl, &mut expired);
        }
        let due = forgotten_at(expires, ttl);
        if now >= due && self.closed.remove(&(due, id)) {
            self.all.remove(&id);
        }
    }

    fn expire_at(&mut self, due: Moment, id: NonZeroU64, ttl: Duration, expired: &mut impl FnMut(&ReservationState)) {
        self.take_place(id, Some(due));
        if let Some(reserved) = self.all.get_mut(&id) {
            reserved.stage = Stage::Expired;
            expired(reserved);
            if !reserved.held {
                self.remember(id, Some(due), ttl);
            }
        }
    }

    /// Removes a reservation from those that can expire.
    fn take_place(&mut self, id: NonZeroU64, expires: Option<Moment>) {
        if let Some(expires) = expires {
            self.expiring.remove(&(expires, id));
        }
    }

    /// Remembers a reservation that has just been closed or has expired.
    fn remember(&mut self, id: NonZeroU64, expires: Option<Moment>, ttl: Duration) {
        self.closed.insert((forgotten_at(expires, ttl), id));
        if self.closed.len() > MOST_REMEMBERED {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, id)) = self.closed.pop_first() {
            self.all.remove(&id);
        }
    }

    /// Returns the number of open reservations that can expire.
    pub(super) fn expiring(&self) -> usize {
        self.expiring.len()
    }

    /// Returns the time at which the next reservation expires.
    pub(super) fn next_expiry(&self) -> Option<Moment> {
        self.expiring.first().map(|(due, _)| *due)
    }

    /// Returns the amounts of a reservation that is not closed.
    pub(super) fn amounts(&self, id: NonZeroU64) -> Option<&Amounts> {
        self.all.get(&id).map(|reserved| &reserved.amounts)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// Returns the time at which a closed reservation is forgotten.
fn forgotten_at(expires: Option<Moment>, ttl: Duration) -> Moment {
    expires.map_or(Moment::MAX, |expires| expires + ttl.saturating_mul(REMEMBERED))
}
