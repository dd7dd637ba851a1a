//! What is asked of the ledger, and what it answers.

use std::sync::Arc;

use super::{AdmittedAt, Key};
use crate::{
    error::ConfigError,
    quota::{
        Amounts, GrantId, Plan, Usage,
        account::{GrantState, Nearest, Warning},
    },
    refusal::Violation,
};

/// Something to be decided and written.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// Whose account, and under which id its rows are written.
    pub(crate) key: Key,
    /// No other order has it: a writer that never heard of its commit knows its own rows by it.
    pub(crate) id: u128,
    /// The id of the job was made for this order: nobody else can have it.
    pub(crate) own: bool,
    /// Whose it is, of those who share a writer.
    pub(crate) origin: u32,
    pub(crate) kind: CommandKind,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub(crate) enum CommandKind {
    Admit(AdmitCommand),
    Settle(SettleCommand),
    /// Notes what was let pass while nobody could be asked.
    Spooled(SpooledCharge),
    /// Settles what another order admitted or let pass: the attempt is that of its rows.
    SettleOf {
        of: u128,
        settle: SettleCommand,
    },
    /// Notes what was used, whether there was room for it or not.
    Record {
        plan: Arc<Plan>,
        amounts: Amounts,
    },
    /// The time of a reservation has run out: it is charged as it was estimated, or goes back.
    Expire {
        attempt: u32,
        since: u64,
        charge: bool,
    },
    /// Puts off the end of a reservation.
    Renew {
        attempt: u32,
        since: u64,
        ttl: u64,
    },
    /// Counts the limits of this name or kind, or all, from zero.
    Reset {
        plan: Arc<Plan>,
        limit: Option<Box<str>>,
    },
    Grant {
        plan: Arc<Plan>,
        grant: Box<GrantState>,
    },
    Revoke {
        grant: u64,
    },
}

/// Takes everything, or nothing.
#[derive(Clone, Debug)]
pub(crate) struct AdmitCommand {
    pub(crate) plan: Arc<Plan>,
    pub(crate) amounts: Amounts,
    /// What the job is about: the same id with something else is no duplicate but a mistake.
    pub(crate) fingerprint: Option<u128>,
    /// Sets the amounts aside instead of charging them.
    pub(crate) reserve: Option<ReservationTerms>,
    /// Whether somebody will tell of the limit that is nearest to its end, and of what is used of all.
    pub(crate) told: bool,
    pub(crate) usage: bool,
}

/// What was let pass while nobody could be asked: it is charged whether there is room for it or not.
#[derive(Clone, Debug)]
pub(crate) struct SpooledCharge {
    pub(crate) plan: Arc<Plan>,
    pub(crate) amounts: Amounts,
    pub(crate) fingerprint: Option<u128>,
    pub(crate) reserve: Option<ReservationTerms>,
    /// By the clock of whoever let it pass, in nanoseconds since 1970.
    pub(crate) at: u64,
}

/// For how long something is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReservationTerms {
    /// In nanoseconds.
    pub(crate) ttl: u64,
    /// It is charged as it was estimated when its time runs out, and does not go back.
    pub(crate) charge: bool,
}

/// Ends what was admitted, or adds to it.
#[derive(Clone, Debug)]
pub(crate) struct SettleCommand {
    pub(crate) plan: Arc<Plan>,
    pub(crate) attempt: u32,
    pub(crate) since: AdmittedAt,
    pub(crate) end: SettleKind,
    /// What was used besides what was charged or set aside.
    pub(crate) used: Amounts,
    /// Which addition of the attempt it is.
    pub(crate) part: u32,
}

/// How a charge goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SettleKind {
    /// As it was: what was set aside stays set aside.
    Add,
    /// What was set aside is used: so much of it; of what is not named, as much as was estimated.
    Commit(Amounts),
    /// It came to nothing: everything goes back.
    Void,
}

/// What has become of an order.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Admitted(Box<AdmitReply>),
    /// The job was charged before, with these amounts; `running` where its work is under way in this process.
    Replay {
        #[cfg_attr(not(test), expect(dead_code, reason = "whoever wants to know asks for the job by its id"))]
        amounts: Amounts,
        running: bool,
    },
    /// Another job has this id.
    Conflict,
    /// Nobody knows any more whether a job of this id was charged.
    Stale,
    Refused(Vec<Violation>),
    /// How what was to be settled stood before, and whom to tell.
    Settled(super::JobStatus, Vec<Warning>),
    Recorded(Vec<Warning>),
    Done,
    Granted(GrantId),
    /// Whether there was such a grant.
    Revoked(bool),
    Invalid(ConfigError),
    /// The database rejects it for good, for this reason; nothing was done.
    Rejected(Arc<str>),
    /// Nobody knows whether it was done: the same id will tell.
    Indeterminate,
    /// Nothing was done, for this reason.
    #[allow(dead_code, reason = "only its `Debug` form tells it yet")]
    Unavailable(Arc<str>),
}

/// What was taken.
#[derive(Clone, Debug)]
pub(crate) struct AdmitReply {
    pub(crate) attempt: u32,
    pub(crate) since: AdmittedAt,
    pub(crate) nearest: Option<Nearest>,
    pub(crate) near: Vec<Warning>,
    pub(crate) untold: Vec<Warning>,
    pub(crate) usage: Option<Usage>,
}

impl AdmitReply {
    /// What passed at a time, in nanoseconds since 1970, and nobody was asked.
    pub(crate) fn blind(at: u64) -> Self {
        let since = AdmittedAt { at, epoch: u32::MAX };
        Self { attempt: 0, since, nearest: None, near: Vec::new(), untold: Vec::new(), usage: None }
    }
}
