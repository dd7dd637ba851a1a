//! Rows of the ledger; reads and writes of a transaction.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use borsh::{BorshDeserialize, BorshSerialize};

use super::StoredCounter;
use crate::quota::account::GrantState;

/// Event that a row records. It is displayed as it is stored, in lower case.
///
/// ```
/// assert_eq!(tollgate::EntryKind::Reserve.to_string(), "reserve");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EntryKind {
    /// Charged on admission, as known beforehand.
    Charge,
    /// Reserved on admission.
    Reserve,
    /// Commit of a reservation. The amount is the actual one less the estimate.
    Commit,
    /// Return of what was charged or reserved. The amount is negative.
    Void,
    /// Expiry of a reservation. The amount is negative if the estimate was returned, 0 if it stays charged.
    Expire,
    /// Usage beyond what was charged, or after the fact.
    Record,
    /// Sum of archived rows, or a [credit](crate::Quotas::credit), whose amount is negative.
    Adjust,
    /// Grant, or its revocation. The amount is 0; the size of the grant is in its terms.
    Grant,
    /// Restart of a counter, whose amount is what had been used, negative. Also a change of a counter that is on no
    /// invoice: beside a return, or beside a [credit](crate::Quotas::credit) that lowers two limits of one name.
    Reset,
}

impl EntryKind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Charge,
        Self::Reserve,
        Self::Commit,
        Self::Void,
        Self::Expire,
        Self::Record,
        Self::Adjust,
        Self::Grant,
        Self::Reset,
    ];

    /// Names in the database, in the order of [`ALL`](Self::ALL).
    const NAMES: [&'static str; 9] =
        ["charge", "reserve", "commit", "void", "expire", "record", "adjust", "grant", "reset"];

    /// Returns the name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entry| entry.as_str() == text)
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A job of a tenant, charged at most once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub(crate) struct Key {
    pub(crate) tenant: Arc<str>,
    pub(crate) job: Arc<str>,
}

/// A row of `quota_consumption`. Rows are never updated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) key: Key,
    /// Number of times that the job was voided before, which frees its id.
    pub(crate) attempt: u32,
    /// Tells the records of one job apart.
    pub(crate) part: u32,
    pub(crate) entry: EntryKind,
    /// Kind, and the limit that counts it. Both are empty in a row that only marks its entry.
    pub(crate) kind: Arc<str>,
    pub(crate) limit: Arc<str>,
    /// Period of that limit, as [`Period::key`](crate::time::Period::key) names it.
    pub(crate) period: Arc<str>,
    /// Start of the window in nanoseconds since 1970, and the epoch of its counter.
    pub(crate) window: u64,
    pub(crate) epoch: u64,
    pub(crate) amount: i64,
    /// Command that wrote it. By its id a writer whose commit went unanswered recognizes its own rows.
    pub(crate) command: u128,
    /// Digest of the job's content; `None` if the caller gave no fingerprint.
    pub(crate) fingerprint: Option<u128>,
    /// Details of a grant, or of a charge that the fallback admitted.
    pub(crate) detail: Option<Box<Detail>>,
}

impl Row {
    /// Returns the id of the credit that the row records, if it records one.
    pub(crate) fn credit_id(&self) -> Option<&str> {
        self.key.job.strip_prefix(CREDIT).filter(|_| self.entry == EntryKind::Adjust)
    }

    /// Whether it begins an attempt.
    pub(crate) fn is_charge(&self) -> bool {
        matches!(self.entry, EntryKind::Charge | EntryKind::Reserve)
    }
}

/// Prefix of the job id of a credit, which is followed by the id of the credit. Job ids of clients are ASCII, and those of
/// archives begin with `archive `.
pub(crate) const CREDIT: &str = "credit\u{b7}";

/// Columns of a grant: size, end, approver and reason; a credit has a reason only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Detail {
    /// Granted amount.
    pub(crate) granted: u64,
    /// Nanoseconds since 1970; 0 for none.
    pub(crate) until: u64,
    pub(crate) approver: String,
    pub(crate) reason: String,
}

