//! The ledger: what a batch of orders comes to, and how a writer brings it into a database; no database in here.

mod row;

pub(crate) use row::{Detail, Entry, Hold, Key, Loaded, Reads, Row, Stored, Writes};
