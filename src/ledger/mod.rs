//! Exact quotas in SQL: a ledger with a row for each charge, invoices, and a fallback for outages.

mod billing;
mod builder;
mod charge;
mod database;
mod error;
mod fallback;
mod handle;
mod inner;
mod jobs;
#[cfg(feature = "postgres")]
mod postgres;
mod receipt;
mod report;
mod slots;
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
#[cfg(test)]
mod suite;
mod upkeep;
mod writer;
mod writer_task;

pub use billing::{BillingDrift, BillingError, BillingProvider, Invoice, InvoiceLine, MemoryProvider};
pub use builder::LedgerBuilder;
pub(crate) use database::{Database, DbError, Session};
pub use error::{LedgerError, LedgerErrorKind, SpoolError, SpoolErrorKind};
pub use fallback::Spool;
pub use handle::Ledger;
pub(crate) use inner::LedgerInner;
pub(crate) use receipt::LedgerReceipt;
use receipt::LedgerReservation;
pub use report::{
    ArchiveReport, CreditEntry, Drift, Entries, GrantEntry, JobStanding, LedgerEntry, LedgerJob, PastUsage,
    ReconcileReport,
};
pub(crate) use store::LedgerStore;
pub use writer::EntryKind;
pub(crate) use writer_task::{Timeouts, WriterTask, new_id};

use crate::identity::Digester;

/// Returns the digester of job fingerprints: the same in all processes that share a ledger, and in later versions.
///
/// Fingerprints distinguish contents and protect no secret, so that the key may be public.
fn digester() -> &'static Digester {
    static FIXED: std::sync::LazyLock<Digester> = std::sync::LazyLock::new(|| Digester::fixed(0, 0));
    &FIXED
}
