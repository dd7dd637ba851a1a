//! Reports: entries, past usage, drift, jobs, and the archive of old rows.

mod archive;
mod audit;
mod entry;
mod job;

pub use archive::ArchiveReport;
pub use audit::{Drift, Entries, PastUsage, ReconcileReport};
pub use entry::{GrantEntry, LedgerEntry};
pub(super) use entry::{Json, time};
pub use job::{JobStanding, LedgerJob};

use std::time::SystemTime;

pub(super) fn nanos(time: SystemTime) -> u64 {
    crate::time::since_1970(time)
}
