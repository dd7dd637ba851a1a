//! An account as a store keeps it between two decisions.

use std::sync::Arc;

use super::{Account, counter::Counter, grants::Grants};
use crate::quota::{Limit, Plan};

/// One count of a limit, in one of its periods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) limit: Arc<str>,
    pub(crate) kind: Arc<str>,
    /// The period, in nanoseconds since 1970.
    pub(crate) starts: u64,
    pub(crate) ends: u64,
    /// How often the account had counted something anew when this began.
    pub(crate) epoch: u32,
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    /// The client was warned; a response must still tell of it.
    pub(crate) warned: bool,
    pub(crate) untold: bool,
}

/// A grant, and what it has paid for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GrantState {
    pub(crate) id: u64,
    pub(crate) limit: Arc<str>,
    pub(crate) kind: Arc<str>,
    pub(crate) amount: u64,
    /// Nanoseconds since 1970.
    pub(crate) until: u64,
    pub(crate) approver: String,
    pub(crate) reason: String,
    /// Used up in periods that are over, and in the one that starts at `window` with `epoch`.
    pub(crate) before: u64,
    pub(crate) current: u64,
    pub(crate) window: u64,
    pub(crate) epoch: u32,
    pub(crate) ended: bool,
}

impl Count {
    /// Whether it counts what `limit` counts.
    pub(crate) fn is_of(&self, limit: &Limit) -> bool {
        *self.limit == *limit.name.as_str() && *self.kind == *limit.kind().as_str()
    }

    /// Whether its period is under way: a clock that has stepped back a little finds it so too.
    pub(crate) fn is_present(&self, wall: u64) -> bool {
        !self.counter().is_over(wall)
    }

    pub(crate) fn counter(&self) -> Counter {
        Counter {
            starts: self.starts,
            ends: self.ends,
            used: self.used,
            reserved: self.reserved,
            born: self.epoch,
            warned: self.warned,
            untold: self.untold,
        }
    }

    pub(crate) fn of(limit: &Limit, counter: &Counter) -> Self {
        Self {
            limit: limit.name.text(),
            kind: limit.kind().as_str().into(),
            starts: counter.starts,
            ends: counter.ends,
            epoch: counter.born,
            used: counter.used,
            reserved: counter.reserved,
            warned: counter.warned,
            untold: counter.untold,
        }
    }
}

impl Account {
    /// The account with these counts, one for each counted limit of the plan, and these grants.
    pub(crate) fn restored(plan: &Arc<Plan>, counters: Box<[Counter]>, grants: Grants, turn: u32) -> Self {
        let mut account = Self::new(plan);
        (account.counts.counters, account.counts.grants, account.counts.turn) = (counters, grants, turn);
        account
    }
}
