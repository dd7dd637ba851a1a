//! Commands to the ledger, and its replies.

use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};

use super::{AdmittedAt, JobStatus, Key};
use crate::{
    error::ConfigError,
    quota::{
        Amounts, CreditRequest, Credited, GrantId, JobOutcome, JobState, Plan, Usage,
        account::{Cut, Duplicate, GrantState, Nearest, Warning},
    },
    refusal::Violation,
};

/// A request to read or change one account.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// Account, and the job id under which the rows of the command are stored.
    pub(crate) key: Key,
    /// Unique id. By it a writer whose commit went unanswered recognizes its own rows.
    pub(crate) id: u128,
    /// Set if the job id was generated for this command, so that no other command can have it.
    pub(crate) own: bool,
    /// Number of the layer that sent it, among those that share a writer.
    pub(crate) origin: u32,
    pub(crate) kind: CommandKind,
}

/// Operation of a [`Command`].
#[derive(Clone, Debug)]
pub(crate) enum CommandKind {
    Admit(AdmitCommand),
    Settle(SettleCommand),
    /// Charges the amounts that the fallback admitted at `at`, even beyond a limit.
    Spooled {
        admit: AdmitCommand,
        /// By the clock of the process that admitted it, in nanoseconds since 1970.
        at: u64,
    },
    /// Settles what the command `of` admitted or the fallback admitted under that id; the attempt is read from its
    /// rows.
    SettleOf {
        of: u128,
        settle: SettleCommand,
    },
    /// Settles an attempt of a named job whose outcome is unknown.
    SettleJob {
        plan: Arc<Plan>,
        attempt: u32,
        since: u64,
        outcome: JobOutcome,
        /// Set by the writer if the work is under way in this process: nothing is settled then.
        running: bool,
    },
    /// Charges usage after the fact, even beyond a limit.
    Record {
        plan: Arc<Plan>,
        amounts: Amounts,
    },
    /// Ends an overdue reservation: charges the estimate if `charge`, returns it otherwise.
    Expire {
        attempt: u32,
        since: u64,
        charge: bool,
    },
    /// Postpones the deadline of a reservation.
    Renew {
        attempt: u32,
        since: u64,
        ttl: u64,
    },
    /// Ends a reservation by the terms of its expiry, because the database has rejected its settlement. It is due at
    /// once. The attempt is read from the rows of the command `of`, if there is one.
    Lapse {
        of: Option<u128>,
        attempt: u32,
        since: u64,
    },
    /// Restarts the counters of the limits of this name or kind, or of all, from zero.
    Reset {
        plan: Arc<Plan>,
        limit: Option<Box<str>>,
    },
    /// Gives back an amount that was used. The job id of the key is that of the credit, so that it is written once.
    Credit {
        plan: Arc<Plan>,
        request: Box<CreditRequest>,
    },
    Grant {
        plan: Arc<Plan>,
        grant: Box<GrantState>,
    },
    Revoke {
        grant: u64,
    },
    /// Shows that the ledger decides: reads no account and changes nothing.
    Probe,
}

/// A charge: takes all amounts or none.
#[derive(Clone, Debug)]
pub(crate) struct AdmitCommand {
    pub(crate) plan: Arc<Plan>,
    pub(crate) amounts: Amounts,
    /// Digest of the job's content. The same job id with other content is a conflict, not a duplicate.
    pub(crate) fingerprint: Option<u128>,
    /// Tier of the client, empty for none; `None` if it is unknown.
    pub(crate) tier: Option<Arc<str>>,
    /// Reserves the amounts instead of charging them.
    pub(crate) reserve: Option<ReservationTerms>,
    /// Longest time of the work of a named job, in nanoseconds; 0 if it is no longer under way. `None` for other charges.
    pub(crate) job_lease: Option<u64>,
    /// Set if the caller reports the limit that is nearest to exhaustion.
    pub(crate) wants_nearest: bool,
    /// Set if the caller reports the usage of all limits.
    pub(crate) usage: bool,
}

/// Deadline of a reservation, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) struct ReservationTerms {
    /// In nanoseconds.
    pub(crate) ttl: u64,
    /// Charges the estimate at the deadline instead of returning it.
    pub(crate) charge: bool,
}

/// The end of a charge, or usage added to it.
#[derive(Clone, Debug)]
pub(crate) struct SettleCommand {
    pub(crate) plan: Arc<Plan>,
    pub(crate) attempt: u32,
    pub(crate) since: AdmittedAt,
    pub(crate) end: SettleKind,
    /// End of the work of a named job; `None` if it goes on, and for other charges. A void ends it in any case.
    pub(crate) job: Option<JobEnd>,
    /// Usage beyond what was charged or reserved.
    pub(crate) used: Amounts,
    /// Number of this addition among those of the attempt.
    pub(crate) part: u32,
    /// Set if a caller waits for the result: a commit that a counter cannot take in full is refused. Otherwise it is cut.
    pub(crate) whole: bool,
}

/// Effect of a [`SettleCommand`] on its attempt.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum SettleKind {
    /// Adds usage only; a reservation stays pending.
    Add,
    /// Charges these amounts of a reservation; of kinds that are not named, the estimate.
    Commit(Amounts),
    /// Returns everything.
    Void,
}

/// End of the work of a named job that stays charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(crate) enum JobEnd {
    Done,
    /// The outcome of the work is unknown.
    Interrupted,
}

