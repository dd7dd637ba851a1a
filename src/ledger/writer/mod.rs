//! The ledger: what a batch of orders comes to, and how a writer brings it into a database; no database in here.

mod account_state;
mod batch;
mod billed;
mod job;
mod job_time;
mod machine;
mod order;
mod row;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use super::fallback::{
    local_share::Local,
    mode::{Mode, Sent, after},
    spool_format::{HEADER, encode, frame, recover},
};
use account_state::Posting;
pub(crate) use account_state::{AdmittedAt, StoredCounter, account_view, wall_time};
pub(crate) use billed::{Billed, billed};
pub(crate) use job::JobRows;
pub(crate) use job::JobStatus;
use job::LATE;
pub(crate) use job_time::is_within;
#[cfg(test)]
use machine::Answered;
pub(crate) use machine::{CancelResult, Event, Fault, Notice, Report, Step, SubmitError, Writer};
pub(crate) use order::{Act, Admit, Admitted, End, Order, Pass, Reserve, Settle, Verdict};
pub(crate) use row::{Detail, Entry, Hold, Key, Loaded, Reads, Row, Stored, Writes};
