//! Settlement of named jobs whose outcome is unknown.

use std::sync::Arc;

use super::{
    Database, LedgerInner, LedgerStore, new_id,
    store::{read_reply, tenant},
    writer::{Command, CommandKind, JobRows, Key, Reply},
};
use crate::{
    gate::MaybeFuture,
    quota::{
        JobOutcome, JobState,
        account::{Duplicate, Job},
        store::{AccountContext, StoreError},
    },
};

type Settled = Result<Option<JobState>, StoreError>;

impl<D: Database> LedgerStore<D> {
    /// Settles a job if its outcome is unknown, and returns the state that it had.
    pub(super) fn settle_unknown(
        &self,
        account: &AccountContext<'_>,
        job: &Job,
        outcome: JobOutcome,
    ) -> MaybeFuture<Settled> {
        let tenant = tenant(account.client);
        let (inner, origin, plan, job) =
            (Arc::clone(&self.inner), self.origin, Arc::clone(account.plan), job.text.as_ref().into());
        MaybeFuture::future(async move {
            let key = Key { tenant: tenant?, job };
            if let Some(known) = inner.passing(&key) {
                return known;
            }
            // Read without a lock. Only the attempt that is found here is settled, so that a later one is not.
            let known = inner.read(inner.writer.database.job(&key.tenant, &key.job)).await?;
            // Again: the attempt may be of a job that has passed meanwhile.
            if let Some(known) = inner.passing(&key) {
                return known;
            }
            let rows = JobRows(&known.rows);
            let Some(attempt) = rows.latest() else { return Ok(None) };
            // The latest start of the windows of an admission lies in all of them.
            let began = rows.of(attempt).filter(|row| row.is_charge()).map(|row| row.window).max();
            let since = began.filter(|began| *began > 0).unwrap_or(u64::MAX);
            let kind = CommandKind::SettleJob { plan, attempt, since, outcome, running: false };
            let command = Command { key, id: new_id(), own: false, origin, kind };
            let state = |reply| if let Reply::Job(state) = reply { Some(state) } else { None };
            read_reply(inner.writer.submit(command).await, state)
        })
    }
}

impl<D: Database> LedgerInner<D> {
    /// Returns the reply about a job that passed without the ledger, which does not know it as this process does.
    fn passing(&self, key: &Key) -> Option<Settled> {
        match self.spool.as_ref()?.queue().claimed(key)? {
            Duplicate::Running => Some(Ok(Some(JobState::Running))),
            _ => Some(Err(StoreError::Unavailable)), // it waits in the spool
        }
    }
}
