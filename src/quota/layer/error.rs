//! Errors of calls on the accounts of a layer.

use std::{error::Error, fmt};

use crate::{error::ConfigError, quota::store::StoreError};

/// Error of a call on the accounts of a layer.
///
/// Accounts in memory always answer; the only errors of calls on them are [`Invalid`](Self::Invalid) and
/// [`UnknownAccount`](Self::UnknownAccount).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tollgate::{QuotaError, Client, Plan, QuotaLayer};
///
/// let quotas = QuotaLayer::new(Plan::standard()).handle();
/// match quotas.reset(&Client::named("alice"), "querys").await {
///     Err(QuotaError::Invalid(invalid)) => println!("no such limit: {invalid}"),
///     Err(QuotaError::UnknownAccount) => println!("alice has used nothing so far"),
///     Err(error) => println!("the store is down: {error}"),
///     Ok(()) => unreachable!(),
/// }
/// # });
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuotaError {
    /// The call has an invalid argument; nothing has changed.
    Invalid(ConfigError),
    /// The store has no account of this client, so that there is nothing to change; nothing was created. Perhaps its kind
    /// or its name is wrong: [`usage_page`](crate::Quotas::usage_page) lists the clients that have an account.
    ///
    /// An account begins with the first charge, reservation, record or grant. Memory forgets it when nothing in it counts
    /// any more; a ledger does not.
    UnknownAccount,
    /// The store is unavailable; nothing has changed.
    Unavailable,
    /// The store did not reply in time, and the call may have been carried out.
    Indeterminate,
    /// The store rejects the call for good (a constraint, a trigger, a value out of range), and nothing was written.
    /// Calls of other clients are not affected. The text is that of the database.
    Rejected(String),
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::UnknownAccount => {
                f.write_str("the client has no account; nothing has changed, check the kind and the name of the client")
            }
            Self::Unavailable => f.write_str("the quota store is unavailable; nothing has changed"),
            Self::Indeterminate => {
                f.write_str("the quota store did not reply in time; the call may have been carried out")
            }
            Self::Rejected(why) => {
                write!(f, "the quota store rejected the call; nothing was written, do not retry: {why}")
            }
        }
    }
}

impl Error for QuotaError {}

impl From<ConfigError> for QuotaError {
    fn from(invalid: ConfigError) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<StoreError> for QuotaError {
    fn from(trouble: StoreError) -> Self {
        match trouble {
            StoreError::Unavailable => Self::Unavailable,
            StoreError::Indeterminate => Self::Indeterminate,
            StoreError::Rejected(why) => Self::Rejected(why.to_string()),
            StoreError::Invalid(invalid) => Self::Invalid(invalid),
            StoreError::UnknownAccount => Self::UnknownAccount,
            StoreError::Nameless => Self::Invalid(ConfigError::message(
                "a ledger bills by public name, but the client has none of at most 1,024 bytes",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_says_whether_anything_changed() {
        let invalid = ConfigError::new("limit", "be one of the plan's", "querys");
        for (error, text) in [
            (QuotaError::from(invalid), "limit must be one of the plan's, got querys"),
            (StoreError::Unavailable.into(), "the quota store is unavailable; nothing has changed"),
            (
                StoreError::UnknownAccount.into(),
                "the client has no account; nothing has changed, check the kind and the name of the client",
            ),
            (
                StoreError::Rejected("CHECK failed".into()).into(),
                "the quota store rejected the call; nothing was written, do not retry: CHECK failed",
            ),
            (
                StoreError::Indeterminate.into(),
                "the quota store did not reply in time; the call may have been carried out",
            ),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
