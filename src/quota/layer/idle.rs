//! Release of the memory of idle clients.

use std::{future::poll_fn, task::Poll};

use super::handle::Quotas;

impl Quotas {
    /// Forgets all clients of which nothing is left: no usage in a window that has not ended, no reservation, grant,
    /// remembered job or request in flight.
    ///
    /// No call is needed: requests forget idle clients in passing, one account after the other, and newcomers visit
    /// several. The number of accounts never grows beyond [`max_clients`](Self::max_clients). But on a quiet server the
    /// memory of a flood takes about 16 requests for each account to be released, and without requests it stays. A task
    /// visits a million accounts in about 0.2 s. It yields to other tasks after 4,096 accounts, and no request waits
    /// for more than 8:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tollgate::{Plan, QuotaLayer};
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let quotas = QuotaLayer::new(Plan::standard()).handle();
    /// tokio::spawn(async move {
    ///     let mut minutes = tokio::time::interval(Duration::from_secs(60));
    ///     loop {
    ///         minutes.tick().await;
    ///         quotas.forget_idle().await;
    ///     }
    /// });
    /// # });
    /// ```
    ///
    /// In a ledger it forgets the clients whose requests in flight were limited. Their rows stay.
    ///
    /// # Cancel safety
    /// If the future is dropped, the accounts that it has visited are forgotten, and the others stay.
    pub async fn forget_idle(&self) {
        let common = &self.0.common;
        let mut from = Some(0);
        while let Some(at) = from {
            from = common.store.forget_idle(at, common.now());
            let_others_run().await;
        }
    }
}

/// Yields to other tasks once.
pub(super) async fn let_others_run() {
    let mut yielded = false;
    poll_fn(|cx| match std::mem::replace(&mut yielded, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}
