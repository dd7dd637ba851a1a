//! The principal that a credential belongs to.

use std::{fmt, sync::Arc};

use super::{Client, Digester, Tier};

/// Principal of a credential, as your key table or your authentication layer knows it: a name or an id, and a tier.
///
/// The principal is charged, not the credential: two keys of one principal share its limits. `Debug` shows only the
/// public name and the tier.
///
/// ```
/// use tollgate::Principal;
/// let alice = Principal::named("alice").in_tier("pro");
/// assert_eq!(format!("{alice:?}"), "Principal(alice, pro)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    label: Label,
    tier: Option<Tier>,
}

#[derive(Clone, PartialEq, Eq)]
enum Label {
    Named(Arc<str>),
    Private(Arc<str>),
    Unnamed,
}

impl Principal {
    /// Creates a principal with a public name; it is the same client as [`Client::named`] of that name.
    ///
    /// The name may be shown, logged and billed.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Self { label: Label::Named(name.into()), tier: None }
    }

    /// Creates a principal with an `id` that is never shown, such as an e-mail address or a customer number.
    ///
    /// ```
    /// let alice = tollgate::Principal::private("alice@example.org");
    /// assert_eq!(format!("{alice:?}"), "Principal(..)");
    /// ```
    #[must_use]
    pub fn private(id: impl Into<Arc<str>>) -> Self {
        Self { label: Label::Private(id.into()), tier: None }
    }

    /// Creates a principal that is known by its credential alone: each credential is a client of its own.
    #[must_use]
    pub const fn unnamed() -> Self {
        Self { label: Label::Unnamed, tier: None }
    }

    /// Sets a tier, which may have limits of its own.
    #[must_use]
    pub fn in_tier(self, tier: impl Into<Tier>) -> Self {
        Self { tier: Some(tier.into()), ..self }
    }

    /// Returns whether the principal has a public name.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        matches!(self.label, Label::Named(_))
    }

    /// Returns the client to charge. An unnamed principal is identified by its `credential`.
    ///
    /// Under `named_only` a principal without a public name is no client.
    pub(super) fn into_client(
        self,
        named_only: bool,
        credential: Option<&[u8]>,
        digester: &Digester,
    ) -> Option<Client> {
        let client = match self.label {
            Label::Named(name) => digester.named(name),
            _ if named_only => return None,
            Label::Private(id) => digester.secret("account", id.as_bytes()),
            Label::Unnamed => digester.secret("key", credential?),
        };
        Some(Client { tier: self.tier, ..client })
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match &self.label {
            Label::Named(name) => name,
            Label::Private(_) => "..",
            Label::Unnamed => "unnamed",
        };
        match &self.tier {
            Some(tier) => write!(f, "Principal({name}, {})", tier.as_str()),
            None => write!(f, "Principal({name})"),
        }
    }
}
