//! Decodes rows of the tables.

use std::{marker::PhantomData, sync::Arc};

use super::{
    SqlDialect,
    encoding::{nanos, natural, read, time},
};
use crate::{
    ledger::{
        DbError,
        writer::{Detail, EntryKind, Key, Loaded, ReservationRow, Row, StoredCounter, UnfinishedJob},
    },
    quota::account::{Counter, GrantState},
};

/// Columns of an entry. Counters and grants begin with the same columns, so that PostgreSQL reads all three in one
/// statement; the two NULLs stand for their columns.
pub(crate) const ENTRY_COLUMNS: &str = "tenant_id, limit_id, quota_type, period, window_start, until, epoch, attempt, part, NULL, \
    NULL, amount, granted, approver, reason, job_id, entry, order_id, fingerprint, id";

/// Columns of a row, decoded one after another.
pub(crate) struct Columns<'r, S: SqlDialect> {
    row: &'r S::Row,
    at: usize,
}

impl<'r, S: SqlDialect> Columns<'r, S> {
    pub(crate) fn new(row: &'r S::Row) -> Self {
        Self { row, at: 0 }
    }

    fn next<T>(&mut self, get: impl FnOnce(&'r S::Row, usize) -> Result<Option<T>, DbError>) -> Result<T, DbError> {
        let at = self.at;
        self.optional(get)?.ok_or_else(|| DbError::Rejected(format!("column {at} in the ledger is NULL")))
    }

    fn optional<T>(
        &mut self,
        get: impl FnOnce(&'r S::Row, usize) -> Result<Option<T>, DbError>,
    ) -> Result<Option<T>, DbError> {
        self.at += 1;
        get(self.row, self.at - 1)
    }

    pub(crate) fn skip(&mut self, columns: usize) {
        self.at += columns;
    }

    pub(crate) fn text<T: for<'t> From<std::borrow::Cow<'t, str>>>(&mut self) -> Result<T, DbError> {
        Ok(read(self.next(S::text)?).into())
    }

    pub(crate) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, DbError> {
        natural(self.next(S::number)?)
    }

    pub(crate) fn amount(&mut self) -> Result<i64, DbError> {
        self.next(S::number)
    }

    fn flag(&mut self) -> Result<bool, DbError> {
        self.next(S::flag)
    }

    pub(super) fn time(&mut self) -> Result<u64, DbError> {
        self.next(S::micros).map(time)
    }

    /// Reads a time of the database's clock.
    pub(crate) fn clock(&mut self) -> Result<u64, DbError> {
        nanos(self.next(S::micros)?)
    }

    pub(crate) fn digest(&mut self) -> Result<u128, DbError> {
        self.next(S::digest)
    }

    pub(crate) fn optional_amount(&mut self) -> Result<Option<i64>, DbError> {
        self.optional(S::number)
    }

    pub(crate) fn optional_time(&mut self) -> Result<Option<u64>, DbError> {
        Ok(self.optional(S::micros)?.map(time))
    }

    pub(crate) fn counter(&mut self) -> Result<(Arc<str>, StoredCounter), DbError> {
        let tenant = self.text()?;
        let counter = StoredCounter {
            limit: self.text()?,
            kind: self.text()?,
            period: self.text()?,
            counter: Counter {
                starts: self.time()?,
                ends: self.time()?,
                epoch: self.number()?,
                used: self.number()?,
                reserved: self.number()?,
                warned: self.flag()?,
                warning_pending: self.flag()?,
            },
        };
        Ok((tenant, counter))
    }

    pub(crate) fn grant(&mut self) -> Result<(Arc<str>, GrantState), DbError> {
        let (tenant, limit, kind, period) = (self.text()?, self.text()?, self.text()?, self.text()?);
        let (window, until, epoch) = (self.time()?, self.time()?, self.number()?);
        let (id, amount, ended) = (self.number()?, self.number()?, self.flag()?);
        self.skip(1);
        let (before, current) = (self.number()?, self.number()?);
        let (approver, reason) = (self.text()?, self.text()?);
        let grant = GrantState {
            id,
            limit,
            kind,
            period,
            amount,
            until,
            approver,
            reason,
            before,
            current,
            window,
            epoch,
            ended,
        };
        Ok((tenant, grant))
    }

    /// Decodes an entry and its id.
    pub(crate) fn entry(&mut self) -> Result<(i64, Row), DbError> {
        let (tenant, limit, kind, period) = (self.text()?, self.text()?, self.text()?, self.text()?);
        let (window, until, epoch) = (self.time()?, self.optional_time()?, self.number()?);
        let (attempt, part) = (self.number()?, self.number()?);
        self.skip(2);
        let (amount, granted) = (self.amount()?, self.optional_amount()?);
        let (approver, reason) = (self.optional(S::text)?, self.optional(S::text)?);
        let key = Key { tenant, job: self.text()? };
        let word = self.next(S::text)?;
        let entry =
            EntryKind::parse(word).ok_or_else(|| DbError::Rejected(format!("unknown entry in the ledger: {word}")))?;
        let (command, fingerprint, id) = (self.digest()?, self.optional(S::digest)?, self.amount()?);
        let detail = match granted {
            Some(granted) => {
                let text = |text: Option<&str>| read(text.unwrap_or_default()).into_owned();
                let (granted, until) = (natural(granted)?, until.unwrap_or(0));
                Some(Box::new(Detail { granted, until, approver: text(approver), reason: text(reason) }))
            }
            None => None,
        };
        Ok((
            id,
            Row { key, attempt, part, entry, kind, limit, period, window, epoch, amount, command, fingerprint, detail },
        ))
    }

    /// Decodes an attempt whose work has no recorded end.
    pub(crate) fn unfinished(&mut self) -> Result<UnfinishedJob, DbError> {
        let key = Key { tenant: self.text()?, job: self.text()? };
        self.skip(3);
        let until = self.time()?;
        self.skip(1);
        Ok(UnfinishedJob { key, attempt: self.number()?, until })
    }

    pub(super) fn reservation(&mut self) -> Result<ReservationRow, DbError> {
        Ok(ReservationRow {
            key: Key { tenant: self.text()?, job: self.text()? },
            attempt: self.number()?,
            until: self.time()?,
            since: self.time()?,
            charge: self.flag()?,
        })
    }
}

/// Collects the accounts and the entries of jobs that a transaction reads.
pub(crate) struct ReadRows<S: SqlDialect> {
    pub(crate) loaded: Loaded,
    entries: Vec<(i64, Row)>,
    dialect: PhantomData<fn() -> S>,
}

impl<S: SqlDialect> ReadRows<S> {
    pub(crate) fn new(tenants: &[Arc<str>]) -> Self {
        let accounts = tenants.iter().map(|tenant| (tenant.clone(), Default::default())).collect();
        Self { loaded: Loaded { accounts, ..Loaded::default() }, entries: Vec::new(), dialect: PhantomData }
    }

    pub(crate) fn counter(&mut self, row: &S::Row) -> Result<(), DbError> {
        let (tenant, counter) = Columns::<S>::new(row).counter()?;
        self.loaded.accounts.entry(tenant).or_default().counts.push(counter);
        Ok(())
    }

    pub(crate) fn grant(&mut self, row: &S::Row) -> Result<(), DbError> {
        let (tenant, grant) = Columns::<S>::new(row).grant()?;
        self.loaded.accounts.entry(tenant).or_default().grants.push(grant);
        Ok(())
    }

    /// Decodes what an account itself has.
    pub(crate) fn account(&mut self, row: &S::Row) -> Result<(), DbError> {
        let mut columns = Columns::<S>::new(row);
        let account = self.loaded.accounts.entry(columns.text()?).or_default();
        account.tier = read(columns.optional(S::text)?.unwrap_or_default()).into();
        columns.skip(2);
        account.closed_until = columns.time()?;
        Ok(())
    }

    pub(crate) fn entry(&mut self, row: &S::Row) -> Result<(), DbError> {
        self.entries.push(Columns::<S>::new(row).entry()?);
        Ok(())
    }

    pub(crate) fn unfinished(&mut self, row: &S::Row) -> Result<(), DbError> {
        self.loaded.unfinished.push(Columns::<S>::new(row).unfinished()?);
        Ok(())
    }

    /// Returns everything that was read. Entries are in the order in which they were written, each once.
    pub(crate) fn finish(mut self) -> Loaded {
        self.entries.sort_unstable_by_key(|(id, _)| *id);
        self.entries.dedup_by_key(|(id, _)| *id);
        self.loaded.rows = self.entries.into_iter().map(|(_, row)| row).collect();
        self.loaded
    }
}
