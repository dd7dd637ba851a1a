//! Jobs outside http: work that is done and charged once, however often it is asked for.

use std::future::Future;

use super::{
    handle::{Quotas, or_anonymous},
    job_id::{Bad, by_hand},
    policy::QuotaPolicy,
};
use crate::{
    identity::Client,
    kind::Kind,
    quota::{
        Amounts,
        account::ChargeRequest,
        store::{Receipt, Settlement},
    },
    refusal::Refusal,
};

/// How a job went that was not refused.
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
pub enum JobRun<T> {
    /// The work was done, and came to this.
    Done(T),
    /// It was done, or at least begun, before: this time nothing was charged and the work was not polled.
    Replayed,
}

impl Quotas {
    /// Charges all of this and runs `work`, once for each id; where the plan limits requests at a time, it takes a place
    /// until the work has ended. Without a client it is the anonymous one's.
    ///
    /// An id is 1 to 255 visible ASCII characters or spaces, and belongs to its client. It is remembered as long as those of
    /// requests, [24 hours](crate::QuotaLayer::job_retention) by default and in a ledger as long as its rows are kept, and
    /// means one job only: what a request has named is another job.
    ///
    /// # Errors
    /// The [`Refusal`]; then `work` was never polled. Of its [`reason`](Refusal::reason)s
    /// [`JobRunning`](crate::Reason::JobRunning) says that the same job is under way,
    /// [`JobConflict`](crate::Reason::JobConflict) that the id was sent with other amounts, and
    /// [`InvalidJobId`](crate::Reason::InvalidJobId) that it cannot be one.
    ///
    /// # Cancel safety
    /// Dropped before it was polled, nothing is charged and the id is free. Dropped while the work is under way, or where
    /// the work panics, the charge stays and the id is taken, for nobody knows how far it came; the place comes back.
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
        let (client, mut amounts) = (or_anonymous(client.into()), amounts.into());
        let job = by_hand(job_id, &client, &amounts, self.0.common.store.digester());
        let job = job.map_err(|Bad| self.refused(&client, self.0.bad_job_id()))?;
        amounts.set(&Kind::Concurrent, 1);
        let ask =
            ChargeRequest { amounts: &amounts, each: &[], reserve: false, lasting: false, open: true, job: Some(&job) };
        let Some(receipt) = self.begin(&client, ask).await? else { return Ok(JobRun::Replayed) };
        let _begun = Begun { policy: &self.0, receipt };
        Ok(JobRun::Done(work.await))
    }
}

/// A job under way: however it ends, its charge stays and its id is taken.
struct Begun<'a> {
    policy: &'a QuotaPolicy,
    receipt: Receipt,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let (none, now) = (Amounts::new(), self.policy.common.now());
        let near =
            self.policy.common.store.settle(&self.receipt, &Settlement::Served { used: &none, actual: &none }, now);
        self.policy.common.warn(&near);
    }
}
