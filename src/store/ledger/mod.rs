//! The ledger in a database.

mod accounts;
mod archive;
mod audit;
mod billed;
mod billing;
mod blind;
mod columns;
mod database;
mod doors;
mod entry;
mod error;
mod invoice;
mod job;
#[expect(clippy::module_inception, reason = "the ledger itself")]
mod ledger;
mod memory_provider;
mod owner;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
mod recent;
mod scribe;
mod spool;
mod spool_error;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
mod suite;
mod written;

pub(crate) use accounts::InLedger;
pub use archive::Archived;
pub use audit::{AccountDrift, Entries, PastUsage, Reconciled};
pub use billing::{BillingDrift, BillingError, BillingProvider};
pub(crate) use database::{Database, Failure, Session};
#[cfg(feature = "postgres")]
pub use doors::PostgresLedger;
#[cfg(feature = "sqlite")]
pub use doors::SqliteLedger;
pub use entry::{GrantEntry, LedgerEntry};
pub use error::LedgerError;
pub use invoice::{Invoice, InvoiceLine};
pub use job::{JobStanding, LedgerJob};
pub use ledger::Ledger;
pub use memory_provider::MemoryProvider;
pub(crate) use owner::Owner;
pub(crate) use scribe::{Patience, Scribe, new_id};
pub use spool::Spool;
pub use spool_error::SpoolError;
use written::ReservedAs;
pub(crate) use written::Written;

use crate::Digester;

/// What fingerprints of jobs are made with: the same in every process that shares a ledger, and next year.
///
/// They tell one content from another and keep nothing secret, so that the key may be known.
fn digester() -> &'static Digester {
    static FIXED: std::sync::LazyLock<Digester> = std::sync::LazyLock::new(|| Digester::with_keys(0, 0));
    &FIXED
}
