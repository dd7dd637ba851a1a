//! Port of record stores.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    claim::{Claim, Owner, RecordAbout, RecordKey},
    transaction::RecordTransactions,
};
use crate::key_value::port::StoreFuture;

/// A store of records of operations that are carried out once: at any time one owner carries an operation out, and later
/// callers get its answer.
///
/// ```text
/// absent   begin     running
/// running  complete  done, or not retained
/// running  abandon   absent
/// running, its lease is over:
///          begin     running under the new owner (AfterLease::Rerun)
///          begin     unknown, until settle or release (AfterLease::Hold)
/// ```
///
/// The owner is a random number that only its execution knows. `renew`, `complete` and `abandon` check nothing else: an
/// owner whose lease is over keeps the record until another has taken it, and one that has lost it changes nothing.
///
/// A record that is done is absent once its life is over. A running one of
/// [`AfterLease::Rerun`](super::AfterLease::Rerun) is absent when the life has passed since its lease. One of
/// [`AfterLease::Hold`](super::AfterLease::Hold) stays.
///
/// Each operation is one step, and may be repeated: with the same owner `begin` starts and `complete` stores as the first
/// time. So a caller whose reply was lost calls again.
///
/// # Cancel safety
/// Dropped before it ends, an operation was carried out as a whole or not at all.
///
/// # Errors
/// Every operation fails with [`Unavailable`](crate::key_value::KeyValueErrorKind::Unavailable) if the store does not
/// answer, with [`Indeterminate`](crate::key_value::KeyValueErrorKind::Indeterminate) if it may have carried out the
/// operation, and with [`Invalid`](crate::key_value::KeyValueErrorKind::Invalid) if a time is zero or above ten years.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::key_value::{Answer, Begun, Claim, Completion, MemoryStore, Owner, Ownership, RecordKey, RecordStore};
///
/// let (store, payment) = (MemoryStore::new(), RecordKey([7; 16]));
/// let claim = Claim::new(payment, Owner::random());
/// assert!(matches!(store.begin(&claim).await?, Begun::Started { attempt: 1 }));
///
/// let duplicate = Claim::new(payment, Owner::random());
/// assert!(matches!(store.begin(&duplicate).await?, Begun::Running { .. }));
///
/// let answer = Completion::Answered(Answer::new(201, "paid"));
/// assert_eq!(store.complete(&payment, &claim.owner, &answer, claim.life).await?, Ownership::Held);
/// let Begun::Done { answer, .. } = store.begin(&duplicate).await? else { panic!("it is done") };
/// assert_eq!((answer.status, &answer.body[..]), (201, &b"paid"[..]));
/// # Ok::<(), tollgate::key_value::KeyValueError>(())
/// # }).unwrap();
/// ```
pub trait RecordStore: Send + Sync + 'static {
    /// Starts an operation, unless it is running or was carried out.
    ///
    /// # Errors
    /// [`Full`](crate::key_value::KeyValueErrorKind::Full) if there is no room for a new record.
    fn begin<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Begun>;

    /// Returns the answer of a record that is done. It changes nothing, and compares no fingerprint.
    fn find<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, Option<Answer>>;

    /// Lets the lease of a running record end `lease` from now.
    fn renew<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner, lease: Duration) -> StoreFuture<'a, Ownership>;

    /// Marks a running record as carried out, for `life` from now.
    ///
    /// # Errors
    /// [`Invalid`](crate::key_value::KeyValueErrorKind::Invalid) if the answer is longer than
    /// [`max_answer`](Self::max_answer).
    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Ownership>;

    /// Removes a running record, so that the operation may be carried out by another caller.
    fn abandon<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner) -> StoreFuture<'a, Ownership>;

    /// Returns at most `limit` records with an unknown outcome that come after the key `after`, in the order of their keys.
    fn unknown<'a>(&'a self, after: Option<&'a RecordKey>, limit: usize) -> StoreFuture<'a, UnknownPage>;

    /// Marks a record with an unknown outcome as carried out, for `life` from now; returns whether there was one.
    fn settle<'a>(&'a self, key: &'a RecordKey, completion: &'a Completion, life: Duration) -> StoreFuture<'a, bool>;

    /// Removes a record with an unknown outcome, so that the operation is carried out anew; returns whether there was one.
    fn release<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, bool>;

    /// Greatest number of bytes of an answer: of its fields and its body.
    fn max_answer(&self) -> usize;

    /// Returns the transactions that handlers share with their records; `None` if the store has none, as by default.
    fn transactions(&self) -> Option<&dyn RecordTransactions> {
        None
    }
}

/// Result of [`RecordStore::begin`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// The operation is this owner's to carry out.
    Started {
        /// Number of owners that have begun it, this one included. From 2 on it may have been carried out in part.
        attempt: u32,
    },
    /// Another owner carries it out.
    Running {
        /// Time until its lease ends unless it is renewed.
        left: Duration,
    },
    /// The record has another fingerprint: the key was used for another operation.
    Mismatch,
    /// It was carried out.
    Done {
        /// Its answer.
        answer: Answer,
        /// Time since 1970 at which it was begun first.
        first_at: Duration,
    },
    /// It was carried out, and its answer was not retained.
    NotRetained,
    /// Its owner is gone, and whether it was carried out is unknown.
    Unknown,
}

/// Whether an owner has its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub enum Ownership {
    /// The record is this owner's, and was changed.
    Held,
    /// Another owner has taken it, or it is gone; nothing has changed.
    Lost,
}

/// Answer of an operation. `Debug` shows its lengths.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// A status code, such as 201; a store reads no meaning into it.
    pub status: u16,
    /// Bytes that belong to the body, such as encoded header fields.
    pub fields: Bytes,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// Creates an answer without fields.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, fields: Bytes::new(), body: body.into() }
    }

    /// Returns the number of bytes of fields and body.
    pub(crate) fn len(&self) -> usize {
        self.fields.len().saturating_add(self.body.len())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (fields, body) = (self.fields.len(), self.body.len());
        f.debug_struct("Answer").field("status", &self.status).field("fields", &fields).field("body", &body).finish()
    }
}

/// End of an operation that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completion {
    /// With an answer for all later callers.
    Answered(Answer),
    /// With an answer that is not retained: a stream, or one that is too long.
    NotRetained,
}

/// Result of [`RecordStore::unknown`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownPage {
    /// The records, in the order of their keys.
    pub records: Vec<UnknownRecord>,
    /// The key after which the next page begins; `None` after the last page.
    pub next: Option<RecordKey>,
}

impl UnknownPage {
    /// Creates a page of the first `limit` of `records`, which are one more if another page follows.
    pub(crate) fn of(mut records: Vec<UnknownRecord>, limit: usize) -> Self {
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|record| record.key);
        Self { records, next }
    }
}

/// An operation whose owner is gone, and of which is unknown whether it was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRecord {
    /// Key of the record.
    pub key: RecordKey,
    /// Texts that the owner has stored.
    pub about: Arc<RecordAbout>,
    /// Number of owners that have begun it.
    pub attempt: u32,
    /// Time since 1970 at which it was begun first.
    pub first_at: Duration,
}
