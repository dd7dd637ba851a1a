//! The ledger: what a batch of orders comes to, and how a writer brings it into a database; no database in here.

mod batch;
mod billed;
mod book;
mod job;
mod job_time;
mod mode;
mod order;
mod record;
mod row;
mod share;
#[cfg(test)]
pub(crate) mod tests;
mod writer;

pub(crate) use billed::{Billed, billed};
use book::Line;
pub(crate) use book::{Since, sheet};
pub(crate) use job::Dossier;
use job::LATE;
pub(crate) use job::Standing;
pub(crate) use job_time::is_within;
pub(crate) use mode::{Mode, Sent, after};
pub(crate) use order::{Act, Admit, Admitted, End, Order, Pass, Reserve, Settle, Verdict};
pub(crate) use record::{HEADER, encode, frame, recover};
pub(crate) use row::{Detail, Entry, Hold, Key, Loaded, Reads, Row, Stored, Writes};
pub(crate) use share::Local;
#[cfg(test)]
use writer::Answered;
pub(crate) use writer::{Event, Fault, Full, Left, Notice, Report, Step, Writer};
