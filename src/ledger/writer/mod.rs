//! The ledger: what a batch of orders comes to, and how a writer brings it into a database; no database in here.

mod account_state;
mod batch;
mod billed;
mod command;
mod job;
mod job_time;
mod machine;
mod row;
#[cfg(test)]
pub(crate) mod tests;

use super::database::DbError;
pub(crate) use super::fallback::mode::{Sent, after};
use account_state::Posting;
pub(crate) use account_state::{AdmittedAt, account_view};
pub(crate) use billed::{Billed, billed};
pub(crate) use command::{
    AdmitCommand, AdmitReply, Command, CommandKind, Reply, ReservationTerms, SettleCommand, SettleKind, SpooledCharge,
};
use job::LATE;
pub(crate) use job::{JobRows, JobStatus};
pub(crate) use job_time::is_within;
#[cfg(test)]
use machine::Answered;
pub(crate) use machine::{CancelResult, NoticeKind, Step, StepResult, SubmitError, Writer, WriterNotice};
pub(crate) use row::{Detail, EntryKind, Key, Loaded, Reads, ReservationRow, Row, Stored, Writes};
