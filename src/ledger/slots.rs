//! Concurrency slots of a layer. The process holds them in memory, because a process that dies could not return them to
//! a database.

use std::sync::Arc;

use crate::{
    gate::MaybeFuture,
    identity::Client,
    kind::Kind,
    quota::{
        Amounts, Plan, Usage,
        account::{AccountSettings, Denial, Now},
        memory::Accounts,
        store::{AccountContext, AdmitError, AdmitRequest, QuotaBackend, Receipt, Settlement, StoreError},
    },
    refusal::Violation,
    time::Clock,
};

/// The slots of one layer.
pub(super) struct LedgerSlots {
    accounts: Arc<Accounts>,
}

/// A slot that is released on drop, unless it is taken out.
pub(super) struct SlotGuard {
    slots: Arc<LedgerSlots>,
    receipt: Option<Receipt>,
    now: Now,
}

impl LedgerSlots {
    pub(super) fn new(most: usize, settings: AccountSettings, clock: &Clock) -> Arc<Self> {
        Arc::new(Self { accounts: Accounts::new(most, settings, clock) })
    }

    /// Acquires a slot, if the plan limits them and the request asks for one.
    pub(super) fn acquire(self: &Arc<Self>, request: &AdmitRequest<'_>) -> Result<Option<SlotGuard>, AdmitError> {
        let asked = request.charge.amounts.get(&Kind::Concurrent);
        let Some(asked) = asked.filter(|_| request.account.plan.concurrent().is_some()) else { return Ok(None) };
        let amounts = Amounts::from((Kind::Concurrent, asked));
        let mut request = *request;
        (request.charge.amounts, request.charge.each) = (&amounts, &[]);
        (request.charge.job, request.charge.reserve) = (None, false);
        (request.wants_nearest, request.wants_usage) = (false, false);
        let MaybeFuture::Ready(admitted) = self.accounts.admit(&request) else {
            return Err(StoreError::Unavailable.into()); // memory never waits
        };
        let receipt = Some(admitted?.receipt);
        Ok(Some(SlotGuard { slots: Arc::clone(self), receipt, now: request.account.now }))
    }

    /// Returns the concurrency limits without room for these amounts.
    pub(super) fn check(&self, account: &AccountContext<'_>, amounts: &Amounts) -> Vec<Violation> {
        let asked = amounts.get(&Kind::Concurrent).filter(|_| account.plan.concurrent().is_some());
        let Some(asked) = asked else { return Vec::new() };
        match self.accounts.check(account, &Amounts::from((Kind::Concurrent, asked))) {
            MaybeFuture::Ready(Err(AdmitError::Denied { denial: Denial::Limits(violations), .. })) => violations,
            _ => Vec::new(),
        }
    }

    /// Adds the usage of slots to the usage that the ledger returned, which has none.
    pub(super) fn merge_usage(&self, client: &Client, plan: &Arc<Plan>, now: Now, mut usage: Usage) -> Usage {
        if plan.concurrent().is_some()
            && let MaybeFuture::Ready(Ok(held)) = self.accounts.usage(&AccountContext { client, plan, now })
            && let (Some(last), Some(held)) = (usage.limits.last_mut(), held.limits.into_iter().next_back())
        {
            *last = held;
        }
        usage
    }

    pub(super) fn release(&self, receipt: &Receipt, now: Now) {
        if let Some(slot) = slot_of(receipt) {
            self.accounts.settle(&slot, &Settlement::Detached, now);
        }
    }

    pub(super) fn watch(&self, receipt: &Receipt, now: Now) {
        if let Some(slot) = slot_of(receipt) {
            self.accounts.watch(&slot, now);
        }
    }

    pub(super) fn progress(&self, receipt: &Receipt, now: Now) {
        if let Some(slot) = slot_of(receipt) {
            self.accounts.progress(&slot, &Amounts::new(), now);
        }
    }

    pub(super) fn population(&self) -> (usize, usize) {
        self.accounts.population()
    }
}

/// Returns the part of a receipt that holds a slot.
fn slot_of(receipt: &Receipt) -> Option<Receipt> {
    receipt.lease.is_some().then(|| Receipt { job: None, store_part: None, ..*receipt })
}

impl SlotGuard {
    pub(super) fn keep(mut self) -> Option<Receipt> {
        self.receipt.take()
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.slots.accounts.settle(&receipt, &Settlement::Void(&Amounts::new()), self.now);
        }
    }
}
