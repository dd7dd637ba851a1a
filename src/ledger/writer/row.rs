//! Rows of the ledger, and what a transaction reads and writes.

use std::{collections::HashMap, sync::Arc};

use crate::quota::account::{GrantState, StoredCounter};

/// What a row says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum EntryKind {
    /// Charged at admission, as it was known beforehand.
    Charge,
    /// Set aside at admission.
    Reserve,
    /// What was set aside is used: the amount is what was really used less the estimate.
    Commit,
    /// What was charged or set aside went back: the amount is negative.
    Void,
    /// The time of what was set aside ran out: negative where it went back, 0 where it stays charged.
    Expire,
    /// Used besides what was charged, or used after the fact.
    Record,
    /// A correction by hand.
    Adjust,
    /// More is allowed until a time: the amount is 0, its size stands in the detail. Its end before its time is one too.
    Grant,
    /// A count begins anew: the amount is what was used, negative.
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

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Reserve => "reserve",
            Self::Commit => "commit",
            Self::Void => "void",
            Self::Expire => "expire",
            Self::Record => "record",
            Self::Adjust => "adjust",
            Self::Grant => "grant",
            Self::Reset => "reset",
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|entry| entry.as_str() == text)
    }
}

/// A job of a tenant: what is charged at most once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) tenant: Arc<str>,
    pub(crate) job: Arc<str>,
}

/// A row of `quota_consumption`, which is never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Row {
    pub(crate) key: Key,
    /// How often the job was given back before: then its id is free again.
    pub(crate) attempt: u32,
    /// Tells the records of one job apart.
    pub(crate) part: u32,
    pub(crate) entry: EntryKind,
    /// What is counted, and by which limit; both empty in the row of a job that nothing counts.
    pub(crate) kind: Arc<str>,
    pub(crate) limit: Arc<str>,
    /// The period that it belongs to, by its start in nanoseconds since 1970, and how often its count began anew.
    pub(crate) window: u64,
    pub(crate) epoch: u32,
    pub(crate) amount: i64,
    /// The order that wrote it: by this a writer that never heard of its commit knows its own rows.
    pub(crate) command: u128,
    /// What the job is about, digested; `None` where its id names nothing else.
    pub(crate) fingerprint: Option<u128>,
    /// What a grant says.
    pub(crate) detail: Option<Box<Detail>>,
}

/// What a row says of people: who approved, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Detail {
    /// How much was granted.
    pub(crate) granted: u64,
    /// Nanoseconds since 1970; 0 for none.
    pub(crate) until: u64,
    pub(crate) approver: String,
    pub(crate) reason: String,
}

/// What a transaction reads once the accounts are locked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    /// The database's clock, read under the locks: nanoseconds since 1970.
    pub(crate) now: u64,
    pub(crate) accounts: HashMap<Arc<str>, Stored>,
    /// All rows of the jobs that were asked for.
    pub(crate) rows: Vec<Row>,
    /// Rows of before may be archived, and their jobs forgotten: nanoseconds since 1970, 0 where none are.
    pub(crate) sealed: u64,
}

/// An account as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Stored {
    /// Every period that is not over, and every other that a settled job may belong to.
    pub(crate) counts: Vec<StoredCounter>,
    /// Those that have not ended, and those that have paid for what is still counted.
    pub(crate) grants: Vec<GrantState>,
}

/// What a transaction has to lock and read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Reads {
    /// In the order in which they are locked.
    pub(crate) tenants: Vec<Arc<str>>,
    pub(crate) jobs: Vec<Key>,
    /// Periods that ended before this, and before now, are not read: nanoseconds since 1970. `None`: those that are over now.
    pub(crate) since: Option<u64>,
}

/// What a transaction writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct Writes {
    pub(crate) rows: Vec<Row>,
    /// Counts as they are now, in place of those of the same tenant, limit, window and epoch.
    pub(crate) counts: Vec<(Arc<str>, StoredCounter)>,
    pub(crate) grants: Vec<(Arc<str>, GrantState)>,
    /// Reservations that are open from now on, and until when; then those that are put off, then those that are over.
    pub(crate) opened: Vec<ReservationRow>,
    pub(crate) renewed: Vec<ReservationRow>,
    pub(crate) closed: Vec<(Key, u32)>,
}

/// A reservation that is open until a time: nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) struct ReservationRow {
    pub(crate) key: Key,
    pub(crate) attempt: u32,
    pub(crate) until: u64,
    /// When it was made: no period that it belongs to had ended by then.
    pub(crate) since: u64,
    /// It is charged as it was estimated when its time runs out, and does not go back.
    pub(crate) charge: bool,
}

impl Writes {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
