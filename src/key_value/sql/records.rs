//! Operations of records. Each is one statement, except where it finds a record that another caller has.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    SqlStore,
    driver::{Parameter, SqlDriver},
    statement::StoreTable,
};
use crate::key_value::{
    error::{KeyValueError, KeyValueErrorKind},
    limits,
    record::{
        AfterLease, Answer, Begun, Claim, Completion, Owner, Ownership, Record, RecordAbout, RecordKey, RecordState,
        UnknownPage,
    },
};

/// Version of the meaning of a row.
const FORMAT: i64 = 1;

const RUNNING: i64 = 0;
const DONE: i64 = 1;
const NOT_RETAINED: i64 = 2;

/// Attempts of a claim that finds a record that is gone again when it is read.
const CLAIMS: u32 = 8;

/// Columns of a record, as [`SqlStore::record`] reads them.
const COLUMNS: &str = "key, format, state, owner, attempt, hold, lease_until, fingerprint, status, fields, body, first_at, \
                       policy, client, method, route, client_key";

/// Condition on a record with an unknown outcome, beside the end of its lease.
const HELD: &str = "state = 0 AND hold = 1 AND format = 1";

/// Returns the columns `state`, `status`, `fields` and `body` of a record that was carried out.
fn completed(completion: &Completion) -> [Parameter<'_>; 4] {
    match completion {
        Completion::Answered(Answer { status, fields, body }) => [
            Parameter::Number(Some(DONE)),
            Parameter::Number(Some((*status).into())),
            Parameter::Bytes(fields),
            Parameter::Bytes(body),
        ],
        Completion::NotRetained => {
            [Parameter::Number(Some(NOT_RETAINED)), Parameter::Number(None), Parameter::NoBytes, Parameter::NoBytes]
        }
    }
}

const fn owned(is_owned: bool) -> Ownership {
    if is_owned { Ownership::Held } else { Ownership::Lost }
}

impl<D: SqlDriver> SqlStore<D> {
    pub(super) async fn begin(&self, claim: &Claim) -> Result<Begun, KeyValueError> {
        let (lease, life) = claim.times()?;
        let about = claim.about.stored();
        let is_held = claim.after_lease == AfterLease::Hold;
        let mut values = vec![
            Parameter::Bytes(&claim.key.0),
            Parameter::Bytes(&claim.owner.0),
            Parameter::Number(Some(is_held.into())),
            Parameter::Number(Some(lease)),
            Parameter::Number((!is_held).then_some(life)),
            claim.fingerprint.as_ref().map_or(Parameter::NoBytes, |fingerprint| Parameter::Bytes(fingerprint)),
        ];
        values.extend(about.texts().map(Parameter::Text));
        for _ in 0..CLAIMS {
            let rows = self.write(StoreTable::Records, self.claim_statement(), &values).await?;
            if let Some(row) = rows.first() {
                let attempt = Self::number(row, 0)?.and_then(|attempt| u32::try_from(attempt).ok());
                return Ok(Begun::Started { attempt: attempt.unwrap_or(u32::MAX) });
            }
            let Some((record, now)) = self.load(&claim.key).await? else { continue };
            if let Some(begun) = record.not_startable(claim.fingerprint.as_ref(), &claim.owner, now) {
                return Ok(begun);
            }
        }
        let reason = format!("{}: the record was taken and given back {CLAIMS} times meanwhile; call again", D::NAME);
        Err(KeyValueError::new(KeyValueErrorKind::Unavailable, reason))
    }

