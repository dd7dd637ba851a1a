//! The one error of this crate: a setting that cannot be.

use std::{error::Error, fmt};

/// A setting that cannot be built; its text names the value and the reason.
///
/// ```
/// let error = tollgate::Rate::try_per_second(0).unwrap_err();
/// assert_eq!(error.to_string(), "rate must be positive, got 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    reason: String,
}

impl ConfigError {
    /// Says what `must` hold of `what`, and what came instead.
    ///
    /// ```
    /// let error = tollgate::ConfigError::new("probes", "be positive", 0);
    /// assert_eq!(error.to_string(), "probes must be positive, got 0");
    /// ```
    #[must_use]
    pub fn new(what: &str, must: &str, got: impl fmt::Display) -> Self {
        Self { reason: format!("{what} must {must}, got {got}") }
    }

    /// The value and the reason, in words.
    ///
    /// ```
    /// assert_eq!(tollgate::Cost::try_new(0).unwrap_err().reason(), "cost must be from 1 to 2^53 - 1, got 0");
    /// ```
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for ConfigError {}
