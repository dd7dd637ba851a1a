//! Work that is charged exactly once, outside HTTP.

use std::{error::Error, fmt, future::Future, sync::Arc};

use super::{
    active_plan::ActivePlan,
    handle::{Quotas, or_anonymous},
    jobs::{InvalidJob, job_of_handle},
    policy::Common,
};
use crate::{
    identity::Client,
    kind::Kind,
    quota::{
        Amounts,
        account::ChargeRequest,
        store::{PlanCharge, Receipt, Settlement},
    },
    refusal::Refusal,
};

/// Result of a job that was not refused.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, JobRun, Plan, QuotaLayer};
///
/// let (quotas, alice) = (QuotaLayer::new(Plan::standard()).handle(), Client::named("alice"));
/// let scan = || quotas.run_job(&alice, "order 17", ("queries", 20), async { 42 });
/// assert_eq!(scan().await.unwrap(), JobRun::Done(42));
/// assert_eq!(scan().await.unwrap(), JobRun::Replayed);
/// assert_eq!(quotas.usage(&alice).await.unwrap().get("queries_per_hour").unwrap().used, 20);
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobRun<T> {
    /// The work was done; this is its output.
    Done(T),
    /// The job was done before: nothing was charged, and the work was not polled.
    Replayed,
}

impl Quotas {
    /// Charges all these amounts and runs `work`, once for each id. If the plan limits requests in flight, a slot is
    /// held until the work has ended. `None` stands for the shared client of unidentified requests.
    ///
    /// An id is 1 to 255 visible ASCII characters or spaces, and belongs to its client. It is remembered as long as
    /// those of requests: [24 h](crate::QuotaLayer::job_retention) by default, in a ledger as long as its rows are
    /// stored. An id names one job only: the id of a request's job is refused here as that of another job.
    ///
    /// # Errors
    /// The [`Refusal`]; then `work` was never polled. Four of its [`reason`](Refusal::reason)s concern the id:
    /// [`JobRunning`](crate::Reason::JobRunning) if the same job is under way,
    /// [`JobOutcomeUnknown`](crate::Reason::JobOutcomeUnknown) if it was begun before and its
    /// [outcome](crate::JobIdSource#outcomes) is unknown,
    /// [`JobConflict`](crate::Reason::JobConflict) if the id was sent with other amounts, and
    /// [`InvalidJobId`](crate::Reason::InvalidJobId) if the id is not valid.
    ///
    /// # Cancel safety
    /// If the future is dropped before its first poll, nothing is charged and the id is free. If it is dropped while
    /// `work` runs, or the work panics, its outcome is unknown: the charge stays and the id is taken until
    /// [`settle_job`](Self::settle_job), unless the layer has [`free_unfinished`](crate::QuotaLayer::free_unfinished). The
    /// slot is released.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// # use tollgate::{Client, JobRun, Plan, QuotaLayer, Reason};
    /// # let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// let alice = Client::named("alice");
    /// let done = quotas.run_job(&alice, "order 17", ("queries", 20), async { "rows" }).await.unwrap();
    /// assert_eq!(done, JobRun::Done("rows"));
    /// let other = quotas.run_job(&alice, "order 17", ("queries", 21), async { "rows" }).await.unwrap_err();
    /// assert_eq!(other.reason(), Reason::JobConflict);
    /// # });
    /// ```
    pub async fn run_job<'a, T>(
        &self,
        client: impl Into<Option<&'a Client>>,
        job_id: &str,
        amounts: impl Into<Amounts>,
        work: impl Future<Output = T>,
    ) -> Result<JobRun<T>, Refusal> {
        let Some(job) = self.begin_job(client.into(), job_id, amounts.into()).await? else {
            return Ok(JobRun::Replayed);
        };
        let output = work.await;
        job.finish(true);
        Ok(JobRun::Done(output))
    }

    /// As [`run_job`](Self::run_job), for work that may fail. An `Err` of the work frees the id and returns the charge, so
    /// that a retry under the same id runs again.
    ///
    /// # Errors
    /// [`JobError::Refused`] as [`run_job`](Self::run_job), [`JobError::Failed`] with the error of `work`.
    ///
    /// # Cancel safety
    /// As [`run_job`](Self::run_job).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tollgate::{Client, JobError, JobRun, Plan, QuotaLayer};
    ///
    /// let (quotas, alice) = (QuotaLayer::new(Plan::standard()).handle(), Client::named("alice"));
    /// let render = async |ready: bool| if ready { Ok("page") } else { Err("no printer") };
    /// let failed = quotas.try_run_job(&alice, "order 17", ("queries", 20), render(false)).await;
    /// assert!(matches!(failed, Err(JobError::Failed("no printer"))));
    /// assert_eq!(quotas.usage(&alice).await.unwrap().get("queries_per_hour").unwrap().used, 0);
    /// let done = quotas.try_run_job(&alice, "order 17", ("queries", 20), render(true)).await;
    /// assert_eq!(done.unwrap(), JobRun::Done("page"));
    /// # });
    /// ```
    pub async fn try_run_job<'a, T, E>(
        &self,
        client: impl Into<Option<&'a Client>>,
        job_id: &str,
        amounts: impl Into<Amounts>,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<JobRun<T>, JobError<E>> {
        let Some(job) = self.begin_job(client.into(), job_id, amounts.into()).await? else {
            return Ok(JobRun::Replayed);
        };
        let output = work.await;
        job.finish(output.is_ok());
        output.map(JobRun::Done).map_err(JobError::Failed)
    }

    /// Charges a job; `None` if it was begun before.
    async fn begin_job(
        &self,
        client: Option<&Client>,
        job_id: &str,
        mut amounts: Amounts,
    ) -> Result<Option<BegunJob<'_>>, Refusal> {
        let client = or_anonymous(client);
        let job = job_of_handle(job_id, &client, &amounts, self.0.common.store.digester());
        let job = job.map_err(|InvalidJob| self.refused(&client, self.0.bad_job_id()))?;
        amounts.set(&Kind::Concurrent, 1);
        let ask =
            ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: true, job: Some(&job) };
        let begun = self.begin(&client, ask).await?;
        Ok(begun.map(|(receipt, active)| BegunJob { common: &self.0.common, receipt: Some(receipt), active, amounts }))
    }
}

