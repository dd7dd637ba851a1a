//! Why a file cannot be a spool.

use std::{error::Error, fmt};

/// Why a file cannot be a spool: it cannot be opened, another process has it, or it is damaged.
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

    /// The value and the reason, in words.
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
