//! Port of the quota stores: what memory and a ledger implement.

use std::{any::Any, fmt, num::NonZeroU64, pin::Pin, sync::Arc};

use super::{
    ActiveGrant, Amounts, CreditRequest, Credited, Grant, GrantId, JobOutcome, JobState, Plan, Usage,
    account::{Account, AccountSettings, Changed, ChargeRequest, CloseResult, Cut, Denial, Job, Nearest, Now, Warning},
    layer::OnFailure,
    memory::RoomSettings,
};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::{Client, Cohort, Digester, Tier},
    refusal::Violation,
    sync::Lease,
};

/// Store of the accounts of a [`QuotaLayer`](crate::QuotaLayer): memory or a ledger.
///
/// ```
/// use tollgate::{QuotaStore, OnFailure, Plan, QuotaLayer};
/// let layer = QuotaLayer::new(Plan::standard()).store_in(QuotaStore::memory(), OnFailure::FailClosed);
/// ```
#[derive(Clone)]
pub struct QuotaStore(pub(crate) Arc<dyn BackendFactory>);

impl QuotaStore {
    /// Returns the store in memory, the default: exact in one process, and lost when the process ends.
    #[must_use]
    pub fn memory() -> Self {
        Self(Arc::new(crate::quota::memory::InMemory))
    }
}

impl fmt::Debug for QuotaStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuotaStore").finish_non_exhaustive()
    }
}