/// Error of a job whose work may fail.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas, alice: &tollgate::Client) {
/// use tollgate::JobError;
/// let work = async { std::fs::read_to_string("orders/17") };
/// match quotas.try_run_job(alice, "order 17", ("queries", 20), work).await {
///     Ok(_) => println!("done, now or before"),
///     Err(JobError::Refused(refusal)) => println!("not begun: {refusal}"),
///     Err(error) => println!("begun and failed, nothing charged: {error}"),
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobError<E> {
    /// The job was refused, and its work was not polled.
    Refused(Refusal),
    /// The work failed. Its id is free, and its charge is returned.
    Failed(E),
}

impl<E> From<Refusal> for JobError<E> {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl<E: fmt::Display> fmt::Display for JobError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl<E: Error> Error for JobError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Refused(_) => None,
            Self::Failed(error) => error.source(),
        }
    }
}

/// A job under way. Dropped before its end, it is unfinished.
struct BegunJob<'a> {
    common: &'a Common,
    /// `None` once it has ended.
    receipt: Option<Receipt>,
    /// The plan under which it was charged.
    active: Arc<ActivePlan>,
    amounts: Amounts,
}

impl BegunJob<'_> {
    /// Ends the job: its work is done, or has failed.
    fn finish(mut self, done: bool) {
        let none = Amounts::new();
        let served = Settlement::Served { used: &none, actual: &none };
        if let Some(receipt) = self.receipt.take() {
            let charged = PlanCharge { amounts: &self.amounts, plan: &self.active.plan };
            self.common.settle(&receipt, &if done { served } else { Settlement::Void(Some(charged)) });
        }
    }
}

impl Drop for BegunJob<'_> {
    fn drop(&mut self) {
        let (Some(receipt), none) = (self.receipt.take(), Amounts::new()) else { return };
        let charged = PlanCharge { amounts: &self.amounts, plan: &self.active.plan };
        let interrupted = Settlement::Interrupted { used: &none, actual: &none, charged };
        let frees = self.common.settings.free_unfinished;
        self.common.settle(&receipt, &if frees { Settlement::Void(Some(charged)) } else { interrupted });
    }
}
