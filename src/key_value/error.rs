//! Errors of key-value stores.

use std::{error::Error, fmt, sync::Arc};

/// An operation that a store did not carry out.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use tollgate::key_value::{KeyValue, KeyValueErrorKind, MemoryStore};
///
/// let error = MemoryStore::new().get(b"").await.unwrap_err();
/// assert_eq!(error.kind(), KeyValueErrorKind::Invalid);
/// assert_eq!(error.to_string(), "key must have 1 to 1024 bytes, got 0");
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct KeyValueError {
    kind: KeyValueErrorKind,
    reason: Box<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

/// Kind of a [`KeyValueError`], which tells a caller what it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyValueErrorKind {
    /// A key, a value, a time to live or a number of keys is outside of its bounds; nothing has changed.
    Invalid,
    /// The value of a key that should count is no number, or the number would exceed an `i64`; nothing has changed.
    NotANumber,
    /// The store has no room for a new entry; nothing has changed.
    Full,
    /// The store does not answer, and nothing has changed; a later attempt may succeed.
    Unavailable,
    /// The reply of the store was lost: the operation may have been carried out.
    Indeterminate,
    /// The store refuses the operation until an operator has changed something: rights, settings, tables or space.
    Refused,
    /// The stored rows were not written by this crate, or by a newer version of it.
    Damaged,
}

impl KeyValueError {
    /// Creates an error; for stores of your own.
    ///
    /// The text is lower case and has no full stop. It says what is wrong, with the value, and what to do.
    #[must_use]
    pub fn new(kind: KeyValueErrorKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into().into(), source: None }
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// Creates the error of one value: `what` `must` hold, but `got` was given.
    pub(crate) fn invalid(what: &str, must: &str, got: impl fmt::Display) -> Self {
        Self::new(KeyValueErrorKind::Invalid, format!("{what} must {must}, got {got}"))
    }

    /// Creates the error of a value that cannot be counted on.
    pub(crate) fn not_a_number() -> Self {
        let reason = "the value of a key that counts must be a decimal number below 2^63 - 1; choose another key";
        Self::new(KeyValueErrorKind::NotANumber, reason)
    }

    /// Returns the kind, which tells the caller what can be done.
    #[must_use]
    pub const fn kind(&self) -> KeyValueErrorKind {
        self.kind
    }

    /// Returns whether the operation may have been carried out all the same.
    #[must_use]
    pub const fn is_indeterminate(&self) -> bool {
        matches!(self.kind, KeyValueErrorKind::Indeterminate)
    }
}

impl fmt::Display for KeyValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl Error for KeyValueError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}
