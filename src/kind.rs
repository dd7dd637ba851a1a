//! The kinds of amounts that a quota counts.

use std::{fmt, sync::Arc};

use crate::{error::ConfigError, policy_name::PolicyName};

/// Kind of amount that a quota counts.
///
/// A string literal converts into a kind. `"requests"`, `"bytes"`, `"request_bytes"`, `"response_bytes"` and
/// `"concurrent_requests"` are built in; every other name is a unit of your own.
///
/// ```
/// use tollgate::{Direction, Kind};
///
/// assert_eq!(Kind::from("requests"), Kind::Requests);
/// assert_eq!(Kind::from("tokens"), Kind::units("tokens"));
/// assert_eq!(Kind::Bytes(Direction::Response).as_str(), "response_bytes");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Requests that reached the service.
    Requests,
    /// Bytes of bodies.
    Bytes(Direction),
    /// Requests that are served at the same time.
    Concurrent,
    /// A unit of your own, such as queries or tokens; see [`Kind::units`].
    Units(PolicyName),
}

/// Bodies that a quota of bytes counts.
///
/// A request's body counts at admission, by its `Content-Length`, whether it comes or not. A body of unknown length counts
/// nothing. With a [`RequestBytesLayer`](crate::RequestBytesLayer) the bytes that are read count instead.
///
/// ```
/// use tollgate::{Direction, Period, Quota};
/// let downloads = Quota::bytes(1 << 30).per(Period::day()).counting(Direction::Response);
/// assert_eq!(downloads.kind().as_str(), "response_bytes");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Bodies of requests and of responses: the default.
    #[default]
    Both,
    /// Bodies of requests.
    Request,
    /// Bodies of responses.
    Response,
}

impl Kind {
    const BUILT_IN: [Self; 5] = [
        Self::Requests,
        Self::Bytes(Direction::Both),
        Self::Bytes(Direction::Request),
        Self::Bytes(Direction::Response),
        Self::Concurrent,
    ];

    /// Returns the kind with this name: a built-in one or a unit of your own.
    ///
    /// # Panics
    /// If `name` is not 1 to 64 visible ASCII characters or spaces.
    #[must_use]
    #[track_caller]
    pub fn units(name: &str) -> Self {
        ConfigError::or_panic(Self::try_units(name))
    }

    /// [`units`](Self::units) for input at run time.
    ///
    /// # Errors
    /// If `name` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// use tollgate::Kind;
    /// assert_eq!(Kind::try_units("requests").unwrap(), Kind::Requests);
    /// assert!(Kind::try_units("two\nlines").unwrap_err().to_string().starts_with("unit must be 1 to 64"));
    /// ```
    pub fn try_units(name: &str) -> Result<Self, ConfigError> {
        match Self::BUILT_IN.iter().find(|kind| kind.as_str() == name) {
            Some(kind) => Ok(kind.clone()),
            None => PolicyName::checked("unit", name).map(Self::Units),
        }
    }

    /// Returns the kind as one word, such as `concurrent_requests`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Requests => "requests",
            Self::Bytes(Direction::Both) => "bytes",
            Self::Bytes(Direction::Request) => "request_bytes",
            Self::Bytes(Direction::Response) => "response_bytes",
            Self::Concurrent => "concurrent_requests",
            Self::Units(name) => name.as_str(),
        }
    }

    /// Returns the unit of the rate limit fields; `None` stands for requests, their default unit.
    pub(crate) fn field_unit(&self) -> Option<PolicyName> {
        match self {
            Self::Requests => None,
            Self::Bytes(_) => PolicyName::try_new("content-bytes").ok(),
            Self::Concurrent => PolicyName::try_new("concurrent-requests").ok(),
            Self::Units(name) => Some(name.clone()),
        }
    }
}

/// Never panics: a name that [`Kind::try_units`] rejects becomes a unit that no plan has, with `?` in place of each
/// other byte than visible ASCII and spaces, cut to 64 bytes.
///
/// ```
/// use tollgate::Kind;
/// assert_eq!(Kind::from("two\nlines").as_str(), "two?lines");
/// assert_eq!(Kind::from("").as_str(), "?");
/// ```
impl From<&str> for Kind {
    fn from(name: &str) -> Self {
        let replaced = || {
            let bytes = if name.is_empty() { b"?" } else { name.as_bytes() };
            let visible = bytes.iter().map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' });
            Self::units(&visible.take(64).collect::<String>())
        };
        Self::try_units(name).unwrap_or_else(|_| replaced())
    }
}

/// Shares the text of a unit; the name of a built-in kind is allocated.
impl From<&Kind> for Arc<str> {
    fn from(kind: &Kind) -> Self {
        match kind {
            Kind::Units(name) => name.into(),
            built_in => built_in.as_str().into(),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
