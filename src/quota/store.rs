//! Where the accounts of a quota are kept: the door behind which memory, a database or a shared store stands.

use std::{any::Any, fmt, num::NonZeroU64, sync::Arc};

use super::{
    ActiveGrant, Amounts, Grant, GrantId, Plan, Usage,
    account::{AccountSettings, ChargeRequest, Denial, Job, Nearest, Now, Stage, Warning},
    layer::OnFailure,
};
use crate::{
    error::ConfigError,
    gate::MaybeFuture,
    identity::{Client, Digester},
    sync::Lease,
    time::Clock,
};

/// Where the accounts of a [`QuotaLayer`](crate::QuotaLayer) are kept: in memory, or in a ledger.
///
/// ```
/// use tollgate::{QuotaStore, OnFailure, Plan, QuotaLayer};
/// let layer = QuotaLayer::new(Plan::standard()).store_in(QuotaStore::memory(), OnFailure::FailClosed);
/// ```
#[derive(Clone)]
pub struct QuotaStore(pub(crate) Arc<dyn BackendFactory>);

impl QuotaStore {
    /// In memory, the default: exact in one process, and gone with it.
    ///
    /// ```
    /// let store = tollgate::QuotaStore::memory();
    /// ```
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

/// Makes the accounts of a layer.
pub(crate) trait BackendFactory: Send + Sync {
    /// Opens accounts with room for `most`, where room is scarce.
    ///
    /// # Errors
    /// If the store cannot do on failure what `on_failure` says.
    fn open(
        &self,
        most: usize,
        settings: AccountSettings,
        clock: &Clock,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError>;

    /// Whether they are billed, and so need a public name and are not to be lost.
    fn bills(&self) -> bool;
}

/// Keeps accounts, and decides on them one at a time.
///
/// What must be waited for is a [`MaybeFuture`], and may come to [`StoreError`]; the end of a charge never is and never does: a
/// store that needs time for it has a task of its own.
pub(crate) trait QuotaBackend: Send + Sync + 'static {
    /// Takes everything that is asked for, or nothing.
    fn admit(&self, order: &AdmitRequest<'_>) -> MaybeFuture<Result<AdmittedCharge, AdmitError>>;

    /// The end of what was admitted.
    fn settle(&self, receipt: &Receipt, end: &Settlement<'_>, now: Now) -> NearLimits;

    /// The response to what was admitted has begun: if nothing more is heard of it, its reader is stuck.
    fn watch(&self, receipt: &Receipt, now: Now);

    /// What was admitted goes on, and has used so much since it was last heard of.
    fn progress(&self, receipt: &Receipt, used: &Amounts, now: Now) -> NearLimits;

    /// By what a reservation is ended when its receipt is gone.
    fn reservation_key(&self, receipt: &Receipt) -> ReservationKey;

    /// Ends a reservation by its id: with what was used, or with nothing.
    fn close(
        &self,
        reserved: &ReservationKey,
        actual: Option<&Amounts>,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<(CloseResult, NearLimits), StoreError>>;

    /// Notes what was used, whether there was room for it or not.
    fn record(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<NearLimits, StoreError>>;

    /// What is used of each limit.
    fn usage(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Usage, StoreError>>;

    /// Whether everything that is asked for could be taken.
    fn check(&self, account: &AccountContext<'_>, amounts: &Amounts) -> MaybeFuture<Result<(), AdmitError>>;

    /// The usage of some clients, and where to go on; from the first where `from` is `None`.
    fn page(
        &self,
        from: Option<&Bookmark>,
        most: usize,
        plan_of: PlanLookup,
        now: Now,
    ) -> MaybeFuture<Result<Page, StoreError>>;

    /// Counts the limits of this name or kind, or all of them, from zero.
    fn reset(
        &self,
        account: &AccountContext<'_>,
        limit: Option<&str>,
    ) -> MaybeFuture<Result<Result<(), ConfigError>, StoreError>>;

    /// Raises a limit.
    fn grant(
        &self,
        account: &AccountContext<'_>,
        grant: Grant,
    ) -> MaybeFuture<Result<Result<GrantId, ConfigError>, StoreError>>;

    /// Ends a grant before its time.
    fn revoke(&self, account: &AccountContext<'_>, id: GrantId) -> MaybeFuture<Result<bool, StoreError>>;

    /// The grants that have not ended.
    fn grants(&self, account: &AccountContext<'_>) -> MaybeFuture<Result<Vec<ActiveGrant>, StoreError>>;

    /// How many clients have an account, and how many could have one.
    fn population(&self) -> (usize, usize);

    /// What fingerprints of jobs are made with.
    fn digester(&self) -> &Digester {
        Digester::process()
    }

    /// Tells `hear` of what nobody waited for.
    fn listen(&self, listener: StoreListener) {
        drop(listener); // whoever answers at once has nothing to tell later
    }
}

/// Whoever hears of what nobody waited for.
pub(crate) type StoreListener = Arc<dyn Fn(&StoreEvent) + Send + Sync>;

/// What a store tells when nobody waits for it.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(any(test, feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "memory has nothing to tell later")
)]
pub(crate) enum StoreEvent {
    /// A client has come near to its limits.
    Near(NearLimits),
    /// The store rejected a call or a settlement of this client for good, for this reason.
    Rejected {
        client: Client,
        why: Arc<str>,
    },
    /// The store is away, and requests pass without it; it is back.
    Lost(Arc<str>),
    Back,
    /// Nothing more can be kept for it.
    Full,
    /// So much of what was kept for it is there now; of that, so many had been charged before.
    Merged {
        records: u64,
        duplicates: u64,
    },
}

/// Why a store has not answered what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(any(test, feature = "sqlite", feature = "postgres")),
    expect(dead_code, reason = "memory always answers")
)]
pub(crate) enum StoreError {
    /// It cannot be reached, and nothing has changed.
    Unavailable,
    /// It did not say in time whether it was done.
    Indeterminate,
    /// It rejects the call for good, for this reason, and nothing has changed.
    Rejected(Arc<str>),
    /// It bills by public names, and the client has none.
    Nameless,
}

/// The usage of some clients, and where to go on.
pub(crate) type Page = (Vec<(Client, Usage)>, Option<Bookmark>);

/// The plan that a client has: asked for while a page is put together, which may take its time.
pub(crate) type PlanLookup = Arc<dyn Fn(&Client) -> Arc<Plan> + Send + Sync>;

/// Where in the list of all clients a page begins; a store knows only its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bookmark {
    /// At a number, which memory counts its accounts by.
    At(u64),
    /// After the client of this name, where accounts are sorted by name.
    #[cfg_attr(not(any(test, feature = "sqlite", feature = "postgres")), expect(dead_code, reason = "memory counts"))]
    After(Box<str>),
}

/// Whose account, under which plan, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AccountContext<'a> {
    pub(crate) client: &'a Client,
    pub(crate) plan: &'a Arc<Plan>,
    pub(crate) now: Now,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmitRequest<'a> {
    pub(crate) account: AccountContext<'a>,
    pub(crate) charge: ChargeRequest<'a>,
    /// Whether a response will tell of the limit that is nearest to its end.
    pub(crate) wants_nearest: bool,
    /// Whether somebody wants to see all of them.
    pub(crate) wants_usage: bool,
}

/// What was taken, and from where.
#[derive(Debug)]
pub(crate) struct AdmittedCharge {
    pub(crate) receipt: Receipt,
    pub(crate) nearest: Option<Nearest>,
    /// Mostly nothing: an admission is moved about with the request, and has to be small.
    pub(crate) details: Option<Box<AdmissionDetails>>,
}

/// What there is to tell about few admissions.
#[derive(Debug, Default)]
pub(crate) struct AdmissionDetails {
    /// Another lost the slot for it.
    pub(crate) reclaimed: bool,
    /// The limits that the client has just come near to, and those of which the response must tell.
    pub(crate) near: NearLimits,
    pub(crate) pending: Vec<Warning>,
    /// What is used of each limit, where somebody wants to see it.
    pub(crate) usage: Option<Usage>,
}

/// Who has just come near which limits: mostly nobody, to none.
#[derive(Clone, Debug, Default)]
pub(crate) struct NearLimits {
    pub(crate) client: Option<Client>,
    pub(crate) limits: Vec<Warning>,
}

/// Why nobody may pass.
#[derive(Clone, Debug)]
pub(crate) enum AdmitError {
    /// Nothing was taken, perhaps from an account that newcomers share.
    Denied { denial: Denial, shared: bool },
    /// The store did not decide.
    Store(StoreError),
}

impl From<StoreError> for AdmitError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// By what a store finds again what it admitted.
#[derive(Default)]
pub(crate) struct Receipt {
    pub(crate) address: AccountAddress,
    pub(crate) epoch: u32,
    pub(crate) lease: Option<Lease>,
    pub(crate) reservation: Option<NonZeroU64>,
    pub(crate) job: Option<Arc<Job>>,
    /// The account is kept until the charge is settled.
    pub(crate) open: bool,
    /// It is from an account that newcomers share.
    pub(crate) shared: bool,
    /// Part that only the admitting store can read; `None` in memory.
    pub(crate) store_part: Option<Box<dyn Any + Send + Sync>>,
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, epoch, lease, reservation, job, open, shared, store_part } = self;
        f.debug_struct("Receipt")
            .field("address", address)
            .field("epoch", epoch)
            .field("lease", lease)
            .field("reservation", reservation)
            .field("job", job)
            .field("open", open)
            .field("shared", shared)
            .field("store_part", &store_part.is_some())
            .finish()
    }
}

/// By what a store finds again what was set aside; it knows nothing of what another store set aside.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ReservationKey {
    /// In memory: in which accounts, by their own number, in which of them, and under which number there.
    Memory { accounts: u64, address: AccountAddress, reservation: NonZeroU64 },
    /// Where reservations have a text as their id, which does not begin with `m-`.
    Named(Box<str>),
}

/// Where an account is, and which of those that were there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct AccountAddress {
    pub(crate) shard: u32,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// How the end of a reservation by its id turned out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseResult {
    /// It was open, and has now ended.
    Closed,
    /// Its time had run out.
    Expired,
    /// It had ended before, in this way.
    AlreadyClosed(Stage),
    /// Nobody remembers it.
    Unknown,
}

/// How a charge ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Settlement<'a> {
    /// It came to nothing: these amounts, which were charged, and all that was set aside go back.
    Void(&'a Amounts),
    /// It was served: so much was used besides what was charged, and so much of what was set aside; of what is not named,
    /// as much as was estimated.
    Served { used: &'a Amounts, actual: &'a Amounts },
    /// Its slot comes back, what it reserved stays open: it can be ended by its id.
    Detached,
}
