//! What rows of the tables say.

use std::sync::Arc;

use sqlx::{
    Decode, Row as _, Type,
    sqlite::{Sqlite, SqliteRow},
};

use super::failure::failure;
use crate::{
    ledger::{
        DbError,
        columns::{natural, read, time},
        writer::{Detail, EntryKind, Key, ReservationRow, Row},
    },
    quota::account::{GrantState, StoredCounter},
};

/// The values of a row, one after another.
struct Values<'r> {
    row: &'r SqliteRow,
    at: usize,
}

impl<'r> Values<'r> {
    fn next<T: Decode<'r, Sqlite> + Type<Sqlite>>(&mut self) -> Result<T, DbError> {
        let value = self.row.try_get(self.at).map_err(failure)?;
        self.at += 1;
        Ok(value)
    }

    fn text(&mut self) -> Result<Arc<str>, DbError> {
        Ok(read(self.next::<&str>()?).into())
    }

    fn nanos(&mut self) -> Result<u64, DbError> {
        self.next().map(time)
    }

    fn natural<T: TryFrom<i64>>(&mut self) -> Result<T, DbError> {
        natural(self.next()?)
    }

    fn digest(&mut self) -> Result<Option<u128>, DbError> {
        let bytes: Option<&[u8]> = self.next()?;
        bytes
            .map(|bytes| bytes.try_into().map(u128::from_be_bytes))
            .transpose()
            .map_err(|_| DbError::Rejected("a digest in the ledger does not have 16 bytes".into()))
    }
}

pub(super) fn count(row: &SqliteRow) -> Result<(Arc<str>, StoredCounter), DbError> {
    let mut values = Values { row, at: 0 };
    let tenant = values.text()?;
    let count = StoredCounter {
        limit: values.text()?,
        kind: values.text()?,
        starts: values.nanos()?,
        epoch: values.natural()?,
        ends: values.nanos()?,
        used: values.natural()?,
        reserved: values.natural()?,
        warned: values.next()?,
        warning_pending: values.next()?,
    };
    Ok((tenant, count))
}

pub(super) fn grant(row: &SqliteRow) -> Result<(Arc<str>, GrantState), DbError> {
    let mut values = Values { row, at: 0 };
    let tenant = values.text()?;
    let grant = GrantState {
        id: values.natural()?,
        limit: values.text()?,
        kind: values.text()?,
        amount: values.natural()?,
        until: values.nanos()?,
        approver: read(values.next()?).into_owned(),
        reason: read(values.next()?).into_owned(),
        before: values.natural()?,
        current: values.natural()?,
        window: values.nanos()?,
        epoch: values.natural()?,
        ended: values.next()?,
    };
    Ok((tenant, grant))
}

/// A row of the ledger, and its id.
pub(super) fn consumption(row: &SqliteRow) -> Result<(i64, Row), DbError> {
    let mut values = Values { row, at: 0 };
    let id = values.next()?;
    let row = Row {
        key: Key { tenant: values.text()?, job: values.text()? },
        kind: values.text()?,
        limit: values.text()?,
        window: values.nanos()?,
        epoch: values.natural()?,
        entry: {
            let word: &str = values.next()?;
            EntryKind::parse(word).ok_or_else(|| DbError::Rejected(format!("unknown entry in the ledger: {word}")))?
        },
        attempt: values.natural()?,
        part: values.natural()?,
        amount: values.next()?,
        command: values.digest()?.unwrap_or_default(),
        fingerprint: values.digest()?,
        detail: detail(&mut values)?,
    };
    Ok((id, row))
}

fn detail(values: &mut Values<'_>) -> Result<Option<Box<Detail>>, DbError> {
    let Some(granted) = values.next::<Option<i64>>()? else { return Ok(None) };
    let until = values.next::<Option<i64>>()?.map_or(0, time);
    let (approver, reason): (Option<&str>, Option<&str>) = (values.next()?, values.next()?);
    let text = |text: Option<&str>| read(text.unwrap_or_default()).into_owned();
    Ok(Some(Box::new(Detail { granted: natural(granted)?, until, approver: text(approver), reason: text(reason) })))
}

pub(super) fn hold(row: &SqliteRow) -> Result<ReservationRow, DbError> {
    let mut values = Values { row, at: 0 };
    Ok(ReservationRow {
        key: Key { tenant: values.text()?, job: values.text()? },
        attempt: values.natural()?,
        until: values.nanos()?,
        since: values.nanos()?,
        charge: values.next()?,
    })
}

pub(super) fn tenant(row: &SqliteRow) -> Result<Arc<str>, DbError> {
    Values { row, at: 0 }.text()
}