/// Opens the backend of a layer.
pub(crate) trait BackendFactory: Send + Sync {
    /// Opens the accounts of a layer, in this room if room is scarce.
    ///
    /// # Errors
    /// If the store does not support `on_failure`.
    fn open(
        &self,
        room: RoomSettings,
        settings: AccountSettings,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError>;

    /// Returns whether accounts are billed, so that each needs a public name and must not be lost.
    fn bills(&self) -> bool;
}

/// Accounts of one layer. Calls for one account are decided one at a time.
///
/// A call that may wait returns a [`MaybeFuture`], which may fail with [`StoreError`]. Calls that settle, report
/// progress or start a watch neither wait nor fail: a store that needs time for them has a task of its own.
pub(crate) trait QuotaBackend: Send + Sync + 'static {
    /// Admits all requested amounts, or none.
    fn admit(&self, request: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>>;

    /// As [`admit`](Self::admit), but writes a charge that is admitted at once to `admitted`, where it stays until the
    /// request ends. `admitted` is [blank](AdmittedCharge::default) before, and after any other decision.
    fn admit_in_place(&self, request: &AdmitRequest<'_>, admitted: &mut AdmittedCharge) -> StoreDecision {
        match self.admit(request) {
            MaybeFuture::Ready(Ok(charge)) => {
                *admitted = charge;
                StoreDecision::Admitted
            }
            MaybeFuture::Ready(Err(refused)) => StoreDecision::Refused(refused),
            MaybeFuture::Future(decision) => StoreDecision::Pending(decision),
        }
    }

    /// Settles an admitted charge.
    fn settle(&self, receipt: &Receipt, settlement: &Settlement<'_>, now: Now) -> NearLimits;

    /// Requires progress of an admitted request from now on. Its response has begun, so that a request without progress
    /// has a stalled reader.
    fn watch(&self, receipt: &Receipt, now: Now);

    /// Requires no progress of an admitted request any more. Its response has ended, and its work goes on.
    fn unwatch(&self, receipt: &Receipt);

    /// Records progress of an admitted request, and the amounts used since the last call.
    fn progress(&self, receipt: &mut Receipt, used: &Amounts, now: Now) -> NearLimits;

    /// Returns the key that closes a reservation once its receipt is gone.
    fn reservation_key(&self, receipt: &Receipt) -> ReservationKey;

    /// Closes a reservation by its key: commits the used amounts, or rolls back.
    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>>;

    /// Settles a job whose outcome is unknown, and returns the state that it had; `None` if no job has the id.
    fn settle_job(
        &self,
        account: &AccountContext<'_>,
        job: &Job,
        outcome: JobOutcome,
    ) -> MaybeFuture<Result<Option<JobState>, StoreError>>;

    /// Records used amounts, even beyond a limit.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] if a counter would exceed 2^53 - 1; then nothing is recorded.
    fn record(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>>;

    /// Returns the usage of each limit.
    fn usage(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>>;

    /// Checks whether all requested amounts could be admitted.
    fn check(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>>;

    /// Returns the tier under which a client was charged last, if it had one.
    fn last_tier(&self, client: &Client) -> MaybeFuture<Result<Option<Tier>, StoreError>> {
        MaybeFuture::Ready(Ok(client.tier().cloned()))
    }

    /// Returns the usage of at most `most` clients, beginning at `from` or at the first client.
    fn page(
        &self,
        from: Option<&Bookmark>,
        most: usize,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<Page, StoreError>>;

    /// Resets the counters of this limit name or kind, or all, to zero.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`] if the client has no account.
    fn reset(&self, account: &AccountContext<'_>, limit: Option<&str>) -> MaybeFuture<Result<(), StoreError>>;

    /// Gives back an amount that was used, once for each id of the client.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`] if the client has no account.
    fn credit(
        &self,
        account: &AccountContext<'_>,
        request: &CreditRequest,
    ) -> MaybeFuture<Result<Credited, StoreError>>;

    /// Raises a limit; creates the account if there is none.
    fn grant(&self, account: &AccountContext<'_>, grant: Grant) -> MaybeFuture<Result<GrantId, StoreError>>;

    /// Ends a grant early; returns whether there was one.
    fn revoke(&self, account: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>>;

    /// Returns the grants that have not ended.
    fn grants(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>>;

    /// Forgets clients of which nothing is left, among some accounts from `from` on. Returns the start of the next ones.
    fn forget_idle(&self, from: u64, now: Now) -> Option<u64> {
        let _ = (from, now);
        None // a store whose accounts are not in memory has none to forget
    }

    /// Returns the number of clients that have an account, and the greatest number that can have one.
    fn population(&self) -> (usize, usize);

    /// Returns the digester of job fingerprints.
    fn digester(&self) -> &Digester {
        Digester::process()
    }

    /// Reports to `listener` the events for which no caller waits.
    fn listen(&self, listener: StoreListener) {
        drop(listener); // a store that never waits has no such events
    }
}

/// Receiver of events for which no caller waits.
pub(crate) type StoreListener = Arc<dyn Fn(&StoreEvent) + Send + Sync>;

/// Event for which no caller waits.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "memory has no such events")]
pub(crate) enum StoreEvent {
    /// A client has come near its limits.
    Near(NearLimits),
    /// No counter took these parts of amounts.
    Cut(Cut),
    /// The store rejected a call or a settlement of this client for good, for this reason.
    Rejected { client: Client, why: Arc<str> },
    /// Another transaction holds the account of this client, and its requests pass without the store.
    Held(Client),
    /// The store is away, and requests pass without it.
    Lost(Arc<str>),
    /// The store is back.
    Back,
    /// The spool takes no more records.
    Full,
    /// A cohort has its part of the accounts, and its newcomers share accounts from now on.
    CohortFull(Cohort),
    /// This many records of the spool were merged; of these, `duplicates` had been charged before.
    Merged { records: u64, duplicates: u64 },
}

/// Reason why a store did not carry out a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "memory always answers")]
pub(crate) enum StoreError {
    /// The store is unavailable, and nothing has changed.
    Unavailable,
    /// The store did not reply in time, and the call may have been carried out.
    Indeterminate,
    /// The store rejects the call for good, for this reason, and nothing has changed.
    Rejected(Arc<str>),
    /// The store bills by public names, and the client has none.
    Nameless,
    /// The plan does not allow the call, and nothing has changed.
    Invalid(ConfigError),
    /// The client has no account, and nothing has changed.
    UnknownAccount,
}

/// Usage of some clients, and the start of the next page.
pub(crate) type Page = (Vec<(Client, Usage)>, Option<Bookmark>);

/// Finds the plan of a client while a page is assembled, which may take time.
pub(crate) type PlanLookup = Arc<dyn Fn(&Client) -> Arc<Plan> + Send + Sync>;

/// Start of a page in the list of all clients. Only the store that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(dead_code, reason = "memory counts its accounts")]
pub(crate) enum Bookmark {
    /// The number of an account in memory.
    At(u64),
    /// Name of the last client of the page before, in a store that sorts accounts by name.
    After(Box<str>),
}

/// Client, plan and time of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountContext<'a> {
    pub(crate) client: &'a Client,
    pub(crate) plan: &'a Arc<Plan>,
    pub(crate) now: Now,
}

/// Request to admit a charge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmitRequest<'a> {
    pub(crate) account: AccountContext<'a>,
    pub(crate) charge: ChargeRequest<'a>,
    /// Whether a response will report the limit nearest to exhaustion.
    pub(crate) wants_nearest: bool,
    /// Whether a handler will see the usage of all limits.
    pub(crate) wants_usage: bool,
}

/// Decision on a charge whose place is [given](QuotaBackend::admit_in_place).
pub(crate) enum StoreDecision {
    /// The charge is in its place.
    Admitted,
    Refused(AdmitError),
    /// The store waits for something.
    Pending(Pin<Box<dyn Future<Output = Result<AdmittedCharge, AdmitError>> + Send>>),
}

/// An admitted charge.
#[derive(Debug, Default)]
pub(crate) struct AdmittedCharge {
    pub(crate) receipt: Receipt,
    pub(crate) nearest: Option<Nearest>,
    /// Boxed and mostly `None`, because this value moves with the request and must be small.
    pub(crate) details: Option<Box<AdmissionDetails>>,
}

/// Details of the few admissions that have any.
#[derive(Debug, Default)]
pub(crate) struct AdmissionDetails {
    /// Set if the slot was reclaimed from a holder that was overdue.
    pub(crate) reclaimed: bool,
    /// The limits that the client has just come near.
    pub(crate) near: NearLimits,
    /// The warnings that the response must report.
    pub(crate) pending: Vec<Warning>,
    /// Usage of each limit, if it was requested.
    pub(crate) usage: Option<Usage>,
}

/// Effects of a call to report: the limits that a client has just come near, and amounts that were cut; mostly none.
#[derive(Clone, Debug, Default)]
pub(crate) struct NearLimits {
    pub(crate) client: Option<Client>,
    pub(crate) limits: Vec<Warning>,
    pub(crate) cut: Cut,
}

impl NearLimits {
    /// Keeps the client only if there is a limit to report; `None` stands for an account that clients share.
    pub(crate) fn of(client: Option<&Client>, limits: Vec<Warning>) -> Self {
        Self { client: if limits.is_empty() { None } else { client.cloned() }, limits, cut: Cut::default() }
    }

    /// Returns the effects of a change of an account; `client` as for [`of`](Self::of).
    pub(crate) fn after(client: Option<&Client>, account: &Account, changed: Changed) -> Self {
        let Changed { warned, cut } = changed;
        Self { cut, ..Self::of(client, account.warnings(warned)) }
    }
}

/// Reason why a charge was not admitted.
#[derive(Clone, Debug)]
pub(crate) enum AdmitError {
    /// The account denies the charge; `shared` if it is the account of clients for which there was no room.
    Denied { denial: Denial, shared: bool },
    /// The store did not decide.
    Store(StoreError),
}

impl AdmitError {
    /// Denies a charge that violates a limit.
    pub(crate) fn unless_none(violations: Vec<Violation>, shared: bool) -> Result<(), Self> {
        if violations.is_empty() { Ok(()) } else { Err(Self::Denied { denial: Denial::Limits(violations), shared }) }
    }
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Receipt by which a store finds an admitted charge again.
#[derive(Debug, Default)]
pub(crate) struct Receipt {
    pub(crate) address: AccountAddress,
    /// Epoch of the account in which it was charged.
    pub(crate) epoch: u64,
    pub(crate) lease: Option<Lease>,
    pub(crate) reservation: Option<NonZeroU64>,
    pub(crate) job: Option<Arc<Job>>,
    /// Set if the account must stay until the charge is settled.
    pub(crate) open: bool,
    /// Set if the account is the one of clients for which there was no room.
    pub(crate) shared: bool,
    /// Part that only the admitting store can read. In memory it is the usage that was reported since.
    pub(crate) store_part: Option<Box<dyn Any + Send + Sync>>,
}

/// Key of a reservation in its store. Other stores do not know it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReservationKey {
    /// In memory: the number of the accounts, the address of the account among them, and the reservation in it. Those
    /// could be guessed; the proof, a keyed hash of them, cannot.
    Memory { accounts: u64, address: AccountAddress, reservation: NonZeroU64, proof: u64 },
    /// In a store whose reservation ids are texts, which never begin with `m-`.
    Named(Box<str>),
}

/// Slot of an account in memory, and the generation of the slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct AccountAddress {
    pub(crate) shard: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// Charged amounts, and the plan of the client under which they were charged.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "a ledger reads both from its rows and receipts")]
pub(crate) struct PlanCharge<'a> {
    pub(crate) amounts: &'a Amounts,
    pub(crate) plan: &'a Arc<Plan>,
}

/// Settlement of a charge.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settlement<'a> {
    /// Refunds these charged amounts, if there are any, and releases everything that was reserved.
    Void(Option<PlanCharge<'a>>),
    /// Charges `used` in addition to the admission, and `actual` of the reservation. A kind that `actual` does not name
    /// is charged as estimated.
    Served { used: &'a Amounts, actual: &'a Amounts },
    /// As `Served`, for a job whose work was interrupted, so that its outcome is unknown. `charged` are the amounts that
    /// a void would refund.
    Interrupted { used: &'a Amounts, actual: &'a Amounts, charged: PlanCharge<'a> },
    /// Releases the slot. The reservation stays open and can be closed by its id.
    Detached,
}
