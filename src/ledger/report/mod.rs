//! Reports: entries, past usage, drift, jobs, and the archive of old rows.

mod archive;
mod audit;
mod entry;
mod job;

pub use archive::ArchiveReport;
pub use audit::{Drift, Entries, PastUsage, ReconcileReport};
pub(super) use entry::Json;
pub use entry::{CreditEntry, GrantEntry, LedgerEntry};
pub use job::{JobStanding, LedgerJob};
