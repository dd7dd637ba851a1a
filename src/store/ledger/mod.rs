//! The ledger in a database.

mod columns;
mod database;
mod error;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
mod suite;

pub(crate) use database::{Database, Failure, Session};
pub use error::LedgerError;
#[cfg(feature = "postgres")]
pub use postgres::PostgresLedger;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLedger;
