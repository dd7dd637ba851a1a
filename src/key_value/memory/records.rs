//! Records of the store in memory. Each operation is one step under the lock of its record.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use dashmap::{DashMap, Entry};

use super::{MemoryStore, full, table::Edit};
use crate::key_value::{
    error::KeyValueError,
    limits,
    port::StoreFuture,
    record::{
        Answer, Begun, Claim, ClaimTimes, Completion, Owner, Ownership, Record, RecordEdit, RecordKey, RecordState,
        RecordStore, UnknownPage,
    },
};

/// Bytes that a record takes beside its texts and its answer, above those of an entry.
const OVERHEAD: usize = 128;

/// A record, and the place that its client has for it.
#[derive(Clone)]
pub(super) struct RecordEntry {
    record: Record,
    share: Option<Arc<ClientShare>>,
}

/// Numbers of records by client.
pub(super) struct ClientShares {
    used: Arc<DashMap<[u8; 16], usize>>,
    most: usize,
}

/// One record of a client, given back with the last clone of the record.
pub(super) struct ClientShare {
    client: [u8; 16],
    used: Arc<DashMap<[u8; 16], usize>>,
}

impl ClientShares {
    pub(super) fn new(most: usize) -> Self {
        Self { used: Arc::default(), most }
    }

    /// Takes a place for a record of a client; `None` if it has all that it may have.
    fn take(&self, client: [u8; 16]) -> Option<Arc<ClientShare>> {
        let mut used = self.used.entry(client).or_insert(0);
        if *used >= self.most {
            return None;
        }
        *used += 1;
        drop(used);
        Some(Arc::new(ClientShare { client, used: Arc::clone(&self.used) }))
    }
}

impl Drop for ClientShare {
    fn drop(&mut self) {
        if let Entry::Occupied(mut used) = self.used.entry(self.client) {
            *used.get_mut() -= 1;
            if *used.get() == 0 {
                used.remove();
            }
        }
    }
}

/// Returns the edit of the table that stores a record, whose client keeps its place.
fn edit(key: &RecordKey, edit: RecordEdit, share: Option<&Arc<ClientShare>>) -> Edit<RecordEntry> {
    match edit {
        RecordEdit::Keep => Edit::Keep,
        RecordEdit::Remove => Edit::Remove,
        RecordEdit::Put { record, expires_at } => {
            let answer = if let RecordState::Done(answer) = &record.state { answer.len() } else { 0 };
            let texts: usize = record.about.texts().iter().map(|text| text.len()).sum();
            let bytes = key.0.len() + OVERHEAD + texts + answer;
            Edit::Put { value: RecordEntry { record, share: share.cloned() }, bytes, expires_at }
        }
    }
}

impl MemoryStore {
    /// Changes a record as a rule says, which receives the time at which it expires and the present.
    fn change_record<T>(
        &self,
        key: &RecordKey,
        mut rule: impl FnMut(Option<(&Record, Option<i64>)>, i64) -> (RecordEdit, T),
    ) -> Result<T, KeyValueError> {
        let now = self.now();
        self.update_record(key, now, |present| {
            let share = present.and_then(|(entry, _)| entry.share.as_ref());
            let (change, result) = rule(present.map(|(entry, expires_at)| (&entry.record, expires_at)), now);
            (edit(key, change, share), result)
        })
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
        loop {
            let begun = self.update_record(&claim.key, now, |present| {
                let share = match (present, claim.client) {
                    (Some((entry, _)), _) => Ok(entry.share.clone()),
                    (None, None) => Ok(None),
                    (None, Some(client)) => self.shares.take(client).map(Some).ok_or(()),
                };
                let Ok(share) = share else { return (Edit::Keep, None) };
                let (change, begun) = Record::begin(present.map(|(entry, _)| &entry.record), claim, &times);
                (edit(&claim.key, change, share.as_ref()), Some(begun))
            })?;
            // Records of the client that have expired may still have their places.
            match begun {
                Some(begun) => return Ok(begun),
                None if self.records.purge_for_room(now) => {}
                None => {
                    let most = self.shares.most;
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
