//! Store that falls back on a spool while its ledger is away.

use std::sync::{Arc, OnceLock};

use super::{decide::Fallback, merge::start_merging};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::{Client, Digester, Tier},
    ledger::{
        Database, LedgerReceipt, LedgerReservation, LedgerStore, slots,
        store::tenant,
        writer::{Command, Key},
    },
    quota::{
        ActiveGrant, Amounts, CreditRequest, Credited, Grant, GrantId, JobOutcome, JobState, OnFailure, Usage,
        account::{CloseResult, Job, Now},
        store::{
            AccountContext, AdmitError, AdmitRequest, AdmittedCharge, Bookmark, NearLimits, Page, PlanLookup,
            QuotaBackend, Receipt, ReservationKey, Settlement, StoreError, StoreListener,
        },
    },
};

/// Decorates a ledger store: admits while the ledger is away, and settles those charges in the spool.
pub(in crate::ledger) struct FallbackStore<D: Database> {
    store: LedgerStore<D>,
    fallback: Arc<Fallback>,
    /// Held here, so that the spool notifies no layer that is gone.
    listener: OnceLock<StoreListener>,
}

impl<D: Database> FallbackStore<D> {
    /// Returns a store that acts on failure as `on_failure` says, for at most `most` clients.
    ///
    /// # Errors
    /// If the ledger has no spool to fall back on.
    pub(in crate::ledger) fn over(
        store: LedgerStore<D>,
        on_failure: OnFailure,
        most: usize,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        let spool = store.inner.spool.as_ref();
        let fallback = Fallback::new(spool, on_failure, most)?;
        // Under fail closed too: a former process may have left records.
        if let Some(spool) = spool {
            start_merging(spool.queue(), &store.inner.writer);
        }
        let Some(fallback) = fallback else { return Ok(Arc::new(store)) };
        Ok(Arc::new(Self { store, fallback: Arc::new(fallback), listener: OnceLock::new() }))
    }

    /// Passes a settlement on: to the spool if the charge is in it.
    fn tell(&self, receipt: &Receipt, command: Option<Command>) -> NearLimits {
        if let Some(command) = command {
            let writer = &self.store.inner.writer;
            match LedgerReceipt::of(receipt) {
                Some(written) if written.id.passed => {
                    self.fallback.spool().settle(command);
                    start_merging(self.fallback.spool(), writer);
                }
                _ => writer.enqueue(command),
            }
        }
        NearLimits::default()
    }
}

/// Methods that the fallback does not change.
macro_rules! unchanged {
    ($(fn $name:ident(&self $(, $argument:ident: $type:ty)*) -> $result:ty;)*) => {
        $(fn $name(&self $(, $argument: $type)*) -> $result {
            self.store.$name($($argument),*)
        })*
    };
}

impl<D: Database> QuotaBackend for FallbackStore<D> {
    fn admit(&self, request: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>> {
        let (command, admitted) = match self.store.prepare(request, self.fallback.learns()) {
            Ok(prepared) => prepared,
            Err(error) => return MaybeFuture::Ready(Err(error)),
        };
        let (fallback, inner) = (Arc::clone(&self.fallback), Arc::clone(&self.store.inner));
        let wall = request.account.now.wall;
        MaybeFuture::future(async move {
            let (reply, passed) = fallback.decide(&inner.writer, command, wall).await?;
            Ok(admitted(reply, passed))
        })
    }

    fn settle(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> NearLimits {
        let command = self.store.settlement(receipt, end, now);
        if let (Some(_), Some(written)) = (&receipt.job, LedgerReceipt::of(receipt)) {
            let (spool, key) = (self.fallback.spool(), &written.id.key);
            match end {
                Settlement::Void(_) => spool.forget(key),
                Settlement::Served { .. } if written.id.passed => spool.finish(key, written.id.command, true),
                Settlement::Interrupted { .. } if written.id.passed => spool.finish(key, written.id.command, false),
                Settlement::Served { .. } => spool.remember_done(key),
                Settlement::Interrupted { .. } | Settlement::Detached => {}
            }
        }
        self.tell(receipt, command)
    }

    fn progress(&self, receipt: &mut Receipt, used: &Amounts, now: Now) -> NearLimits {
        let command = self.store.addition(receipt, used, now);
        self.tell(receipt, command)
    }

    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>> {
        // The ledger does not know a reservation that waits in the spool.
        if LedgerReservation::of(reserved).is_some_and(|id| id.passed) && !self.fallback.spool().is_empty() {
            return MaybeFuture::Ready(Err(StoreError::Unavailable));
        }
        self.store.close(reserved, actual, plan_of, now)
    }

    fn settle_job(
        &self,
        account: &AccountContext<'_>,
        job: &Job,
        outcome: JobOutcome,
    ) -> MaybeFuture<Result<Option<JobState>, StoreError>> {
        let key = match tenant(account.client) {
            Ok(tenant) => Key { tenant, job: job.text.as_ref().into() },
            Err(error) => return MaybeFuture::Ready(Err(error)),
        };
        let (settled, fallback) = (self.store.settle_job(account, job, outcome), Arc::clone(&self.fallback));
        MaybeFuture::future(async move {
            let settled = settled.await;
            if settled == Ok(Some(JobState::Unknown)) {
                match outcome {
                    JobOutcome::Done => fallback.spool().remember_done(&key),
                    JobOutcome::Free => fallback.spool().forget(&key),
                }
            }
            settled
        })
    }

    /// While the ledger is away, all amounts fit that an admission would let pass.
    fn check(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>> {
        let slots = slots::check(&self.store.slots, account, amounts);
        match self.store.check(account, amounts) {
            MaybeFuture::Future(checked) => MaybeFuture::future(async move {
                match checked.await {
                    Err(AdmitError::Store(StoreError::Unavailable)) => AdmitError::unless_none(slots, false),
                    checked => checked,
                }
            }),
            ready => ready,
        }
    }

    fn listen(&self, listener: StoreListener) {
        // Of its own: the writer keeps the other one for as long as the ledger is open.
        let notified = Arc::clone(&listener);
        let of_spool: StoreListener = Arc::new(move |event| notified(event));
        self.fallback.spool().listen(&of_spool);
        let _ = self.listener.set(of_spool); // a store has one listener
        self.store.listen(listener);
    }

    fn watch(&self, receipt: &Receipt, now: Now) {
        self.store.watch(receipt, now);
    }

    fn unwatch(&self, receipt: &Receipt) {
        self.store.unwatch(receipt);
    }

    unchanged! {
        fn reservation_key(&self, receipt: &Receipt) -> ReservationKey;
        fn record(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>>;
        fn usage(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>>;
        fn last_tier(&self, client: &Client) -> MaybeFuture<Result<Option<Tier>, StoreError>>;
        fn page(&self, from: Option<&Bookmark>, most: usize, plan_of: PlanLookup, now: Now) -> MaybeFuture<Result<Page, StoreError>>;
        fn reset(&self, account: &AccountContext<'_>, limit: Option<&str>) -> MaybeFuture<Result<(), StoreError>>;
        fn credit(&self, account: &AccountContext<'_>, request: &CreditRequest) -> MaybeFuture<Result<Credited, StoreError>>;
        fn grant(&self, account: &AccountContext<'_>, grant: Grant) -> MaybeFuture<Result<GrantId, StoreError>>;
        fn revoke(&self, account: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>>;
        fn grants(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>>;
        fn forget_idle(&self, from: u64, now: Now) -> Option<u64>;
        fn population(&self) -> (usize, usize);
        fn digester(&self) -> &Digester;
    }
}
