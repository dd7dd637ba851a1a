//! The ledger: what a batch of orders comes to, and how a writer brings it into a database; no database in here.

mod batch;
mod book;
mod job;
mod mode;
mod order;
mod record;
mod row;
mod share;
#[cfg(test)]
mod tests;
mod writer;

use book::Line;
pub(crate) use book::{Since, sheet};
pub(crate) use job::Standing;
use job::{Dossier, LATE};
pub(crate) use mode::{Mode, Sent, after};
pub(crate) use order::{Act, Admit, Admitted, End, Order, Pass, Reserve, Settle, Verdict};
pub(crate) use record::{Damage, HEADER, Recovered, encode, frame, recover};
pub(crate) use row::{Detail, Entry, Hold, Key, Loaded, Reads, Row, Stored, Writes};
pub(crate) use share::Local;
pub(crate) use writer::{Answered, Event, Fault, Full, Left, Notice, Step, Writer};
