//! Settlement of jobs whose outcome is unknown, by operators.

use super::{
    error::QuotaError,
    handle::{Quotas, or_anonymous},
    jobs::{InvalidJob, job_of_id},
};
use crate::{
    error::ConfigError,
    identity::Client,
    quota::{JobOutcome, JobState},
};

impl Quotas {
    /// Settles a job whose outcome is unknown, by the id as it was sent: the job was done, or its id is to be free and its
    /// charge returned. Returns the state that the job had; `None` if no job of the client has the id. A job in another
    /// state than [`Unknown`](JobState::Unknown) does not change.
    ///
    /// The outcome of a job is unknown after its work was interrupted: the process was killed, the work panicked, the
    /// client left, or the response's body failed. Until then, and until it is settled, a repeat of the id is refused as
    /// [`JobOutcomeUnknown`](crate::Reason::JobOutcomeUnknown).
    ///
    /// Work under way in **another process** looks the same as interrupted work, for at most the layer's
    /// [`max_hold`](crate::QuotaLayer::max_hold) the refusal has a retry time. Make sure that the process has ended
    /// before you free the id: otherwise the job is done twice.
    ///
    /// # Errors
    /// If the id is not valid, or the store does not answer; memory always does.
    ///
    /// # Cancel safety
    /// A call that is dropped may have been carried out; repeat it.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tollgate::{Client, JobOutcome, JobRun, JobState, Plan, QuotaLayer, Reason};
    ///
    /// let (quotas, alice) = (QuotaLayer::new(Plan::standard()).handle(), Client::named("alice"));
    /// let print = || quotas.run_job(&alice, "order 17", ("queries", 20), async { "page" });
    /// let mut cut = Box::pin(quotas.run_job(&alice, "order 17", ("queries", 20), std::future::pending::<&str>()));
    /// # let _ = cut.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    /// // .. it is polled for a while, and dropped
    /// drop(cut);
    /// assert_eq!(print().await.unwrap_err().reason(), Reason::JobOutcomeUnknown);
    ///
    /// let before = quotas.settle_job(&alice, "order 17", JobOutcome::Free).await.unwrap();
    /// assert_eq!(before, Some(JobState::Unknown));
    /// assert_eq!(print().await.unwrap(), JobRun::Done("page"));
    /// # });
    /// ```
    pub async fn settle_job<'a>(
        &self,
        client: impl Into<Option<&'a Client>>,
        job_id: &str,
        outcome: JobOutcome,
    ) -> Result<Option<JobState>, QuotaError> {
        let client = or_anonymous(client.into());
        let job = job_of_id(job_id, &client, self.0.common.store.digester()).map_err(|InvalidJob| {
            ConfigError::quoted("id of a job", "be 1 to 255 visible ASCII characters or spaces", job_id)
        })?;
        Ok(self.call(&client, |store, account| store.settle_job(account, &job, outcome)).await?)
    }
}
