//! The name of a policy, checked once so that it fits any header.

use std::{fmt, sync::Arc};

use crate::error::ConfigError;

/// Name of a policy in headers, metrics and texts: 1 to 64 visible ASCII characters or spaces.
///
/// ```
/// use tollgate::PolicyName;
/// assert_eq!(PolicyName::try_new("per client").unwrap().as_str(), "per client");
/// assert!(PolicyName::try_new("two\r\nlines").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// Checks a name.
    ///
    /// # Errors
    /// If `name` is empty, is longer than 64 bytes, or contains other bytes than visible ASCII and spaces.
    ///
    /// ```
    /// let error = tollgate::PolicyName::try_new("").unwrap_err();
    /// assert_eq!(error.to_string(), "policy name must be 1 to 64 visible ASCII characters or spaces, got \"\"");
    /// ```
    pub fn try_new(name: &str) -> Result<Self, ConfigError> {
        Self::checked("policy name", name)
    }

    /// Checks a name that stands for `what` in the text of the error.
    pub(crate) fn checked(what: &str, name: &str) -> Result<Self, ConfigError> {
        if (1..=64).contains(&name.len()) && name.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            Ok(Self(name.into()))
        } else {
            Err(ConfigError::quoted(what, "be 1 to 64 visible ASCII characters or spaces", name))
        }
    }

    /// Returns the name of the policy with this number of several that a layer has: the name itself for the first one, and
    /// then with the suffix `-2`, `-3` and so on, which may exceed 64 characters.
    pub(crate) fn numbered(&self, number: usize) -> Self {
        if number < 2 { self.clone() } else { Self(format!("{self}-{number}").into()) }
    }

    /// Returns the name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Shares the text of the name and allocates nothing.
impl From<&PolicyName> for Arc<str> {
    fn from(name: &PolicyName) -> Self {
        Self::clone(&name.0)
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
