//! How a ledger is opened.

#[cfg(feature = "sqlite")]
use std::path::Path;

#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{Ledger, LedgerError};

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
#[cfg(feature = "sqlite")]
#[derive(Clone, Copy, Debug)]
pub struct SqliteLedger;

#[cfg(feature = "sqlite")]
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

/// Opens a [`Ledger`] in a PostgreSQL database: exact quotas for a fleet.
///
/// It makes its tables itself, whose names begin with `quota_`, in the first schema of the connection's `search_path`. A
/// writer locks the accounts of its batch and no others, and waits 0.5 s at a time for those that another writer has locked.
///
/// # Behind a pooler
/// All its settings end with the transaction. A pooler that gives each transaction another connection must know prepared
/// statements (PgBouncer does since 1.21).
///
/// ```no_run
/// # async fn example() -> Result<(), tollgate::LedgerError> {
/// let ledger = tollgate::PostgresLedger::connect("postgres://shop@db.internal/quota").await?;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "postgres")]
#[derive(Clone, Copy, Debug)]
pub struct PostgresLedger;

#[cfg(feature = "postgres")]
impl PostgresLedger {
    /// In the database at this URL, through a pool of its own.
    ///
    /// # Errors
    /// When the URL is none, the server cannot be reached or would lose rows that were acknowledged, or the tables are of a
    /// newer version or altered. The text never shows the password of the URL.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::PostgresLedger::connect("postgres://shop:secret@db.internal:5432/quota").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(url: &str) -> Result<Ledger, LedgerError> {
        Ok(Ledger::in_database(postgres::PostgresLedger::connect(url).await?))
    }

    /// In the database of a pool that the program has already.
    ///
    /// The one who writes takes a connection out of the pool for good, and the pool opens another in its place.
    ///
    /// # Errors
    /// When the server would lose rows that were acknowledged, with `synchronous_commit` or `fsync` off, or only reads. Also
    /// when the tables are of a newer version, or altered.
    ///
    /// ```no_run
    /// # async fn example(pool: sqlx::PgPool) -> Result<(), tollgate::LedgerError> {
    /// let ledger = tollgate::PostgresLedger::from_pool(pool).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn from_pool(pool: sqlx::PgPool) -> Result<Ledger, LedgerError> {
        Ok(Ledger::in_database(postgres::PostgresLedger::from_pool(pool).await?))
    }
}
