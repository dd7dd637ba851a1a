//! Code and SQL that SQLite and PostgreSQL share. The charge paths are in `sqlite/` and `postgres/`.

pub(crate) mod archive;
mod database;
mod dialect;
pub(crate) mod encoding;
mod open_file;
mod opening;
pub(crate) mod reports;
mod rows;
mod schema;
mod session;
mod test_clock;
mod writes;

pub(crate) use database::SqlDatabase;
pub(crate) use dialect::{SqlDialect, SqlValue, db_error, driver_calls, safe};
pub(crate) use open_file::OpenFile;
pub(crate) use opening::OpenOptions;
pub(crate) use reports::BilledSum;
pub(crate) use rows::{Columns, ENTRY_COLUMNS, ReadRows};
pub(crate) use session::{ChargePath, SqlSession, in_order};
pub(crate) use test_clock::TestClock;
pub(crate) use writes::{COUNT, WRITES};
