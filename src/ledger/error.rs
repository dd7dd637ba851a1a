//! Why a ledger cannot be kept in a database.

use std::{error::Error, fmt};

use super::{DbError, SpoolError};

/// Why a database cannot keep a ledger: it cannot be reached, would lose what was acknowledged, or has other tables.
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

    /// The value and the reason, in words.
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
