//! States of a job, and the two ways to settle one whose outcome is unknown.

/// State of a job, as [`settle_job`](crate::Quotas::settle_job) found it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{Client, JobOutcome, JobState, Plan, QuotaLayer};
///
/// let (quotas, alice) = (QuotaLayer::new(Plan::standard()).handle(), Client::named("alice"));
/// assert_eq!(quotas.settle_job(&alice, "order 17", JobOutcome::Free).await.unwrap(), None);
/// quotas.run_job(&alice, "order 17", ("queries", 20), async {}).await.unwrap();
/// let state = quotas.settle_job(&alice, "order 17", JobOutcome::Free).await.unwrap();
/// assert_eq!(state, Some(JobState::Done)); // and it stays charged
/// # });
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobState {
    /// Its work is under way in this process, or its end is being written.
    Running,
    /// Its work was done.
    Done,
    /// It is charged, and the outcome of its work is unknown: the work was interrupted, or is under way in another
    /// process.
    Unknown,
}

/// Outcome that an operator states for a job whose outcome is unknown.
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas, alice: &tollgate::Client) -> Result<(), tollgate::QuotaError> {
/// use tollgate::JobOutcome;
/// let printed = std::fs::exists("printed/order 17").unwrap_or(true);
/// quotas.settle_job(alice, "order 17", if printed { JobOutcome::Done } else { JobOutcome::Free }).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobOutcome {
    /// The work was done: the charge stays, and a repeat of the id is replayed.
    Done,
    /// The work was not done, or was undone: the charge is returned, and the id is free.
    Free,
}
