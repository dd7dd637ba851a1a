//! The ledger, for those who use it.

use std::{any::Any, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use super::writer::{Reads, Row};
use super::{
    Database, DbError, LedgerError, LedgerInner, LedgerStore, Session, Spool, Timeouts,
    database::{Audited, CounterMismatch, Past, Sum},
    fallback::Fallback,
    new_id,
};
use crate::{
    error::ConfigError,
    quota::{
        OnFailure, QuotaStore,
        account::AccountSettings,
        store::{BackendFactory, QuotaBackend, StoreError},
    },
    time::Clock,
};

/// Quotas that are exact, and a ledger in which nothing is charged twice and nothing is lost; clones are the same ledger.
///
/// Layers that [keep their accounts](crate::QuotaLayer::store_in) in it share it, and so do other processes with the same
/// database. All that is charged is written by one task over one connection, many requests in one transaction; a request
/// is let pass when what it was charged is durable.
///
/// | to | there is |
/// |---|---|
/// | charge, reserve, record, grant, reset | the [`handle`](crate::QuotaLayer::handle) of a layer that keeps its accounts in it |
/// | export rows | [`entries`](Self::entries) |
/// | know what was used at a time | [`usage_at`](Self::usage_at) |
/// | audit the counts | [`reconcile`](Self::reconcile), [`repair`](Self::repair) |
/// | bill | [`invoice`](Self::invoice), [`push`](Self::push), [`compare`](Self::compare) |
/// | stop | [`shut_down`](Self::shut_down) |
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tollgate::{Client, Ledger, OnFailure, Period, Plan, Quota, QuotaLayer};
///
/// # let file = std::env::temp_dir().join(format!("tollgate-{}.db", fastrand::u64(..)));
/// let ledger = Ledger::sqlite(&file).open().await?;
/// let plan = Plan::new("paid").limit(Quota::units("tokens", 1_000).per(Period::month()));
/// let quotas = QuotaLayer::new(plan).store_in(&ledger, OnFailure::FailClosed).handle();
/// quotas.charge(&Client::named("acme"), ("tokens", 700)).await.unwrap();
/// quotas.charge(&Client::named("acme"), ("tokens", 700)).await.unwrap_err();
/// # std::fs::remove_file(file).unwrap();
/// # Ok::<_, tollgate::LedgerError>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Ledger(pub(super) Arc<dyn Kept>);

/// A ledger in some database.
pub(super) trait Kept: Send + Sync {
    fn accounts(
        &self,
        most: usize,
        settings: AccountSettings,
        clock: &Clock,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError>;
    fn spool(&self) -> Option<&Spool>;
    fn set_patience(&self, caller: Duration);
    fn shut(&self, most: Duration) -> Later<'_, ()>;
    fn backlog(&self) -> usize;
    fn entries<'a>(&'a self, which: &'a Which, most: usize) -> Later<'a, Result<Vec<Dated>, StoreError>>;
    /// The sums, and a time before which no row can be written any more.
    fn sums<'a>(&'a self, tenant: &'a str, from: u64, until: u64) -> Later<'a, Result<(u64, Vec<Sum>), StoreError>>;
    fn past<'a>(&'a self, tenant: &'a str, at: u64) -> Later<'a, Result<Vec<Past>, StoreError>>;
    fn drifts(&self, most: usize) -> Later<'_, Result<(u64, Vec<CounterMismatch>), StoreError>>;
    fn repair<'a>(&'a self, tenant: &'a str) -> Later<'a, Result<u64, StoreError>>;
    /// The database's clock, in nanoseconds since 1970.
    fn now(&self) -> Later<'_, Result<u64, StoreError>>;
    fn horizon(&self) -> Option<Duration>;
    fn set_horizon(&self, horizon: Duration);
    fn tenants<'a>(&'a self, after: Option<&'a str>, most: usize) -> Later<'a, Result<Vec<Arc<str>>, StoreError>>;
    fn seal(&self, before: u64) -> Later<'_, Result<u64, StoreError>>;
    fn sealed(&self) -> Later<'_, Result<u64, StoreError>>;
    fn archive<'a>(&'a self, tenant: &'a str, before: u64) -> Later<'a, Result<u64, StoreError>>;
    fn job<'a>(&'a self, tenant: &'a str, job: &'a str) -> Later<'a, Result<Vec<Row>, StoreError>>;
}

/// A row with its number and its time.
pub(super) type Dated = (i64, u64, Row);
pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which rows are read next.
#[derive(Clone, Debug)]
pub(super) struct Which {
    pub(super) tenant: String,
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) after: i64,
}

/// How long a caller waits for its answer by default, and how long a step of a transaction may take.
const TIMEOUTS: Timeouts = Timeouts { reply: Duration::from_secs(2), step: Duration::from_secs(5) };

impl Ledger {
    pub(super) fn new(database: impl Audited, spool: Option<Spool>) -> Result<Self, LedgerError> {
        let inner = LedgerInner::new(database, TIMEOUTS);
        let writer: Arc<dyn Any + Send + Sync> = Arc::clone(&inner.writer) as _;
        if spool.as_ref().is_some_and(|spool| !spool.shared().bind(&writer)) {
            return Err(LedgerError::new("a spool must belong to one ledger, got two"));
        }
        Ok(Self(Arc::new(Books { inner, spool })))
    }

    /// Returns the spool that the ledger was opened with.
    #[must_use]
    pub fn spool(&self) -> Option<&Spool> {
        self.0.spool()
    }

