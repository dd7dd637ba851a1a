//! Errors of ledgers and spools that cannot be opened.

use std::{error::Error, fmt, sync::Arc};

use super::DbError;

/// Defines an error with a kind, a reason in words and an optional cause.
macro_rules! open_error {
    ($(#[$docs:meta])* $name:ident, $kind:ident) => {
        $(#[$docs])*
        #[derive(Clone, Debug)]
        pub struct $name {
            kind: $kind,
            reason: String,
            source: Option<Arc<dyn Error + Send + Sync>>,
        }

        impl $name {
            pub(crate) fn new(kind: $kind, reason: impl Into<String>) -> Self {
                Self { kind, reason: reason.into(), source: None }
            }

            /// Adds the error that caused this one.
            pub(crate) fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
                Self { source: Some(Arc::new(source)), ..self }
            }

            /// Returns the kind, which tells the caller what can be done.
            #[must_use]
            pub const fn kind(&self) -> $kind {
                self.kind
            }

            /// Returns the value and the reason as one text.
            #[must_use]
            pub fn reason(&self) -> &str {
                &self.reason
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.reason)
            }
        }

        impl Error for $name {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                self.source.as_ref().map(|source| &**source as _)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                (self.kind, &self.reason) == (other.kind, &other.reason)
            }
        }

        impl Eq for $name {}
    };
}

open_error! {
    /// A ledger that cannot be opened: its database cannot be reached, would lose acknowledged rows, or has other
    /// tables. Two errors are equal if their kinds and reasons are.
    ///
    /// ```
    /// # #[cfg(feature = "sqlite")]
    /// # tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
    /// use tollgate::{Ledger, LedgerErrorKind};
    ///
    /// let error = Ledger::sqlite("/no/such/folder/ledger.db").open().await.unwrap_err();
    /// assert_eq!(error.kind(), LedgerErrorKind::Address);
    /// println!("{}", error.reason());
    /// # });
    /// ```
    LedgerError, LedgerErrorKind
}

/// Kind of a [`LedgerError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LedgerErrorKind {
    /// The path or the URL names no such database, or the program lacks a feature to reach it.
    Address,
    /// The database does not answer; a later attempt may succeed.
    Unreachable,
    /// Another program holds a lock; a later attempt may succeed.
    Busy,
    /// The role or the process lacks a right.
    Forbidden,
    /// A crash could lose rows that were acknowledged.
    Unsafe,
    /// The tables are altered, missing or of a newer version.
    Tables,
    /// The spool cannot be opened, or belongs to another ledger; the [`source`](Error::source) is its error.
    Spool,
}

open_error! {
    /// A file that cannot be a spool: it cannot be opened, another process has it open, it belongs to another ledger, or
    /// it is damaged. Two errors are equal if their kinds and reasons are.
    ///
    /// ```
    /// use tollgate::SpoolErrorKind;
    ///
    /// let error = tollgate::Spool::at("/no/such/directory/quota.spool").unwrap_err();
    /// assert_eq!(error.kind(), SpoolErrorKind::Io);
    /// assert!(error.reason().starts_with("a spool must be a file that can be read and written"));
    /// ```
    SpoolError, SpoolErrorKind
}

/// Kind of a [`SpoolError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpoolErrorKind {
    /// The file cannot be opened, read or written; the [`source`](Error::source) is the system's error.
    Io,
    /// Another process has the file open.
    InUse,
    /// The file belongs to another ledger: one that is open, or one whose records wait in it.
    OtherLedger,
    /// The file is not as a spool wrote it. It was renamed, and the next attempt begins with an empty one.
    Damaged,
}

/// Text of the database for an error that this crate puts into words.
#[derive(Debug)]
struct DatabaseText(String);

impl fmt::Display for DatabaseText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for DatabaseText {}

impl LedgerError {
    /// Adds the place of the database to the reason.
    pub(crate) fn at(mut self, place: &str) -> Self {
        if !place.is_empty() {
            self.reason = format!("{} ({place})", self.reason);
        }
        self
    }

    /// Whether a later attempt may succeed although nothing about the database is changed.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self.kind, LedgerErrorKind::Unreachable | LedgerErrorKind::Busy)
    }
}

impl From<SpoolError> for LedgerError {
    fn from(error: SpoolError) -> Self {
        Self::new(LedgerErrorKind::Spool, error.reason()).caused_by(error)
    }
}

impl From<DbError> for LedgerError {
    fn from(error: DbError) -> Self {
        let text = error.reason();
        let read_only = text.contains("readonly database");
        let (kind, way_out) = match &error {
            DbError::Refused(_) if read_only => {
                (LedgerErrorKind::Forbidden, "; the file and its folder must be writable")
            }
            DbError::Refused(_) if text.contains("SQLSTATE 42501") && text.contains("must be owner") => {
                (LedgerErrorKind::Forbidden, "; this version migrates the tables: open the ledger once as their owner")
            }
            DbError::Refused(_) if text.contains("SQLSTATE 42501") => (
                LedgerErrorKind::Forbidden,
                "; GRANT the role USAGE and, for the first start, CREATE on the schema, and SELECT, INSERT, UPDATE and DELETE on its tables quota_*",
            ),
            DbError::Refused(_) if text.contains("SQLSTATE 28") => (LedgerErrorKind::Forbidden, ""),
            DbError::Refused(_) if text.contains("SQLSTATE 3D000") => (LedgerErrorKind::Address, ""),
            DbError::Lost(_) if text.contains("TLS support") => (
                LedgerErrorKind::Address,
                "; enable TLS in this program: sqlx = { version = \"0.9\", features = [\"tls-rustls\"] }",
            ),
            DbError::Lost(_) => (LedgerErrorKind::Unreachable, ""),
            DbError::Again(_) => (LedgerErrorKind::Busy, ""),
            DbError::Rejected(_) | DbError::Refused(_) => (LedgerErrorKind::Tables, ""),
        };
        Self::new(kind, format!("{text}{way_out}")).caused_by(DatabaseText(text.into()))
    }
}

impl From<LedgerError> for DbError {
    fn from(error: LedgerError) -> Self {
        match error.kind {
            LedgerErrorKind::Unreachable => Self::Lost(error.reason),
            LedgerErrorKind::Busy => Self::Again(error.reason),
            _ => Self::Refused(error.reason),
        }
    }
}
