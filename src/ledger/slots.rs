//! Concurrency slots of a layer. The process holds them in memory, because a process that dies could not return them to
//! a database.

use std::sync::Arc;

use crate::{
    gate::MaybeFuture,
    identity::Client,
    kind::Kind,
    quota::{
        Amounts, Plan, Usage,
        account::{Denial, Now},
        memory::Accounts,
        store::{AccountContext, AdmitError, AdmitRequest, QuotaBackend, Receipt, Settlement, StoreError},
    },
    refusal::Violation,
};

/// A slot that is released on drop, unless it is taken out.
pub(super) struct SlotGuard {
    accounts: Arc<Accounts>,
    receipt: Option<Receipt>,
    now: Now,
}

/// Returns the slots that are asked for, if the plan limits them.
fn asked(plan: &Plan, amounts: &Amounts) -> Option<Amounts> {
    plan.concurrent().and_then(|_| amounts.get(&Kind::Concurrent)).map(|slots| Amounts::from((Kind::Concurrent, slots)))
}

/// Acquires a slot, if the plan limits them and the request asks for one.
pub(super) fn acquire(accounts: &Arc<Accounts>, request: &AdmitRequest<'_>) -> Result<Option<SlotGuard>, AdmitError> {
    let Some(amounts) = asked(request.account.plan, request.charge.amounts) else { return Ok(None) };
    let mut request = *request;
    (request.charge.amounts, request.charge.each) = (&amounts, &[]);
    (request.charge.job, request.charge.reserve) = (None, false);
    (request.wants_nearest, request.wants_usage) = (false, false);
    let MaybeFuture::Ready(admitted) = accounts.admit(&request) else {
        return Err(StoreError::Unavailable.into()); // memory never waits
    };
    let receipt = Some(admitted?.receipt);
    Ok(Some(SlotGuard { accounts: Arc::clone(accounts), receipt, now: request.account.now }))
}

/// Returns the concurrency limits without room for these amounts.
pub(super) fn check(accounts: &Accounts, account: &AccountContext<'_>, amounts: &Amounts) -> Vec<Violation> {
    let Some(amounts) = asked(account.plan, amounts) else { return Vec::new() };
    match accounts.check(account, &amounts) {
        MaybeFuture::Ready(Err(AdmitError::Denied { denial: Denial::Limits(violations), .. })) => violations,
        _ => Vec::new(),
    }
}

/// Adds the usage of slots to the usage that the ledger returned, which has none.
pub(super) fn merge_usage(accounts: &Accounts, client: &Client, plan: &Arc<Plan>, now: Now, mut usage: Usage) -> Usage {
    if plan.concurrent().is_some()
        && let MaybeFuture::Ready(Ok(held)) = accounts.usage(&AccountContext { client, plan, now })
        && let (Some(last), Some(held)) = (usage.limits.last_mut(), held.limits.into_iter().next_back())
    {
        *last = held;
    }
    usage
}

impl SlotGuard {
    pub(super) fn keep(mut self) -> Option<Receipt> {
        self.receipt.take()
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            self.accounts.settle(&receipt, &Settlement::Void(None), self.now);
        }
    }
}