    /// Waits so long for each decision, and for what is read at once; 2 s by default. Whoever was not answered by then is
    /// treated as [`OnFailure`] says. It holds for all clones of this ledger.
    ///
    /// A deadline below what a busy database takes for a commit makes an outage of every busy moment.
    ///
    /// ```no_run
    /// # #[cfg(feature = "sqlite")]
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// use std::time::Duration;
    /// let ledger = tollgate::Ledger::sqlite("quota.db").open().await?.deadline(Duration::from_millis(250));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        self.0.set_patience(deadline);
        self
    }

    /// Ends it: takes no more orders, waits until all are written, and closes its connections; whoever still waits after
    /// `most` is told that it is unavailable. Without this the last one who has it ends it, and what is still to be written
    /// is written while the runtime lasts.
    ///
    /// Stop serving before: what settles a request that is still under way comes too late to be written, and its reservation
    /// ends by its time.
    ///
    /// Of a ledger in a file, all is then in that one file. A process that dies leaves two beside it, `-wal` and `-shm`,
    /// which belong to it until the next one opens it: whoever copies the one copies all three.
    ///
    /// ```
    /// # async fn example(ledger: tollgate::Ledger) {
    /// ledger.shut_down(std::time::Duration::from_secs(10)).await;
    /// # }
    /// ```
    pub async fn shut_down(&self, most: Duration) {
        self.0.shut(most).await;
    }

    /// How many orders are still to be written: a number that grows says that the database does not keep up.
    ///
    /// ```
    /// # fn example(ledger: tollgate::Ledger) {
    /// assert!(ledger.backlog() < 10_000);
    /// # }
    /// ```
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.0.backlog()
    }
}

/// A ledger and its spool. The spool is not part of the inner ledger, which a task holds for moments: its file is unlocked
/// as soon as the last handle and the last layer are dropped.
struct Books<D: Audited> {
    inner: Arc<LedgerInner<D>>,
    spool: Option<Spool>,
}

impl<D: Audited> Kept for Books<D> {
    fn accounts(
        &self,
        most: usize,
        settings: AccountSettings,
        clock: &Clock,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        let fallback = Fallback::new(self.spool.as_ref(), on_failure, most)?;
        Ok(LedgerStore::new(Arc::clone(&self.inner), fallback, most, settings, clock))
    }

    fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    fn set_patience(&self, caller: Duration) {
        self.inner.writer.set_reply_timeout(caller);
    }

    fn shut(&self, most: Duration) -> Later<'_, ()> {
        Box::pin(self.inner.writer.shut_down(most))
    }

    fn backlog(&self) -> usize {
        self.inner.writer.backlog()
    }

    fn entries<'a>(&'a self, which: &'a Which, most: usize) -> Later<'a, Result<Vec<Dated>, StoreError>> {
        let Which { tenant, from, until, after } = which;
        Box::pin(self.inner.read(self.inner.writer.database.entries(tenant, *from, *until, *after, most)))
    }

    fn sums<'a>(&'a self, tenant: &'a str, from: u64, until: u64) -> Later<'a, Result<(u64, Vec<Sum>), StoreError>> {
        let database = &self.inner.writer.database;
        Box::pin(self.inner.read_all(async move {
            let now = passed(database, tenant).await?;
            Ok((now, database.sums(tenant, from, until).await?))
        }))
    }

    fn past<'a>(&'a self, tenant: &'a str, at: u64) -> Later<'a, Result<Vec<Past>, StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.past(tenant, at)))
    }

    fn drifts(&self, most: usize) -> Later<'_, Result<(u64, Vec<CounterMismatch>), StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.drifts(most)))
    }

    fn repair<'a>(&'a self, tenant: &'a str) -> Later<'a, Result<u64, StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.repair(tenant)))
    }

    fn now(&self) -> Later<'_, Result<u64, StoreError>> {
        Box::pin(async { Ok(self.inner.read(self.inner.writer.database.account("")).await?.0) })
    }

    fn horizon(&self) -> Option<Duration> {
        self.inner.horizon().map(Duration::from_nanos)
    }

    fn set_horizon(&self, horizon: Duration) {
        self.inner.set_horizon(horizon);
    }

    fn tenants<'a>(&'a self, after: Option<&'a str>, most: usize) -> Later<'a, Result<Vec<Arc<str>>, StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.tenants(after, most)))
    }

    fn seal(&self, before: u64) -> Later<'_, Result<u64, StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.seal(before)))
    }

    fn sealed(&self) -> Later<'_, Result<u64, StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.sealed()))
    }

    fn archive<'a>(&'a self, tenant: &'a str, before: u64) -> Later<'a, Result<u64, StoreError>> {
        Box::pin(self.inner.read_all(self.inner.writer.database.archive(tenant, before, new_id())))
    }

    fn job<'a>(&'a self, tenant: &'a str, job: &'a str) -> Later<'a, Result<Vec<Row>, StoreError>> {
        Box::pin(self.inner.read(self.inner.writer.database.job(tenant, job)))
    }
}

/// The time under a tenant's lock: whoever had an earlier one has committed, for all read it under this lock.
async fn passed<D: Database>(database: &D, tenant: &str) -> Result<u64, DbError> {
    let mut session = database.connect().await?;
    let now = session.begin(&Reads { tenants: vec![tenant.into()], ..Reads::default() }).await?.now;
    session.roll_back().await?;
    Ok(now)
}

impl BackendFactory for Ledger {
    fn open(
        &self,
        most: usize,
        settings: AccountSettings,
        clock: &Clock,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        self.0.accounts(most, settings, clock, on_failure)
    }

    fn bills(&self) -> bool {
        true
    }
}

impl From<&Ledger> for QuotaStore {
    fn from(ledger: &Ledger) -> Self {
        Self(Arc::new(ledger.clone()))
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("backlog", &self.backlog()).finish_non_exhaustive()
    }
}
