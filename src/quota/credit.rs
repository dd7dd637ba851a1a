//! Credits: amounts that are given back after the fact.

use super::MOST;
use crate::{error::ConfigError, kind::Kind};

/// Result of [`Quotas::credit`](crate::Quotas::credit).
///
/// ```
/// # async fn takes(quotas: &tollgate::Quotas, alice: &tollgate::Client) -> Result<(), tollgate::QuotaError> {
/// let credited = quotas.credit(alice, "ticket 4711", "tokens", 500, "the model was down").await?;
/// if credited.amount < 500 {
///     println!("no more than {} was used in this period", credited.amount);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credited {
    /// Kind that was given back.
    pub kind: Kind,
    /// Amount that was given back, and that stands: the most that one counter gave back, and so at most what was asked for
    /// and what was used.
    pub amount: u64,
    /// Whether an earlier call under this id gave it back, so that this one changed nothing.
    pub already: bool,
}

/// A credit as it was asked for, with valid values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CreditRequest {
    pub(crate) id: Box<str>,
    pub(crate) kind: Kind,
    pub(crate) amount: u64,
    #[allow(dead_code, reason = "memory has no entries to show it in")]
    pub(crate) reason: Box<str>,
}

/// Greatest lengths of an id and of a reason, in bytes.
const LONGEST_ID: usize = 255;
const LONGEST_REASON: usize = 1_024;

impl CreditRequest {
    /// Creates a request.
    ///
    /// # Errors
    /// If the id is not 1 to 255 visible ASCII characters or spaces, the kind is not counted over time, the amount is 0 or
    /// above 2^53 - 1, or the reason has more than 1,024 bytes or a control character.
    pub(crate) fn try_new(id: &str, kind: Kind, amount: u64, reason: &str) -> Result<Self, ConfigError> {
        let is_id = (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !is_id {
            let must = "be 1 to 255 visible ASCII characters or spaces";
            return Err(ConfigError::quoted("id of a credit", must, id));
        }
        ConfigError::require(kind != Kind::Concurrent, "kind of a credit", "be counted over time", kind.as_str())?;
        ConfigError::require((1..=MOST).contains(&amount), "amount of a credit", "be from 1 to 2^53 - 1", amount)?;
        if reason.len() > LONGEST_REASON || reason.chars().any(char::is_control) {
            let must = "be at most 1,024 bytes without control characters";
            return Err(ConfigError::quoted("reason of a credit", must, reason));
        }
        Ok(Self { id: id.into(), kind, amount, reason: reason.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_values_are_named_in_the_error() {
        let tokens = || Kind::from("tokens");
        assert!(CreditRequest::try_new(&"~".repeat(255), tokens(), MOST, &"\u{e4}".repeat(512)).is_ok());
        assert!(CreditRequest::try_new(" ", tokens(), 1, "").is_ok());
        let long = "7".repeat(256);
        for (id, kind, amount, reason, must) in [
            ("", tokens(), 1, "", "id of a credit must be 1 to 255 visible ASCII characters or spaces, got \"\""),
            (&*long, tokens(), 1, "", "id of a credit must be 1 to 255 "),
            ("\u{b7}", tokens(), 1, "", "id of a credit must be 1 to 255 "),
            ("7\n", tokens(), 1, "", "id of a credit must be 1 to 255 "),
            ("7", Kind::Concurrent, 1, "", "kind of a credit must be counted over time, got concurrent_requests"),
            ("7", tokens(), 0, "", "amount of a credit must be from 1 to 2^53 - 1, got 0"),
            ("7", tokens(), MOST + 1, "", "amount of a credit must be from 1 to 2^53 - 1, got 9007199254740992"),
            (
                "7",
                tokens(),
                1,
                "a\nb",
                "reason of a credit must be at most 1,024 bytes without control characters, got",
            ),
            ("7", tokens(), 1, &long.repeat(5), "reason of a credit must be at most 1,024 bytes "),
        ] {
            let error = CreditRequest::try_new(id, kind, amount, reason).unwrap_err().to_string();
            assert!(error.starts_with(must) && error.len() < 200, "{error}");
        }
    }
}
