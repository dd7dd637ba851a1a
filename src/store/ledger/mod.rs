//! The ledger in a database.

mod database;
mod scribe;

pub(crate) use database::{Database, Failure, Session};
pub(crate) use scribe::{Patience, Scribe};
