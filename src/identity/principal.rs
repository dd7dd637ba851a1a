//! Who stands behind a credential.

use std::{fmt, sync::Arc};

use super::client::{Client, Digester, Tier};

/// Who stands behind a credential, as your table or your authentication layer knows it.
///
/// The account is charged, not the credential: two keys of one account share its limits. `Debug` shows the public name
/// and the tier only.
///
/// ```
/// use tollgate::Principal;
/// let alice = Principal::named("alice").in_tier("pro");
/// assert_eq!(format!("{alice:?}"), "Principal(alice, pro)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    who: Who,
    tier: Option<Tier>,
}

#[derive(Clone, PartialEq, Eq)]
enum Who {
    Named(Arc<str>),
    Private(Arc<str>),
    Holder,
}

impl Principal {
    /// The account with this public name, the same client as [`Client::named`] of it.
    ///
    /// The name may be shown, logged and billed.
    ///
    /// ```
    /// assert!(tollgate::Principal::named("alice").is_named());
    /// ```
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { who: Who::Named(name.into()), tier: None }
    }

    /// The account with this `id`, which nobody is shown: an e-mail address, a number of a customer.
    ///
    /// ```
    /// let alice = tollgate::Principal::private("alice@example.org");
    /// assert_eq!(format!("{alice:?}"), "Principal(..)");
    /// ```
    #[must_use]
    pub fn private(id: impl Into<Arc<str>>) -> Self {
        Self { who: Who::Private(id.into()), tier: None }
    }

    /// Whoever holds the credential: each credential is a client of its own.
    ///
    /// ```
    /// assert!(!tollgate::Principal::unnamed().is_named());
    /// ```
    #[must_use]
    pub const fn unnamed() -> Self {
        Self { who: Who::Holder, tier: None }
    }

    /// The same account in a tier that may have limits of its own.
    ///
    /// ```
    /// use tollgate::Principal;
    /// assert_ne!(Principal::named("alice").in_tier("pro"), Principal::named("alice"));
    /// ```
    #[must_use]
    pub fn in_tier(self, tier: impl Into<Tier>) -> Self {
        Self { tier: Some(tier.into()), ..self }
    }

    /// Whether it has a public name.
    ///
    /// ```
    /// assert!(!tollgate::Principal::private("alice@example.org").is_named());
    /// ```
    #[must_use]
    pub const fn is_named(&self) -> bool {
        matches!(self.who, Who::Named(_))
    }

    /// The client that is charged; the holder of a `credential` if there is one.
    pub(super) fn into_client(self, credential: Option<&[u8]>, digester: &Digester) -> Option<Client> {
        let client = match self.who {
            Who::Named(name) => digester.named(name),
            Who::Private(id) => digester.secret("account", id.as_bytes()),
            Who::Holder => digester.secret("key", credential?),
        };
        Some(match self.tier {
            Some(tier) => client.with_tier(tier),
            None => client,
        })
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.who {
            Who::Named(name) => name,
            Who::Private(_) => "..",
            Who::Holder => "unnamed",
        };
        match &self.tier {
            Some(tier) => write!(f, "Principal({name}, {})", tier.as_str()),
            None => write!(f, "Principal({name})"),
        }
    }
}
