//! The ledger in a database.

mod database;

pub(crate) use database::{Database, Failure, Session};
