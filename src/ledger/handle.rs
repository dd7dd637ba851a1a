//! The handle of a ledger.

use std::{fmt, sync::Arc, time::Duration};

#[cfg(feature = "postgres")]
use super::postgres::PostgresDatabase;
#[cfg(feature = "sqlite")]
use super::sqlite::SqliteDatabase;
use super::{Database as _, LedgerError, LedgerInner, LedgerStore, Spool};
use crate::{
    error::ConfigError,
    quota::{
        OnFailure, QuotaStore,
        account::AccountSettings,
        memory::RoomSettings,
        store::{BackendFactory, QuotaBackend},
    },
};

/// Quota store in SQL that charges nothing twice and loses no acknowledged charge; clones are the same ledger.
///
/// Layers that [store their accounts](crate::QuotaLayer::store_in) in it share it, and so do other processes with the
/// same database. One task writes all charges over one connection, many requests in one transaction; in PostgreSQL a
/// second one waits for accounts that other sessions hold. A request passes once its charge is durable.
///
/// | task | method |
/// |---|---|
/// | charge, reserve, record, credit, grant, reset | the [`handle`](crate::QuotaLayer::handle) of a layer that stores its
/// accounts in it |
/// | export rows | [`entries`](Self::entries) |
/// | usage at a past time | [`usage_at`](Self::usage_at) |
/// | audit the counters | [`reconcile`](Self::reconcile), [`repair`](Self::repair) |
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
pub struct Ledger(pub(super) AnyInner);

/// A ledger in one of the databases.
#[derive(Clone)]
pub(super) enum AnyInner {
    #[cfg(feature = "sqlite")]
    Sqlite(Arc<LedgerInner<SqliteDatabase>>),
    #[cfg(feature = "postgres")]
    Postgres(Arc<LedgerInner<PostgresDatabase>>),
}

/// Evaluates an expression over the inner ledger, whichever its database is.
macro_rules! on_database {
    ($ledger:expr, $inner:ident => $of:expr) => {
        match &$ledger.0 {
            #[cfg(feature = "sqlite")]
            $crate::ledger::handle::AnyInner::Sqlite($inner) => $of,
            #[cfg(feature = "postgres")]
            $crate::ledger::handle::AnyInner::Postgres($inner) => $of,
        }
    };
}
pub(super) use on_database;

impl Ledger {
    /// Returns the spool that the ledger was opened with.
    #[must_use]
    pub fn spool(&self) -> Option<&Spool> {
        on_database!(self, inner => inner.spool.as_ref())
    }

    /// Returns the check that the database has failed since the ledger was opened; `None` if its last check passed, or
    /// while it does not answer.
    ///
    /// A database that would lose rows, has other tables, or is not the one for which the records of the spool were
    /// written, is not used: each layer refuses all requests, whatever its [`OnFailure`] says, and nothing is merged. The
    /// ledger checks it again with each attempt to connect. [`Event::StoreLost`](crate::Event::StoreLost) reports it once.
    ///
    /// ```
    /// fn health(ledger: &tollgate::Ledger) -> Result<(), tollgate::LedgerError> {
    ///     ledger.failed_check().map_or(Ok(()), Err)
    /// }
    /// ```
    #[must_use]
    pub fn failed_check(&self) -> Option<LedgerError> {
        on_database!(self, inner => inner.writer.database.refusal())
    }

    /// Sets the longest wait for a decision or a short read; default 2 s. It applies to all clones of this ledger.
    ///
    /// Without a reply by then the layer acts as [`OnFailure`] says. A deadline below the commit time of a busy
    /// database turns every busy moment into an outage.
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
        on_database!(self, inner => inner.writer.set_reply_timeout(deadline));
        self
    }

    /// Shuts the ledger down: accepts no more commands, waits until all are written, and closes the connections. A
    /// caller that still waits after `most` receives that the store is unavailable. Without this call the ledger ends
    /// when its last clone is dropped, and commands are written while the runtime lasts.
    ///
    /// Stop serving first: the settlement of a request that is still under way would come too late to be written. Its
    /// reservation would expire, and the outcome of its job would be unknown.
    ///
    /// A ledger in a file is then that one file. A process that crashes leaves two files beside it, `-wal` and `-shm`,
    /// which belong to it until the next process opens it: copy all three.
    ///
    /// ```
    /// # async fn example(ledger: tollgate::Ledger) {
    /// ledger.shut_down(std::time::Duration::from_secs(10)).await;
    /// # }
    /// ```
    pub async fn shut_down(&self, most: Duration) {
        on_database!(self, inner => inner.writer.shut_down(most).await);
    }

    /// Waits until everything is written, such as the settlements of requests that have ended; they follow their
    /// responses. For tests, before they look at the usage.
    ///
    /// It waits as long as the database is away, and on a ledger that is never idle for a moment without work.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # use tollgate::{Client, Ledger, OnFailure, Plan, QuotaLayer};
    /// # let ledger = Ledger::sqlite_in_memory().open().await.unwrap();
    /// # let quotas = QuotaLayer::new(Plan::standard()).store_in(&ledger, OnFailure::FailClosed).handle();
    /// let acme = Client::named("acme");
    /// drop(quotas.reserve(&acme, ("queries", 5)).await.unwrap()); // given back after the drop
    /// ledger.flush().await;
    /// assert_eq!(quotas.usage(&acme).await.unwrap().limits[0].reserved, 0);
    /// # });
    /// ```
    pub async fn flush(&self) {
        on_database!(self, inner => inner.writer.flush().await);
    }

    /// Returns the number of commands that are not written yet. If it grows, the database does not keep up.
    #[must_use]
    pub fn backlog(&self) -> usize {
        on_database!(self, inner => inner.writer.lock().backlog())
    }
}

impl BackendFactory for Ledger {
    fn open(
        &self,
        room: RoomSettings,
        settings: AccountSettings,
        on_failure: OnFailure,
    ) -> Result<Arc<dyn QuotaBackend>, ConfigError> {
        on_database!(self, inner => LedgerStore::open(inner, room, settings, on_failure))
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
