//! The name of a policy, checked once so that it can stand in any header.

use std::{fmt, sync::Arc};

use crate::error::ConfigError;

/// The name of a policy as people, headers and metrics show it: 1 to 64 visible ASCII characters or spaces.
///
/// ```
/// use tollgate::PolicyName;
/// assert_eq!(PolicyName::try_new("per client").unwrap().as_str(), "per client");
/// assert!(PolicyName::try_new("two\r\nlines").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// A checked name.
    ///
    /// # Errors
    /// When `name` is empty, longer than 64 bytes, or holds anything but visible ASCII and spaces.
    ///
    /// ```
    /// let error = tollgate::PolicyName::try_new("").unwrap_err();
    /// assert_eq!(error.to_string(), "policy name must be 1 to 64 visible ASCII characters or spaces, got \"\"");
    /// ```
    pub fn try_new(name: &str) -> Result<Self, ConfigError> {
        if (1..=64).contains(&name.len()) && name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            Ok(Self(name.into()))
        } else {
            let shown: String = name.chars().take(80).collect();
            Err(ConfigError::new(
                "policy name",
                "be 1 to 64 visible ASCII characters or spaces",
                format_args!("{shown:?}"),
            ))
        }
    }

    /// The name.
    ///
    /// ```
    /// assert_eq!(tollgate::PolicyName::try_new("default").unwrap().as_str(), "default");
    /// ```
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, shared.
    pub(crate) fn text(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }

    /// The name as a quoted string of a structured field (RFC 9651, 3.3.3).
    pub(crate) fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
