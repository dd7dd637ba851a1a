//! Errors of ledgers and spools that cannot be opened.

use std::{error::Error, fmt};

use super::DbError;

/// A ledger that cannot be opened: its database cannot be reached, would lose acknowledged rows, or has other tables.
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # tokio_test(async {
/// use tollgate::Ledger;
///
/// let error = Ledger::sqlite("/proc/ledger.db").open().await.unwrap_err();
/// println!("{}", error.reason());
/// # });
/// # fn tokio_test(_: impl Future) {}
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerError {
    reason: String,
}

impl LedgerError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    /// Returns the value and the reason as one text.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for LedgerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for LedgerError {}

impl From<SpoolError> for LedgerError {
    fn from(error: SpoolError) -> Self {
        Self::new(error.reason())
    }
}

impl From<DbError> for LedgerError {
    fn from(error: DbError) -> Self {
        Self::new(error.reason())
    }
}

/// A file that cannot be a spool: it cannot be opened, another process has it open, or it is damaged.
///
/// ```
/// let error = tollgate::Spool::at("/no/such/directory/quota.spool").unwrap_err();
/// assert!(error.reason().starts_with("a spool must be a file that can be read and written"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolError {
    reason: String,
}

impl SpoolError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    /// Returns the value and the reason as one text.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for SpoolError {}