/// Rows that a transaction reads once the accounts are locked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    /// The database's clock, read under the locks, in nanoseconds since 1970.
    pub(crate) now: u64,
    pub(crate) accounts: HashMap<Arc<str>, Stored>,
    /// All rows of the requested jobs.
    pub(crate) rows: Vec<Row>,
    /// Their attempts whose work has no recorded end.
    pub(crate) unfinished: Vec<UnfinishedJob>,
    /// Horizon before which rows may be archived and their jobs forgotten, in nanoseconds since 1970; 0 for none.
    pub(crate) sealed: u64,
    /// Accounts that other transactions hold, if they are [skipped](Reads::skips_held): they are not locked or read.
    pub(crate) held: Vec<Arc<str>>,
    /// Accounts that the transaction created, because it could not lock them otherwise. No other transaction has seen
    /// them.
    pub(crate) created: Vec<Arc<str>>,
}

/// An account as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Stored {
    /// Counters of all windows that have not ended, and of those that a settled job may belong to.
    pub(crate) counts: Vec<StoredCounter>,
    /// Grants that have not ended, and those that cover an amount that is still counted.
    pub(crate) grants: Vec<GrantState>,
    /// Tier under which the client was charged last; empty for none.
    pub(crate) tier: Arc<str>,
    /// Time before which no entry is written any more, in nanoseconds since 1970: an invoice up to it was closed.
    pub(crate) closed_until: u64,
}

/// Accounts and jobs that a transaction has to lock and read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    /// Accounts in the order in which they are locked.
    pub(crate) tenants: Vec<Arc<str>>,
    pub(crate) jobs: Vec<Key>,
    /// Earliest admission time for each account with settlements, in nanoseconds since 1970. Windows that ended before
    /// it and before now are not read; of other accounts, only those that have not ended are.
    pub(crate) since: BTreeMap<Arc<str>, u64>,
    /// Skips accounts that other transactions hold instead of waiting for them.
    pub(crate) skips_held: bool,
}

/// Rows that a transaction writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Writes {
    pub(crate) rows: Vec<Row>,
    /// Counters, each replacing the one of the same tenant, limit, period, window and epoch.
    pub(crate) counts: Vec<(Arc<str>, StoredCounter)>,
    pub(crate) grants: Vec<(Arc<str>, GrantState)>,
    /// Tiers that clients have now; empty for none.
    pub(crate) tiers: Vec<(Arc<str>, Arc<str>)>,
    /// Accounts whose entries must be no older than these times, which the clock has not reached.
    pub(crate) floors: Vec<(Arc<str>, u64)>,
    /// Reservations that open.
    pub(crate) opened: Vec<ReservationRow>,
    /// Reservations whose deadline is postponed.
    pub(crate) renewed: Vec<ReservationRow>,
    /// Attempts whose reservation ends.
    pub(crate) closed: Vec<(Key, u32)>,
    /// Jobs whose work begins.
    pub(crate) begun: Vec<UnfinishedJob>,
    /// Jobs whose work was interrupted.
    pub(crate) interrupted: Vec<UnfinishedJob>,
    /// Attempts whose work was done, or that were voided.
    pub(crate) finished: Vec<(Key, u32)>,
    /// Accounts that the transaction created and did not use.
    pub(crate) unused: Vec<Arc<str>>,
}

/// An open reservation. Times are in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReservationRow {
    pub(crate) key: Key,
    pub(crate) attempt: u32,
    pub(crate) until: u64,
    /// Admission time. No window that it counts in had ended by then.
    pub(crate) since: u64,
    /// Charges the estimate at the deadline instead of returning it.
    pub(crate) charge: bool,
}

/// An attempt of a named job whose work has no recorded end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UnfinishedJob {
    pub(crate) key: Key,
    pub(crate) attempt: u32,
    /// Time until which its work may be under way, in nanoseconds since 1970.
    pub(crate) until: u64,
}

impl Writes {
    /// Returns the time of a row that is written `now`: no earlier than that until which its account is closed.
    pub(crate) fn time_of(&self, row: &Row, now: u64) -> u64 {
        let floor = self.floors.iter().find(|(tenant, _)| *tenant == row.key.tenant);
        floor.map_or(now, |(_, floor)| now.max(*floor))
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
