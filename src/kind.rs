//! What a quota counts.

use std::fmt;

use crate::{error::ConfigError, policy_name::PolicyName};

/// What a quota counts.
///
/// A text constant is a kind too: `"requests"`, `"bytes"`, `"request_bytes"`, `"response_bytes"` and
/// `"concurrent_requests"` are the built-in ones, everything else is a unit of your own.
///
/// ```
/// use tollgate::{Direction, Kind};
///
/// assert_eq!(Kind::from("requests"), Kind::Requests);
/// assert_eq!(Kind::from("tokens"), Kind::units("tokens"));
/// assert_eq!(Kind::Bytes(Direction::Response).as_str(), "response_bytes");
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Requests that reached the service.
    Requests,
    /// Bytes of bodies.
    Bytes(Direction),
    /// Requests that are being served at the same time.
    Concurrent,
    /// A unit of your own, such as queries or tokens; see [`Kind::units`].
    Units(PolicyName),
}

/// Which bodies a quota of bytes counts.
///
/// Of requests it counts what `Content-Length` says, at admission: a body of unknown length counts nothing, unless a
/// [`RequestBytesLayer`](crate::RequestBytesLayer) counts it.
///
/// ```
/// use tollgate::{Direction, Period, Quota};
/// let downloads = Quota::bytes(1 << 30).per(Period::day()).counting(Direction::Response);
/// assert_eq!(downloads.kind().as_str(), "response_bytes");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Those of requests and of responses: the default.
    #[default]
    Both,
    /// Those of requests.
    Request,
    /// Those of responses.
    Response,
}

impl Kind {
    /// A unit of your own.
    ///
    /// # Panics
    /// When `name` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// assert_eq!(tollgate::Kind::units("queries").as_str(), "queries");
    /// ```
    #[must_use]
    pub fn units(name: &str) -> Self {
        Self::try_units(name).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// The kind of this name, built-in or a unit of your own, from input at run time.
    ///
    /// # Errors
    /// When `name` is not 1 to 64 visible ASCII characters or spaces.
    ///
    /// ```
    /// use tollgate::Kind;
    /// assert_eq!(Kind::try_units("requests").unwrap(), Kind::Requests);
    /// assert!(Kind::try_units("two\nlines").unwrap_err().to_string().starts_with("unit must be 1 to 64"));
    /// ```
    pub fn try_units(name: &str) -> Result<Self, ConfigError> {
        Self::BUILT_IN.iter().find(|kind| kind.as_str() == name).map_or_else(
            || match PolicyName::try_new(name) {
                Ok(name) => Ok(Self::Units(name)),
                Err(_) => {
                    let shown: String = name.chars().take(80).collect();
                    Err(ConfigError::new(
                        "unit",
                        "be 1 to 64 visible ASCII characters or spaces",
                        format_args!("{shown:?}"),
                    ))
                }
            },
            |kind| Ok(kind.clone()),
        )
    }

    const BUILT_IN: [Self; 5] = [
        Self::Requests,
        Self::Bytes(Direction::Both),
        Self::Bytes(Direction::Request),
        Self::Bytes(Direction::Response),
        Self::Concurrent,
    ];

    /// The kind as one word.
    ///
    /// ```
    /// assert_eq!(tollgate::Kind::Concurrent.as_str(), "concurrent_requests");
    /// ```
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

    /// Its name, shared where it is a unit of one's own.
    pub(crate) fn text(&self) -> std::sync::Arc<str> {
        match self {
            Self::Units(name) => name.text(),
            built_in => built_in.as_str().into(),
        }
    }

    /// The unit of the rate limit fields; requests are understood.
    pub(crate) fn field_unit(&self) -> Option<PolicyName> {
        let known = |name| PolicyName::try_new(name).ok();
        match self {
            Self::Requests => None,
            Self::Bytes(_) => known("content-bytes"),
            Self::Concurrent => known("concurrent-requests"),
            Self::Units(name) => Some(name.clone()),
        }
    }
}

/// # Panics
/// As [`Kind::units`]. Only constants convert: what comes at run time goes through [`Kind::try_units`].
impl From<&'static str> for Kind {
    fn from(name: &'static str) -> Self {
        Self::units(name)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kind({})", self.as_str())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
