//! State that the handle, the stores of all layers and the reports of one ledger share.

use std::{
    any::Any,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::timeout;

use super::{Database, DbError, LedgerError, ReconcileReport, Spool, Timeouts, WriterTask, upkeep::Upkeep};
use crate::{
    gate::{Event, Observers},
    quota::store::StoreError,
};

/// One ledger. When it is dropped the writer takes no more commands, and ends once all are written.
pub(crate) struct LedgerInner<D: Database> {
    pub(super) writer: Arc<WriterTask<D>>,
    pub(super) upkeep: Arc<Upkeep<D>>,
    pub(super) spool: Option<Spool>,
    origins: AtomicU32,
    /// Time for which jobs are remembered, in nanoseconds; 0 for as long as their rows.
    horizon: AtomicU64,
}

/// Default time-outs of a caller's reply and of one step of a transaction.
const TIMEOUTS: Timeouts = Timeouts { reply: Duration::from_secs(2), step: Duration::from_secs(5) };

/// Time-out of a report.
const REPORT_TIMEOUT: Duration = Duration::from_secs(300);

impl<D: Database> LedgerInner<D> {
    /// Creates the state of a ledger and binds the spool to it. `id` is that of a ledger that is open; each later
    /// connection is checked too, so that none merges the spool into another ledger.
    ///
    /// # Errors
    /// If the spool belongs to another ledger, or has records of one.
    pub(super) fn new(
        database: D,
        spool: Option<Spool>,
        id: Option<u128>,
        observers: Observers,
    ) -> Result<Arc<Self>, LedgerError> {
        let writer = WriterTask::new(database, TIMEOUTS, observers);
        let ledger: Arc<dyn Any + Send + Sync> = Arc::clone(&writer) as _;
        if let Some(spool) = &spool {
            let queue = spool.queue();
            queue.bind(&ledger)?;
            id.map_or(Ok(()), |id| queue.name(id))?;
            let queue = Arc::clone(queue);
            writer.database.check_ledger(Box::new(move |id| Ok(queue.name(id)?)));
        }
        let (upkeep, origins) = (Upkeep::new(&writer), AtomicU32::new(1));
        Ok(Arc::new(Self { writer, upkeep, spool, origins, horizon: AtomicU64::new(0) }))
    }

    /// Returns the time for which jobs are remembered; `None` if it is as long as their rows.
    pub(super) fn horizon(&self) -> Option<u64> {
        Some(self.horizon.load(Ordering::Relaxed)).filter(|horizon| *horizon > 0)
    }

    pub(super) fn set_horizon(&self, horizon: Duration) {
        self.horizon.store(crate::time::nanos(horizon), Ordering::Relaxed);
    }

    /// Returns a number that distinguishes the layers of a ledger.
    pub(super) fn next_origin(&self) -> u32 {
        self.origins.fetch_add(1, Ordering::Relaxed)
    }

    /// Emits the numbers of a report to the observers of the ledger.
    pub(super) fn reconciled(&self, report: &ReconcileReport) {
        let (compared, drifts) = (report.compared, report.drifts.len() as u64);
        self.writer.observers.emit(&Event::Reconciled { store: D::STORE, compared, drifts });
    }

    /// Awaits a read, at most for the reply time-out of a caller.
    pub(super) async fn read<T>(&self, read: impl Future<Output = Result<T, DbError>>) -> Result<T, StoreError> {
        within(self.writer.reply_timeout(), read).await
    }

    /// Awaits a report, for at most 300 s.
    pub(super) async fn report<T>(&self, report: impl Future<Output = Result<T, DbError>>) -> Result<T, StoreError> {
        within(REPORT_TIMEOUT, report).await
    }
}

pub(super) async fn within<T>(most: Duration, read: impl Future<Output = Result<T, DbError>>) -> Result<T, StoreError> {
    match timeout(most, read).await {
        Ok(Err(DbError::Rejected(why))) => Err(StoreError::Rejected(why.into())),
        read => read.ok().and_then(Result::ok).ok_or(StoreError::Unavailable),
    }
}

impl<D: Database> Drop for LedgerInner<D> {
    fn drop(&mut self) {
        self.writer.close();
    }
}
