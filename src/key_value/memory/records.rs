//! Records of the store in memory. Each operation is one step under the lock of its record.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{MemoryStore, full, table::Edit};
use crate::{
    key_value::{
        error::KeyValueError,
        limits,
        port::StoreFuture,
        record::{
            Answer, Begun, Claim, ClaimTimes, Completion, Owner, Ownership, Record, RecordEdit, RecordKey, RecordState,
            RecordStore, UnknownPage,
        },
    },
    sync::{Share, ShareBounds, ShareExceeded, Shares},
};

/// Bytes that a record takes beside its texts and its answer, above those of an entry.
const OVERHEAD: usize = 128;

/// A record, and what its client has of the store for it.
#[derive(Clone)]
pub(super) struct RecordEntry {
    record: Record,
    place: Option<Arc<RecordShare>>,
    _answer: Option<Arc<RecordShare>>, // given back when the record is replaced
}

/// Client of a record; `None` for records of the program itself.
type RecordClient = Option<[u8; 16]>;
type RecordShare = Share<RecordClient>;

/// Numbers of records and of bytes of answers by client.
#[derive(Default)]
pub(super) struct ClientShares {
    places: Arc<Shares<RecordClient>>,
    answers: Arc<Shares<RecordClient>>,
}

impl MemoryStore {
    /// Returns the bounds of the answers of a client. Together they leave a quarter of the bytes to records that begin.
    fn answer_bounds(&self, client: RecordClient) -> ShareBounds {
        let all = self.records.max_bytes / 4 * 3;
        let of_client = self.max_answers_per_client.unwrap_or(self.records.max_bytes / 4);
        ShareBounds { all, each: if client.is_some() { of_client } else { all } }
    }

    /// Returns the edit of the table that stores a record. A new one has this place; a present one keeps its own.
    fn record_edit(
        &self,
        key: &RecordKey,
        edit: RecordEdit,
        place: Option<Arc<RecordShare>>,
    ) -> Result<Edit<RecordEntry>, KeyValueError> {
        let (record, expires_at) = match edit {
            RecordEdit::Keep => return Ok(Edit::Keep),
            RecordEdit::Remove => return Ok(Edit::Remove),
            RecordEdit::Put { record, expires_at } => (record, expires_at),
        };
        let (client, length) = (place.as_ref().and_then(|place| place.key()), record.answer_len());
        let answer = self.shares.answers.take(client, length, self.answer_bounds(client)).map_err(|exceeded| {
            full(match exceeded {
                ShareExceeded::All => "answers take all they may of the bytes of records; raise .max_record_bytes()",
                ShareExceeded::Each => {
                    "the client has all the bytes of answers it may; raise .max_answer_bytes_per_client()"
                }
            })
        })?;
        let texts: usize = record.about.texts().iter().map(|text| text.len()).sum();
        let bytes = key.0.len() + OVERHEAD + texts + length;
        let _answer = (length > 0).then(|| Arc::new(answer));
        Ok(Edit::Put { value: RecordEntry { record, place, _answer }, bytes, expires_at })
    }

    /// Changes a record as a rule says, which receives the time at which it expires and the present.
    fn change_record<T>(
        &self,
        key: &RecordKey,
        mut rule: impl FnMut(Option<(&Record, Option<i64>)>, i64) -> (RecordEdit, T),
    ) -> Result<T, KeyValueError> {
        let now = self.now();
        self.update_record(key, now, |present| {
            let (change, result) = rule(present.map(|(entry, expires_at)| (&entry.record, expires_at)), now);
            match self.record_edit(key, change, present.and_then(|(entry, _)| entry.place.clone())) {
                Ok(edit) => (edit, Ok(result)),
                Err(full) => (Edit::Keep, Err(full)),
            }
        })?
    }

    fn update_record<T>(
        &self,
        key: &RecordKey,
        now: i64,
        change: impl FnMut(Option<(&RecordEntry, Option<i64>)>) -> (Edit<RecordEntry>, T),
    ) -> Result<T, KeyValueError> {
        self.records.update(*key, now, change).map_err(|no_place| {
            let (records, bytes) = (self.records.max_entries, self.records.max_bytes);
            full(&if no_place.bytes {
                format!("all {bytes} bytes of records are taken; raise .max_record_bytes()")
            } else {
                format!("all {records} records are taken; raise .max_records()")
            })
        })
    }

