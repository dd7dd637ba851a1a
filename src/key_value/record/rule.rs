//! The rule of a record: pure functions of a record and the time. Times are microseconds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    claim::{AfterLease, Claim, Owner, RecordAbout, RecordKey},
    port::{Answer, Begun, Completion, Ownership, UnknownRecord},
};

/// A record that is there: its life is not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) state: RecordState,
    /// Owner that has begun or completed it; `None` once an operator has settled it.
    pub(crate) owner: Option<Owner>,
    pub(crate) attempt: u32,
    pub(crate) fingerprint: Option<[u8; 16]>,
    pub(crate) after_lease: AfterLease,
    /// Time of the first attempt, since 1970.
    pub(crate) first_at: i64,
    pub(crate) about: Arc<RecordAbout>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RecordState {
    Running { lease_until: i64 },
    Done(Answer),
    NotRetained,
}

/// Change of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RecordEdit {
    Keep,
    Put { record: Record, expires_at: Option<i64> },
    Remove,
}

/// Times of a claim: its lease, its life, the present, and the present since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimTimes {
    pub(crate) lease: i64,
    pub(crate) life: i64,
    pub(crate) now: i64,
    pub(crate) wall: i64,
}

impl Record {
    /// Returns the number of bytes of the answer.
    pub(crate) fn answer_len(&self) -> usize {
        if let RecordState::Done(answer) = &self.state { answer.len() } else { 0 }
    }

    /// Returns the record of an owner that begins now, and the time at which it expires.
    fn running(
        claim: &Claim,
        attempt: u32,
        first_at: i64,
        fingerprint: Option<[u8; 16]>,
        times: &ClaimTimes,
    ) -> RecordEdit {
        let lease_until = times.now.saturating_add(times.lease);
        let expires_at = match claim.after_lease {
            AfterLease::Rerun => Some(lease_until.saturating_add(times.life)),
            AfterLease::Hold => None,
        };
        let record = Self {
            state: RecordState::Running { lease_until },
            owner: Some(claim.owner),
            attempt,
            fingerprint,
            after_lease: claim.after_lease,
            first_at,
            about: Arc::new(claim.about.stored()),
        };
        RecordEdit::Put { record, expires_at }
    }

    /// Decides a claim on the record that is there.
    pub(crate) fn begin(present: Option<&Self>, claim: &Claim, times: &ClaimTimes) -> (RecordEdit, Begun) {
        let Some(record) = present else {
            let record = Self::running(claim, 1, times.wall, claim.fingerprint, times);
            return (record, Begun::Started { attempt: 1 });
        };
        if let Some(answer) = record.not_startable(claim.fingerprint.as_ref(), &claim.owner, times.now) {
            return (RecordEdit::Keep, answer);
        }
        let is_repeated = record.owner == Some(claim.owner);
        let attempt = if is_repeated { record.attempt } else { record.attempt.saturating_add(1) };
        let fingerprint = claim.fingerprint.or(record.fingerprint);
        (Self::running(claim, attempt, record.first_at, fingerprint, times), Begun::Started { attempt })
    }

    /// Returns the answer to a claim that cannot start; `None` if it can.
    pub(crate) fn not_startable(&self, fingerprint: Option<&[u8; 16]>, owner: &Owner, now: i64) -> Option<Begun> {
        if self.fingerprint.as_ref().is_some_and(|present| fingerprint.is_some_and(|claimed| present != claimed)) {
            return Some(Begun::Mismatch);
        }
        match &self.state {
            RecordState::Done(answer) => {
                let first_at = Duration::from_micros(self.first_at.max(0).cast_unsigned());
                Some(Begun::Done { answer: answer.clone(), first_at })
            }
            RecordState::NotRetained => Some(Begun::NotRetained),
            RecordState::Running { .. } if self.owner.as_ref() == Some(owner) => None,
            RecordState::Running { lease_until } if *lease_until > now => {
                Some(Begun::Running { left: Duration::from_micros(lease_until.abs_diff(now)) })
            }
            RecordState::Running { .. } => match self.after_lease {
                AfterLease::Rerun => None,
                AfterLease::Hold => Some(Begun::Unknown),
            },
        }
    }