    /// Returns the statement that takes a record which is absent, this owner's, or left by its owner.
    fn claim_statement(&self) -> String {
        // The times of the row come from the clock after the wait for its lock: `excluded` has those from before.
        let (now, over, most) = (self.now(), format!("r.expires_at <= {}", self.now()), u32::MAX);
        let excluded = ["owner", "state", "hold", "format"];
        let excluded = excluded.into_iter().chain(["policy", "client", "method", "route", "client_key"]);
        let excluded: Vec<_> = excluded.map(|column| format!("{column} = excluded.{column}")).collect();
        format!(
            "INSERT INTO tollgate_record AS r (key, owner, hold, lease_until, expires_at, fingerprint,
                policy, client, method, route, client_key, state, attempt, first_at, format)
             VALUES ($1, $2, $3, {now} + $4, {now} + $4 + $5, $6, $7, $8, $9, $10, $11, {RUNNING}, 1, {now}, {FORMAT})
             ON CONFLICT (key) DO UPDATE SET {}, status = NULL, fields = NULL, body = NULL,
                lease_until = {now} + $4, expires_at = {now} + $4 + $5,
                attempt = CASE WHEN {over} THEN 1 WHEN r.owner = excluded.owner OR r.attempt >= {most} THEN r.attempt
                    ELSE r.attempt + 1 END,
                first_at = CASE WHEN {over} THEN excluded.first_at ELSE r.first_at END,
                fingerprint = CASE WHEN {over} THEN excluded.fingerprint
                    ELSE coalesce(excluded.fingerprint, r.fingerprint) END
             WHERE r.format = {FORMAT} AND ({over} OR (r.state = {RUNNING}
                AND (r.owner = excluded.owner OR (r.hold = 0 AND r.lease_until <= {now}))
                AND (r.fingerprint IS NULL OR excluded.fingerprint IS NULL OR r.fingerprint = excluded.fingerprint)))
             RETURNING attempt",
            excluded.join(", ")
        )
    }

    /// Returns the condition on records of this version that have not expired.
    fn live_record(&self) -> String {
        format!("(expires_at IS NULL OR expires_at > {}) AND format = {FORMAT}", self.now())
    }

    /// Reads a record that is there, and the present time.
    async fn load(&self, key: &RecordKey) -> Result<Option<(Record, i64)>, KeyValueError> {
        let now = self.now();
        // Of any version: a newer one is an error of its own.
        let sql = format!(
            "SELECT {COLUMNS}, {now} FROM tollgate_record
             WHERE key = $1 AND (expires_at IS NULL OR expires_at > {now} OR format <> {FORMAT})"
        );
        let rows = self.read(sql, &[Parameter::Bytes(&key.0)]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let now = Self::required(row, 17)?;
        Ok(Some((Self::record(row)?.1, now)))
    }

    fn required(row: &D::Row, at: usize) -> Result<i64, KeyValueError> {
        let missing =
            || Self::damaged(StoreTable::Records, "have a number in each column", format_args!("none in {at}"));
        Self::number(row, at)?.ok_or_else(missing)
    }

    fn sixteen(row: &D::Row, at: usize) -> Result<Option<[u8; 16]>, KeyValueError> {
        let bytes = Self::bytes(row, at)?;
        let wrong = |bytes: Vec<u8>| Self::damaged(StoreTable::Records, "have keys of 16 bytes", bytes.len());
        bytes.map(|bytes| bytes.try_into().map_err(wrong)).transpose()
    }

    /// Reads the columns of [`COLUMNS`].
    fn record(row: &D::Row) -> Result<(RecordKey, Record), KeyValueError> {
        let format = Self::required(row, 1)?;
        if format != FORMAT {
            let reason = format!(
                "{}: format of a record must be {FORMAT}, got {format}: a newer version of this crate has written it; \
                 update this program",
                D::NAME
            );
            return Err(KeyValueError::new(KeyValueErrorKind::Damaged, reason));
        }
        let state = match Self::required(row, 2)? {
            RUNNING => RecordState::Running { lease_until: Self::required(row, 6)? },
            DONE => RecordState::Done(Self::answer(row, 8)?),
            NOT_RETAINED => RecordState::NotRetained,
            state => return Err(Self::damaged(StoreTable::Records, "have a state from 0 to 2", state)),
        };
        let text = |at| D::text(row, at).map(Option::unwrap_or_default);
        let about = || {
            let (policy, client, method) = (text(12)?, text(13)?, text(14)?);
            Ok(RecordAbout { policy, client, method, route: text(15)?, key: text(16)? })
        };
        let record = Record {
            state,
            owner: Self::sixteen(row, 3)?.map(Owner),
            attempt: u32::try_from(Self::required(row, 4)?).unwrap_or(u32::MAX),
            fingerprint: Self::sixteen(row, 7)?,
            after_lease: if Self::required(row, 5)? == 0 { AfterLease::Rerun } else { AfterLease::Hold },
            first_at: Self::required(row, 11)?,
            about: Arc::new(about().map_err(|error| super::driver::error::<D>(error, false))?),
        };
        Ok((RecordKey(Self::sixteen(row, 0)?.unwrap_or_default()), record))
    }

    /// Reads the columns `status`, `fields` and `body`.
    fn answer(row: &D::Row, at: usize) -> Result<Answer, KeyValueError> {
        let status = Self::required(row, at)?;
        let wrong = |_| Self::damaged(StoreTable::Records, "have a status below 65536", status);
        let bytes = |at| Ok(Self::bytes(row, at)?.map(Bytes::from).unwrap_or_default());
        Ok(Answer { status: u16::try_from(status).map_err(wrong)?, fields: bytes(at + 1)?, body: bytes(at + 2)? })
    }

    pub(super) async fn find(&self, key: &RecordKey) -> Result<Option<Answer>, KeyValueError> {
        let live = self.live_record();
        let sql = format!(
            "SELECT status, fields, body FROM tollgate_record
             WHERE key = $1 AND state = {DONE} AND {live}"
        );
        let rows = self.read(sql, &[Parameter::Bytes(&key.0)]).await?;
        rows.first().map(|row| Self::answer(row, 0)).transpose()
    }

    pub(super) async fn renew(
        &self,
        key: &RecordKey,
        owner: &Owner,
        lease: Duration,
    ) -> Result<Ownership, KeyValueError> {
        let lease = limits::time("lease", lease)?;
        let (now, live) = (self.now(), self.live_record());
        let sql = format!(
            "UPDATE tollgate_record SET lease_until = {now} + $3, expires_at = expires_at - lease_until + {now} + $3
             WHERE key = $1 AND owner = $2 AND state = {RUNNING} AND {live} RETURNING key"
        );
        let values = [Parameter::Bytes(&key.0), Parameter::Bytes(&owner.0), Parameter::Number(Some(lease))];
        Ok(owned(!self.write(StoreTable::Records, sql, &values).await?.is_empty()))
    }

    pub(super) async fn complete(
        &self,
        key: &RecordKey,
        owner: &Owner,
        completion: &Completion,
        life: Duration,
    ) -> Result<Ownership, KeyValueError> {
        limits::answer(completion, self.max_value)?;
        let values = Self::completion_values(key, owner, completion, limits::time("life", life)?);
        let sql = self.completion_statement();
        if !self.write(StoreTable::Records, sql, &values).await?.is_empty() {
            return Ok(Ownership::Held);
        }
        let sql = format!(
            "SELECT key FROM tollgate_record WHERE key = $1 AND owner = $2 AND state <> {RUNNING} AND {}",
            self.live_record()
        );
        Ok(owned(!self.read(sql, &values[..2]).await?.is_empty()))
    }

    /// Returns the statement that marks this owner's running record as carried out.
    pub(super) fn completion_statement(&self) -> String {
        let (now, live) = (self.now(), self.live_record());
        format!(
            "UPDATE tollgate_record SET state = $3, status = $4, fields = $5, body = $6, expires_at = {now} + $7
             WHERE key = $1 AND owner = $2 AND state = {RUNNING} AND {live} RETURNING key"
        )
    }

    /// Returns the values of [`completion_statement`](Self::completion_statement).
    pub(super) fn completion_values<'a>(
        key: &'a RecordKey,
        owner: &'a Owner,
        completion: &'a Completion,
        life: i64,
    ) -> [Parameter<'a>; 7] {
        let [state, status, fields, body] = completed(completion);
        let who = [Parameter::Bytes(&key.0), Parameter::Bytes(&owner.0)];
        [who[0], who[1], state, status, fields, body, Parameter::Number(Some(life))]
    }

    pub(super) async fn abandon(&self, key: &RecordKey, owner: &Owner) -> Result<Ownership, KeyValueError> {
        let live = self.live_record();
        let sql = format!(
            "DELETE FROM tollgate_record WHERE key = $1 AND owner = $2 AND state = {RUNNING} AND {live} RETURNING key"
        );
        let values = [Parameter::Bytes(&key.0), Parameter::Bytes(&owner.0)];
        Ok(owned(!self.write(StoreTable::Records, sql, &values).await?.is_empty()))
    }

    pub(super) async fn unknown(&self, after: Option<&RecordKey>, limit: usize) -> Result<UnknownPage, KeyValueError> {
        limits::page(limit)?;
        let (now, from) = (self.now(), if after.is_some() { "AND key > $1" } else { "" });
        let sql = format!(
            "SELECT {COLUMNS} FROM tollgate_record WHERE {HELD} AND lease_until <= {now} {from}
             ORDER BY key LIMIT {}",
            limit + 1
        );
        let values: Vec<_> = after.map(|key| Parameter::Bytes(&key.0)).into_iter().collect();
        let mut records = Vec::new();
        for row in &self.read(sql, &values).await? {
            let (key, record) = Self::record(row)?;
            records.push(record.unknown(key));
        }
        Ok(UnknownPage::of(records, limit))
    }

    pub(super) async fn settle(
        &self,
        key: &RecordKey,
        completion: &Completion,
        life: Duration,
    ) -> Result<bool, KeyValueError> {
        limits::answer(completion, self.max_value)?;
        let (now, life) = (self.now(), limits::time("life", life)?);
        let sql = format!(
            "UPDATE tollgate_record SET owner = NULL, state = $2, status = $3, fields = $4, body = $5,
                expires_at = {now} + $6
             WHERE key = $1 AND {HELD} AND lease_until <= {now} RETURNING key"
        );
        let [state, status, fields, body] = completed(completion);
        let values = [Parameter::Bytes(&key.0), state, status, fields, body, Parameter::Number(Some(life))];
        Ok(!self.write(StoreTable::Records, sql, &values).await?.is_empty())
    }

    pub(super) async fn release(&self, key: &RecordKey) -> Result<bool, KeyValueError> {
        let now = self.now();
        let sql =
            format!("DELETE FROM tollgate_record WHERE key = $1 AND {HELD} AND lease_until <= {now} RETURNING key");
        Ok(!self.write(StoreTable::Records, sql, &[Parameter::Bytes(&key.0)]).await?.is_empty())
    }
}
