//! Requests to an account, its settings, and its replies.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use super::jobs::{Duplicate, Job};
use crate::{quota::Amounts, refusal::Violation, sync::Lease, time::Moment};

/// The time on both clocks: leases and reservations go by the one that never steps, periods by the one on the wall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) moment: Moment,
    /// Nanoseconds since 1970.
    pub(crate) wall: u64,
}

/// Settings of all accounts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct AccountSettings {
    /// Time for which a slot may be held, in all and without progress.
    pub(crate) max_hold: Duration,
    pub(crate) max_stall: Duration,
    /// Time for which a reservation may be open.
    pub(crate) ttl: Duration,
    /// Whether a reservation whose time has run out is charged as it was estimated, or given back.
    pub(crate) charge_expired: bool,
    /// Time for which a finished job is remembered, and number of jobs of one client.
    pub(crate) job_horizon: Duration,
    pub(crate) max_jobs: usize,
}

/// Charge that is asked of an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChargeRequest<'a> {
    pub(crate) amounts: &'a Amounts,
    /// The same for each counted limit of the plan, if the caller has computed it; else empty.
    pub(crate) each: &'a [Option<u64>],
    /// Sets the amounts aside instead of charging them.
    pub(crate) reserve: bool,
    /// Set if its caller settles it in any case, so that it does not expire.
    pub(crate) lasting: bool,
    /// More is to come: the account is kept until the charge is settled.
    pub(crate) open: bool,
    pub(crate) job: Option<&'a Arc<Job>>,
}

/// A charge that was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) epoch: u32,
    pub(crate) lease: Option<Lease>,
    /// The reservation, where one was asked for.
    pub(crate) reservation: Option<NonZeroU64>,
    /// Another's slot was taken back for it.
    pub(crate) reclaimed: bool,
    pub(crate) marks: Marks,
}

/// Limits to report, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Those at which the client has just come where it is to be warned.
    pub(crate) warned: u64,
    /// Those of which a response must tell.
    pub(crate) pending: u64,
}

impl Marks {
    /// Whether there is nothing to say.
    pub(crate) const fn are_none(self) -> bool {
        self.warned | self.pending == 0
    }
}

/// Why nothing was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    Limits(Vec<Violation>),
    Job(Duplicate),
}