    /// Whether the owner is gone and the outcome unknown.
    pub(crate) fn is_unknown(&self, now: i64) -> bool {
        matches!(self.state, RecordState::Running { lease_until } if lease_until <= now)
            && self.after_lease == AfterLease::Hold
    }

    fn is_run_by(&self, owner: &Owner) -> bool {
        matches!(self.state, RecordState::Running { .. }) && self.owner == Some(*owner)
    }

    /// Lets the lease end at another time; the record of a [`AfterLease::Rerun`] expires as much later.
    pub(crate) fn renew(
        present: Option<(&Self, Option<i64>)>,
        owner: &Owner,
        lease: i64,
        now: i64,
    ) -> (RecordEdit, Ownership) {
        let Some((record, expires_at)) = present.filter(|(record, _)| record.is_run_by(owner)) else {
            return (RecordEdit::Keep, Ownership::Lost);
        };
        let RecordState::Running { lease_until: before } = record.state else {
            return (RecordEdit::Keep, Ownership::Lost);
        };
        let lease_until = now.saturating_add(lease);
        let expires_at = expires_at.map(|at| at.saturating_sub(before).saturating_add(lease_until));
        let record = Self { state: RecordState::Running { lease_until }, ..record.clone() };
        (RecordEdit::Put { record, expires_at }, Ownership::Held)
    }

    /// Marks the record as carried out until `expires_at`. Repeated by its owner it changes nothing.
    pub(crate) fn complete(
        present: Option<&Self>,
        owner: &Owner,
        completion: &Completion,
        expires_at: i64,
    ) -> (RecordEdit, Ownership) {
        match present {
            Some(record) if record.is_run_by(owner) => (record.ended(completion, expires_at), Ownership::Held),
            Some(record) if record.owner == Some(*owner) => (RecordEdit::Keep, Ownership::Held),
            Some(_) | None => (RecordEdit::Keep, Ownership::Lost),
        }
    }

    fn ended(&self, completion: &Completion, expires_at: i64) -> RecordEdit {
        let state = match completion {
            // Copies, because a part of a larger buffer would keep the whole.
            Completion::Answered(Answer { status, fields, body }) => RecordState::Done(Answer {
                status: *status,
                fields: Bytes::copy_from_slice(fields),
                body: Bytes::copy_from_slice(body),
            }),
            Completion::NotRetained => RecordState::NotRetained,
        };
        RecordEdit::Put { record: Self { state, ..self.clone() }, expires_at: Some(expires_at) }
    }

    pub(crate) fn abandon(present: Option<&Self>, owner: &Owner) -> (RecordEdit, Ownership) {
        match present {
            Some(record) if record.is_run_by(owner) => (RecordEdit::Remove, Ownership::Held),
            Some(_) | None => (RecordEdit::Keep, Ownership::Lost),
        }
    }

    /// Ends a record with an unknown outcome. Its owner, if it still runs, has lost it.
    pub(crate) fn settle(
        present: Option<&Self>,
        completion: &Completion,
        expires_at: i64,
        now: i64,
    ) -> (RecordEdit, bool) {
        match present {
            Some(record) if record.is_unknown(now) => {
                let settled = Self { owner: None, ..record.clone() };
                (settled.ended(completion, expires_at), true)
            }
            Some(_) | None => (RecordEdit::Keep, false),
        }
    }

    pub(crate) fn release(present: Option<&Self>, now: i64) -> (RecordEdit, bool) {
        match present {
            Some(record) if record.is_unknown(now) => (RecordEdit::Remove, true),
            Some(_) | None => (RecordEdit::Keep, false),
        }
    }

    /// Describes a record with an unknown outcome.
    pub(crate) fn unknown(&self, key: RecordKey) -> UnknownRecord {
        let first_at = Duration::from_micros(self.first_at.max(0).cast_unsigned());
        UnknownRecord { key, about: Arc::clone(&self.about), attempt: self.attempt, first_at }
    }
}
