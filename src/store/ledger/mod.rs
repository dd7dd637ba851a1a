//! The ledger in a database.

mod accounts;
mod database;
mod owner;
mod scribe;
mod written;

pub(crate) use accounts::InLedger;
pub(crate) use database::{Database, Failure, Session};
pub(crate) use owner::Owner;
pub(crate) use scribe::{Patience, Scribe, new_id};
use written::ReservedAs;
pub(crate) use written::Written;

use crate::Digester;

/// What fingerprints of jobs are made with: the same in every process that shares a ledger, and next year.
///
/// They tell one content from another and keep nothing secret, so that the key may be known.
fn digester() -> &'static Digester {
    static FIXED: std::sync::LazyLock<Digester> = std::sync::LazyLock::new(|| Digester::with_keys(0, 0));
    &FIXED
}
