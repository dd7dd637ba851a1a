//! Error of a rejected setting.

use std::{error::Error, fmt};

/// A rejected setting. The text names the setting, the rule that it breaks and the value.
///
/// ```
/// let error = tollgate::Rate::try_per_second(0).unwrap_err();
/// assert_eq!(error.to_string(), "rate must be positive, got 0");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    /// Creates the error of one value: `what` `must` hold, but `got` was given.
    ///
    /// ```
    /// let error = tollgate::ConfigError::new("probes", "be positive", 0);
    /// assert_eq!(error.to_string(), "probes must be positive, got 0");
    /// ```
    #[must_use]
    pub fn new(what: &str, must: &str, got: impl fmt::Display) -> Self {
        Self::message(format!("{what} must {must}, got {got}"))
    }

    /// Creates an error with a text of its own, for settings that contradict each other.
    ///
    /// The text is lower case and has no full stop. It says what is wrong and what to do.
    ///
    /// ```
    /// let error = tollgate::ConfigError::message("both backends write to one file; give each a file of its own");
    /// assert!(error.to_string().ends_with("a file of its own"));
    /// ```
    #[must_use]
    pub fn message(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Creates the error of one text, which is quoted and cut to 80 characters.
    pub(crate) fn quoted(what: &str, must: &str, got: &str) -> Self {
        let shown: String = got.chars().take(80).collect();
        Self::new(what, must, format_args!("{shown:?}"))
    }

    /// Returns the error of one value, as [`new`](Self::new), unless the rule holds.
    pub(crate) fn require(holds: bool, what: &str, must: &str, got: impl fmt::Display) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self::new(what, must, got)) }
    }

    /// Returns the valid value, or panics with the error where the caller of the public function stands. Each function in
    /// between is `#[track_caller]`, and no closure is in between: it would be the place of the panic.
    #[track_caller]
    pub(crate) fn or_panic<T>(checked: Result<T, Self>) -> T {
        match checked {
            Ok(valid) => valid,
            Err(invalid) => panic!("{invalid}"),
        }
    }

    /// Returns the same text as `Display`.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for ConfigError {}