impl SettleCommand {
    /// Whether it ends the work of a named job.
    pub(super) fn ends_job(&self) -> bool {
        self.end == SettleKind::Void || self.job.is_some()
    }

    /// Returns everything that an attempt charged or reserved.
    pub(crate) fn void(plan: Arc<Plan>, attempt: u32, since: AdmittedAt) -> Self {
        Self { plan, attempt, since, end: SettleKind::Void, job: None, used: Amounts::new(), part: 0, whole: false }
    }
}

/// Result of a command.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Admitted(Box<AdmitReply>),
    /// The job was charged before: running in this process, done, or of unknown outcome.
    Replay(Duplicate),
    /// State of a job before it was settled; `None` if no job has the id.
    Job(Option<JobState>),
    /// Another job has this id.
    Conflict,
    /// The job id is older than the ledger remembers, so that it cannot tell whether the job was charged.
    Stale,
    Refused(Vec<Violation>),
    /// Status of the attempt before it was settled, and the warnings that the settlement raised.
    Settled(JobStatus, Vec<Warning>),
    Recorded(Vec<Warning>),
    /// A counter cannot take this amount of a commit in full; nothing has changed.
    TooLarge(u64),
    Done,
    Credited(Credited),
    Granted(GrantId),
    /// Whether such a grant was active.
    Revoked(bool),
    Invalid(ConfigError),
    /// The account did not exist before the batch, and the command creates none.
    UnknownAccount,
    /// The database rejects the command for good, for this reason; nothing was stored.
    Rejected(Arc<str>),
    /// The command may or may not have been stored; the same id sent again finds out.
    Indeterminate,
    /// Nothing was stored, for this reason.
    Unavailable(Arc<str>),
    /// Nothing was stored, because another transaction holds the account. Other accounts can be charged.
    Held,
}

impl Reply {
    /// Whether the ledger has decided the command.
    pub(crate) fn is_decided(&self) -> bool {
        !matches!(self, Self::Unavailable(_) | Self::Held | Self::Indeterminate)
    }
}

/// Decision on a command.
#[derive(Clone, Debug)]
pub(crate) struct Decided {
    pub(crate) reply: Reply,
    /// Parts of amounts that no counter took.
    pub(crate) cut: Cut,
}

/// An admission as stored.
#[derive(Clone, Debug)]
pub(crate) struct AdmitReply {
    pub(crate) attempt: u32,
    pub(crate) since: AdmittedAt,
    pub(crate) nearest: Option<Nearest>,
    pub(crate) near: Vec<Warning>,
    pub(crate) pending: Vec<Warning>,
    pub(crate) usage: Option<Usage>,
}

impl AdmitReply {
    /// Creates an admission of which no usage is known.
    pub(super) fn new(attempt: u32, since: AdmittedAt) -> Self {
        Self { attempt, since, nearest: None, near: Vec::new(), pending: Vec::new(), usage: None }
    }

    /// Creates an admission by the fallback at `at`, in nanoseconds since 1970.
    pub(crate) fn spooled(at: u64) -> Self {
        Self::new(0, AdmittedAt { at, epoch: u64::MAX })
    }
}

impl Command {
    /// Returns the command that voids this admission after its caller has left; `None` for other commands.
    pub(crate) fn undo(&self, id: u128, admitted: &AdmitReply) -> Option<Self> {
        let CommandKind::Admit(admit) = &self.kind else { return None };
        let void = SettleCommand::void(Arc::clone(&admit.plan), admitted.attempt, admitted.since);
        Some(Self { id, own: false, kind: CommandKind::Settle(void), key: self.key.clone(), origin: self.origin })
    }

    /// Returns the command that ends the reservation of this settlement, which is dropped; `None` if it ends none.
    pub(crate) fn lapse(&self, id: u128) -> Option<Self> {
        let (of, settle) = match &self.kind {
            CommandKind::Settle(settle) => (None, settle),
            CommandKind::SettleOf { of, settle } => (Some(*of), settle),
            _ => return None,
        };
        let kind = CommandKind::Lapse { of, attempt: settle.attempt, since: settle.since.at };
        let ends = settle.end != SettleKind::Add;
        ends.then(|| Self { key: self.key.clone(), id, own: false, origin: self.origin, kind })
    }
}

/// Addition to the reason for which a settlement is rejected.
pub(crate) const LAPSES: &str = "; its reservation, if it is open, ends at once as if it had expired";

/// A command in the queue or in the batch, and the state of its delivery.
#[derive(Clone, Debug)]
pub(super) struct Queued<R> {
    pub(super) ticket: u64,
    pub(super) command: Command,
    /// Receiver of the reply. `None` for settlements, and after the caller has left.
    pub(super) to: Option<R>,
    /// The caller left while the command was under way.
    pub(super) left: bool,
    /// The main lane found its account held by another transaction, at its latest try.
    pub(super) held: bool,
    /// A commit that includes it was sent; only the database knows whether it took place.
    pub(super) sent: bool,
    /// Failed attempts to store it.
    pub(super) tries: u32,
    /// Number of times that the database rejected it alone.
    pub(super) rejections: u32,
}

impl<R> Queued<R> {
    pub(super) fn new(ticket: u64, command: Command, to: Option<R>) -> Self {
        Self { ticket, command, to, left: false, held: false, sent: false, tries: 0, rejections: 0 }
    }
}