    fn begin_record(&self, claim: &Claim) -> Result<Begun, KeyValueError> {
        let ((lease, life), now) = (claim.times()?, self.now());
        let wall = i64::try_from(self.clock.wall().as_micros()).unwrap_or(i64::MAX);
        let times = ClaimTimes { lease, life, now, wall };
        let most = self.max_records_per_client;
        let bounds = ShareBounds { all: usize::MAX, each: if claim.client.is_some() { most } else { usize::MAX } };
        loop {
            let begun = self.update_record(&claim.key, now, |present| {
                let place = match present {
                    Some((entry, _)) => Ok(entry.place.clone()),
                    None => self.shares.places.take(claim.client, 1, bounds).map(|place| Some(Arc::new(place))),
                };
                let Ok(place) = place else { return (Edit::Keep, Ok(None)) };
                let (change, begun) = Record::begin(present.map(|(entry, _)| &entry.record), claim, &times);
                match self.record_edit(&claim.key, change, place) {
                    Ok(edit) => (edit, Ok(Some(begun))),
                    Err(full) => (Edit::Keep, Err(full)),
                }
            })??;
            // Records of the client that have expired may still have their places.
            match begun {
                Some(begun) => return Ok(begun),
                None if self.records.purge_for_room(now) => {}
                None => {
                    return Err(full(&format!(
                        "the client has {most} records, which is all it may have; raise .max_records_per_client()"
                    )));
                }
            }
        }
    }

    fn list_unknown(&self, after: Option<&RecordKey>, limit: usize) -> Result<UnknownPage, KeyValueError> {
        limits::page(limit)?;
        let (now, mut first) = (self.now(), BTreeMap::new());
        self.records.each(now, |key, entry| {
            if after.is_none_or(|after| key > after) && entry.record.is_unknown(now) {
                first.insert(*key, entry.record.unknown(*key));
                if first.len() > limit + 1 {
                    first.pop_last();
                }
            }
        });
        Ok(UnknownPage::of(first.into_values().collect(), limit))
    }

    /// Returns the time at which a record that is completed now expires.
    fn record_expiry(&self, completion: &Completion, life: Duration) -> Result<i64, KeyValueError> {
        limits::answer(completion, self.max_value)?;
        Ok(self.now().saturating_add(limits::time("life", life)?))
    }
}

impl RecordStore for MemoryStore {
    fn begin<'a>(&'a self, claim: &'a Claim) -> StoreFuture<'a, Begun> {
        Box::pin(async move { self.begin_record(claim) })
    }

    fn find<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, Option<Answer>> {
        Box::pin(async move {
            Ok(self.records.read(key, self.now(), |present| match &present?.0.record.state {
                RecordState::Done(answer) => Some(answer.clone()),
                RecordState::Running { .. } | RecordState::NotRetained => None,
            }))
        })
    }

    fn renew<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner, lease: Duration) -> StoreFuture<'a, Ownership> {
        Box::pin(async move {
            let lease = limits::time("lease", lease)?;
            self.change_record(key, |present, now| Record::renew(present, owner, lease, now))
        })
    }

    fn complete<'a>(
        &'a self,
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: Duration,
    ) -> StoreFuture<'a, Ownership> {
        Box::pin(async move {
            let expires_at = self.record_expiry(completion, life)?;
            self.change_record(key, |present, _| {
                Record::complete(present.map(|(record, _)| record), owner, completion, expires_at)
            })
        })
    }

    fn abandon<'a>(&'a self, key: &'a RecordKey, owner: &'a Owner) -> StoreFuture<'a, Ownership> {
        Box::pin(async move {
            self.change_record(key, |present, _| Record::abandon(present.map(|(record, _)| record), owner))
        })
    }

    fn unknown<'a>(&'a self, after: Option<&'a RecordKey>, limit: usize) -> StoreFuture<'a, UnknownPage> {
        Box::pin(async move { self.list_unknown(after, limit) })
    }

    fn settle<'a>(&'a self, key: &'a RecordKey, completion: &'a Completion, life: Duration) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            let expires_at = self.record_expiry(completion, life)?;
            self.change_record(key, |present, now| {
                Record::settle(present.map(|(record, _)| record), completion, expires_at, now)
            })
        })
    }

    fn release<'a>(&'a self, key: &'a RecordKey) -> StoreFuture<'a, bool> {
        Box::pin(async move {
            self.change_record(key, |present, now| Record::release(present.map(|(record, _)| record), now))
        })
    }

    fn max_answer(&self) -> usize {
        self.max_value
    }
}
