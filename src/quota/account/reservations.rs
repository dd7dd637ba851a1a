//! Reservations: amounts that are set aside until the work has ended.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use super::ChargeScope;
use crate::{quota::Amounts, time::Moment};

/// Open reservations of one client, and closed ones that can still be found by their id.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservations {
    all: BTreeMap<NonZeroU64, ReservationState>,
    /// Time before which no reservation expires or is forgotten.
    stable_until: Option<Moment>,
}

/// A reservation and its state.
#[derive(Clone, Debug)]
pub(super) struct ReservationState {
    pub(super) scope: ChargeScope,
    pub(super) amounts: Amounts,
    expires: Moment,
    stage: Stage,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseResult {
    /// It was open and is closed now.
    Closed,
    /// It had expired.
    Expired,
    /// It was closed before, in this stage.
    AlreadyClosed(Stage),
    /// No reservation with this id is known.
    Unknown,
}

/// Time for which a closed reservation is remembered, as a multiple of the time for which it may be open.
const REMEMBERED: u32 = 2;

impl Reservations {
    pub(super) fn open(&mut self, id: NonZeroU64, scope: ChargeScope, amounts: Amounts, expires: Moment) {
        self.all.insert(id, ReservationState { scope, amounts, expires, stage: Stage::Open });
        self.stable_until = Some(self.stable_until.map_or(expires, |due| due.min(expires)));
    }

    /// Closes a reservation as `stage`, once, and returns it as it was. With `forget` its id is unknown afterwards.
    pub(super) fn close(
        &mut self,
        id: NonZeroU64,
        stage: Stage,
        forget: bool,
    ) -> (CloseResult, Option<ReservationState>) {
        let Some(reserved) = self.all.get_mut(&id) else { return (CloseResult::Unknown, None) };
        let result = match reserved.stage {
            Stage::Open => CloseResult::Closed,
            Stage::Expired if stage == Stage::Committed => CloseResult::Expired,
            before => CloseResult::AlreadyClosed(before),
        };
        let closed = (!matches!(result, CloseResult::AlreadyClosed(_))).then(|| {
            let closed = reserved.clone();
            (reserved.stage, reserved.amounts) = (stage, Amounts::new());
            closed
        });
        if forget {
            self.all.remove(&id);
        }
        (result, closed)
    }

    /// Expires the reservations whose time has run out, and forgets those that were closed long ago.
    pub(super) fn expire(&mut self, now: Moment, ttl: Duration, mut expired: impl FnMut(&ReservationState)) {
        if self.stable_until.is_none_or(|due| now < due) {
            return;
        }
        for reserved in
            self.all.values_mut().filter(|reserved| reserved.stage == Stage::Open && now >= reserved.expires)
        {
            reserved.stage = Stage::Expired;
            expired(reserved);
        }
        let remembered = ttl.saturating_mul(REMEMBERED);
        let due = |reserved: &ReservationState| match reserved.stage {
            Stage::Open => reserved.expires,
            _ => reserved.expires + remembered,
        };
        self.all.retain(|_, reserved| now < due(reserved));
        self.stable_until = self.all.values().map(due).min();
    }

    /// Extends an open reservation.
    pub(super) fn renew(&mut self, id: NonZeroU64, now: Moment, ttl: Duration) {
        if let Some(reserved) = self.all.get_mut(&id).filter(|reserved| reserved.stage == Stage::Open) {
            reserved.expires = reserved.expires.max(now + ttl);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
