//! How a ledger is opened.

use std::path::Path;

use super::{Ledger, LedgerError, sqlite};

/// Opens a [`Ledger`] in an SQLite file: exact quotas for the processes of one machine.
///
/// It makes its tables itself, whose names begin with `quota_`, and writes through one connection at a time; the view
/// `quota_ledger` is for people. SQLite's clock knows milliseconds.
///
/// ```no_run
/// # async fn example() -> Result<(), tollgate::LedgerError> {
/// let ledger = tollgate::SqliteLedger::open("quota.db").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SqliteLedger;

impl SqliteLedger {
    /// In the file at this path, which is made if it is missing.
    ///
    /// Its connections write ahead (`journal_mode = wal`), wait for the disk at each commit (`synchronous = full`), and
    /// wait 5 s for others. A file on a network is none: its locks and its shared memory need one machine.
    ///
    /// # Errors
    /// When the file cannot be opened or written, holds the tables of a newer version, or is altered.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::SqliteLedger::open("/var/lib/shop/quota.db").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(path: impl AsRef<Path>) -> Result<Ledger, LedgerError> {
        Ok(Ledger::in_database(sqlite::SqliteLedger::open(path).await?))
    }

    /// In the file of a pool that the program has already.
    ///
    /// The one who writes takes a connection out of the pool for good, and the pool opens another in its place.
    ///
    /// # Errors
    /// When a connection would lose rows that were acknowledged: with `synchronous` below full, a journal in memory or
    /// none, or a database in memory. Also when the tables are of a newer version, or altered.
    ///
    /// ```no_run
    /// # async fn example(pool: sqlx::SqlitePool) -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::SqliteLedger::from_pool(pool).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn from_pool(pool: sqlx::SqlitePool) -> Result<Ledger, LedgerError> {
        Ok(Ledger::in_database(sqlite::SqliteLedger::from_pool(pool).await?))
    }

    /// In memory, for tests: it ends with the process, and so does everything that was acknowledged.
    ///
    /// # Errors
    /// When there is no memory for it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::SqliteLedger::in_memory().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn in_memory() -> Result<Ledger, LedgerError> {
        Ok(Ledger::in_database(sqlite::SqliteLedger::in_memory().await?))
    }
}
