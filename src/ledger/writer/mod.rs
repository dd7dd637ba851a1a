//! The writer of the ledger: decides commands in batches, and the steps that store them. It knows no database.

mod account_state;
mod batch;
mod billed;
mod command;
mod counter;
mod job;
mod job_time;
mod machine;
mod row;
#[cfg(test)]
pub(crate) mod tests;

use super::database::DbError;
pub(crate) use account_state::{account_view, violations};
pub(crate) use billed::{BilledItem, billed};
use command::Queued;
pub(crate) use command::{
    AdmitCommand, AdmitReply, Command, CommandKind, Decided, JobEnd, LAPSES, Reply, ReservationTerms, SettleCommand,
    SettleKind,
};
pub(crate) use counter::{AdmittedAt, StoredCounter};
use job::LATE;
pub(crate) use job::{JobRows, JobStatus};
pub(crate) use job_time::is_within;
#[cfg(test)]
use machine::PlantedFault;
pub(crate) use machine::{CancelResult, Lane, NoticeKind, Step, StepResult, SubmitError, Writer, WriterNotice};
pub use row::EntryKind;
pub(crate) use row::{CREDIT, Detail, Key, Loaded, Reads, ReservationRow, Row, Stored, UnfinishedJob, Writes};
