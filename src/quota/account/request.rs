//! Requests to an account, its settings, and its replies.

use std::{num::NonZeroU64, sync::Arc, time::Duration};

use super::jobs::{Duplicate, Job};
use crate::{
    quota::{Amounts, Plan},
    refusal::Violation,
    sync::Lease,
    time::Moment,
};

/// The time on both clocks: leases and reservations use the monotonic one, periods the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) moment: Moment,
    /// Nanoseconds since 1970.
    pub(crate) wall: u64,
}

/// Settings of all accounts of a layer.
#[derive(Clone, Debug)]
pub(crate) struct AccountSettings {
    /// Greatest time for which a slot may be held, in all and without progress.
    pub(crate) max_hold: Duration,
    pub(crate) max_stall: Duration,
    /// Time for which a reservation may be open.
    pub(crate) ttl: Duration,
    /// Whether an expired reservation is charged as estimated; otherwise it is returned.
    pub(crate) charge_expired: bool,
    /// Greatest number of open reservations of one client that can expire.
    pub(crate) max_reservations: usize,
    /// Time for which a finished job is remembered, and greatest number of jobs of one client.
    pub(crate) job_horizon: Duration,
    pub(crate) max_jobs: usize,
}

/// Request to charge an account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChargeRequest<'a> {
    pub(crate) amounts: &'a Amounts,
    /// The amounts by counted limit of the plan, if the caller has computed them; else empty.
    pub(crate) each: &'a [Option<u64>],
    /// Reserves the amounts instead of charging them.
    pub(crate) reserve: bool,
    /// Set if the caller settles the charge in any case, so that it does not expire.
    pub(crate) lasting: bool,
    /// Set if usage will follow: the account must stay until the charge is settled.
    pub(crate) open: bool,
    pub(crate) job: Option<&'a Arc<Job>>,
}

/// The counters that a charge is part of: those of the limits of its plan, up to its epoch.
///
/// It has the plan itself, so that an account need not know the plans of charges that are not settled.
#[derive(Clone, Debug)]
pub(crate) struct ChargeScope {
    pub(crate) epoch: u64,
    pub(crate) plan: Arc<Plan>,
}

/// An admitted charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Epoch of the account.
    pub(crate) epoch: u64,
    pub(crate) lease: Option<Lease>,
    /// The reservation, if one was requested.
    pub(crate) reservation: Option<NonZeroU64>,
    /// Set if an overdue slot was reclaimed for it.
    pub(crate) reclaimed: bool,
    pub(crate) marks: Marks,
}

/// Limits to report, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Limits whose warning threshold the client has just reached.
    pub(crate) warned: u64,
    /// Limits whose warning a response must report.
    pub(crate) pending: u64,
}

impl Marks {
    /// Whether no limit is marked.
    pub(crate) const fn are_none(self) -> bool {
        self.warned | self.pending == 0
    }
}

/// Reason why nothing was charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denial {
    Limits(Vec<Violation>),
    Job(Duplicate),
    /// The client has the greatest number of open reservations. After this time there is a place for another.
    Reservations(Duration),
}
