//! Reservations: what is set aside until it is known what was really used.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use crate::{quota::Amounts, time::Moment};

/// The open reservations of one client, and the closed ones that can still be asked for by their id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations {
    all: BTreeMap<NonZeroU64, OpenReservation>,
    /// Nothing is due before this moment.
    quiet_until: Option<Moment>,
}

/// What was set aside, and when.
#[derive(Clone, Debug)]
pub(crate) struct OpenReservation {
    pub(crate) epoch: u32,
    pub(crate) amounts: Amounts,
    expires: Moment,
    stage: Stage,
}

/// How a reservation ended; `Open` while it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    Committed,
    RolledBack,
    Expired,
}

/// Whether a reservation did end by what was asked.
#[derive(Clone, Debug)]
pub(crate) enum Closed {
    /// It was open, and has now ended.
    Now(OpenReservation),
    /// Its time had run out.
    TooLate(OpenReservation),
    /// It had ended before, in this way.
    Before(Stage),
    /// Nobody remembers it.
    Unknown,
}

/// Closed reservations are remembered for so many times as long as they could be open.
const REMEMBERED: u32 = 2;

impl Reservations {
    pub(super) fn open(&mut self, id: NonZeroU64, epoch: u32, amounts: Amounts, expires: Moment) {
        self.all.insert(id, OpenReservation { epoch, amounts, expires, stage: Stage::Open });
        self.quiet_until = Some(self.quiet_until.map_or(expires, |due| due.min(expires)));
    }

    /// Closes one as `stage`, once. One that nobody can ask for again is `forgotten` at once.
    pub(super) fn close(&mut self, id: NonZeroU64, stage: Stage, forget: bool) -> Closed {
        let Some(hold) = self.all.get_mut(&id) else { return Closed::Unknown };
        let before = hold.stage;
        let answer = match before {
            Stage::Open => Closed::Now(hold.clone()),
            Stage::Expired if stage == Stage::Committed => Closed::TooLate(hold.clone()),
            _ => Closed::Before(before),
        };
        if matches!(answer, Closed::Now(_) | Closed::TooLate(_)) {
            hold.stage = stage;
            hold.amounts = Amounts::new();
        }
        if forget {
            self.all.remove(&id);
        }
        answer
    }

    /// Those whose time ran out, and forgets those that were closed long ago.
    pub(super) fn expire(&mut self, now: Moment, ttl: Duration, mut expired: impl FnMut(&OpenReservation)) {
        if self.quiet_until.is_none_or(|due| now < due) {
            return;
        }
        let remembered = ttl.saturating_mul(REMEMBERED);
        for hold in self.all.values_mut().filter(|hold| hold.stage == Stage::Open && now >= hold.expires) {
            hold.stage = Stage::Expired;
            expired(hold);
        }
        self.all.retain(|_, hold| hold.stage == Stage::Open || now < hold.expires + remembered);
        let due =
            |hold: &OpenReservation| if hold.stage == Stage::Open { hold.expires } else { hold.expires + remembered };
        self.quiet_until = self.all.values().map(due).min();
    }

    /// Puts off the end of an open one.
    pub(super) fn renew(&mut self, id: NonZeroU64, now: Moment, ttl: Duration) {
        if let Some(hold) = self.all.get_mut(&id).filter(|hold| hold.stage == Stage::Open) {
            hold.expires = hold.expires.max(now + ttl);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}
