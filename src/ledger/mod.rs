//! The ledger in a database.

mod billing;
mod builder;
mod database;
mod error;
mod fallback;
mod handle;
mod inner;
#[cfg(feature = "postgres")]
mod postgres;
mod recent;
mod report;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
#[cfg(test)]
mod suite;
mod upkeep;
mod writer;
mod writer_task;
mod written;

pub use billing::{BillingDrift, BillingError, BillingProvider, Invoice, InvoiceLine, MemoryProvider};
pub use builder::LedgerBuilder;
pub(crate) use database::{Database, DbError, Session};
pub use error::LedgerError;
pub use fallback::{Spool, SpoolError};
pub use handle::Ledger;
pub(crate) use inner::LedgerInner;
pub use report::{
    ArchiveReport, Drift, Entries, GrantEntry, JobStanding, LedgerEntry, LedgerJob, PastUsage, ReconcileReport,
};
pub(crate) use store::LedgerStore;
pub(crate) use writer_task::{Timeouts, WriterTask, new_id};
use written::ReservedAs;
pub(crate) use written::Written;

use crate::identity::Digester;

/// What fingerprints of jobs are made with: the same in every process that shares a ledger, and next year.
///
/// They tell one content from another and keep nothing secret, so that the key may be known.
fn digester() -> &'static Digester {
    static FIXED: std::sync::LazyLock<Digester> = std::sync::LazyLock::new(|| Digester::with_keys(0, 0));
    &FIXED
}
