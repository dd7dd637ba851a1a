//! Credits by the handle.

use super::{error::QuotaError, handle::Quotas};
use crate::{
    error::ConfigError,
    identity::Client,
    kind::Kind,
    quota::{CreditRequest, Credited},
};

impl Quotas {
    /// Gives back an amount of a kind after the fact, once for each id: for work that was charged and was worth nothing.
    ///
    /// It lowers the used amount of every counter of this kind that the client has in a window that is open, each at most
    /// to 0. Those are the counters of the client's present plan, and those of earlier plans, which count again if the
    /// client returns to them before their window ends. So a change of plans between a charge and its credit, or after
    /// it, makes no difference. [`Credited::amount`] is the most that one counter gave back. It is less than `amount` if
    /// less was used, and 0 if nothing was: reserved amounts, earlier windows and amounts before a [reset](Self::reset)
    /// are not given back.
    ///
    /// The same id again changes nothing and returns what stands, whatever else the call names. Ids are those of one
    /// client, and apart from job ids. A ledger keeps them, also when it archives; memory keeps as many and for as long as
    /// finished jobs ([`job_retention`](crate::QuotaLayer::job_retention),
    /// [`max_jobs_per_client`](crate::QuotaLayer::max_jobs_per_client)).
    ///
    /// A ledger writes an entry `adjust` with the id and the reason, and its invoice of the period in which the credit is
    /// written is lower by [`Credited::amount`].
    ///
    /// A credit is a statement of the operator and belongs to no charge. If a charge is credited and then returned as well,
    /// such as that of a job that fails, the client receives both: no counter falls below 0, but an invoice of the
    /// ledger is what was charged, less returned, less credited, and may be negative. Give credits after the work has
    /// ended.
    ///
    /// # Errors
    /// If no plan of the layer counts the kind over time, the amount is 0 or above 2^53 - 1, the id is not 1 to 255 visible
    /// ASCII characters or spaces, the reason is longer than 1,024 bytes or has a control character, the client has no
    /// account ([`UnknownAccount`](QuotaError::UnknownAccount)), memory has no room for another id, or the store does not
    /// answer. While a ledger is away there is no credit, whatever [`OnFailure`](crate::OnFailure) says.
    ///
    /// # Cancel safety
    /// If the future is dropped, the credit may take place or not; a call with the same id finds out.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use tollgate::{Client, Period, Plan, Quota, QuotaLayer};
    ///
    /// let plan = Plan::new("free").limit(Quota::units("tokens", 1_000).per(Period::month()));
    /// let (quotas, alice) = (QuotaLayer::new(plan).handle(), Client::named("alice"));
    /// quotas.charge(&alice, ("tokens", 700)).await.unwrap();
    /// let credited = quotas.credit(&alice, "ticket 4711", "tokens", 500, "garbled answer").await.unwrap();
    /// assert_eq!((credited.amount, credited.already), (500, false));
    /// let again = quotas.credit(&alice, "ticket 4711", "tokens", 500, "garbled answer").await.unwrap();
    /// assert_eq!((again.amount, again.already), (500, true));
    /// assert_eq!(quotas.usage(&alice).await.unwrap().limits[0].used, 200);
    /// # });
    /// ```
    pub async fn credit(
        &self,
        client: &Client,
        id: &str,
        kind: impl Into<Kind>,
        amount: u64,
        reason: &str,
    ) -> Result<Credited, QuotaError> {
        let request = CreditRequest::try_new(id, kind.into(), amount, reason)?;
        if !self.0.common.counts(&request.kind) {
            let must = "be one that a plan of the layer counts";
            return Err(ConfigError::quoted("unit", must, request.kind.as_str()).into());
        }
        Ok(self.call(client, |store, account| store.credit(account, &request)).await?)
    }
}
