//! Fallback: requests pass while the ledger is away, and their charges wait in a file.

mod account_queues;
mod aside;
mod decide;
#[cfg(test)]
mod fuzz;
mod local_share;
mod merge;
mod recent_jobs;
mod spool;
mod spool_file;
mod spool_format;
mod spool_owner;
mod spool_queue;
mod spool_record;
mod spool_state;
mod spool_writer;
mod store;

pub use spool::Spool;
pub(super) use store::FallbackStore;
