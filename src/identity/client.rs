//! The client to which a request is attributed.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    digester::{Digest, Digester},
    name::{Name, Tier},
};

/// Client to which a request is attributed: a digest of fixed size, at most one public name and at most one tier.
///
/// Two clients are equal if their digests are. `Debug` shows the public name or eight digits of the digest, never the
/// identity that was digested.
///
/// ```
/// use tollgate::Client;
///
/// let alice = Client::named("alice").with_tier("pro");
/// assert_eq!(alice.name().unwrap().to_string(), "alice");
/// assert_eq!(alice.tier().unwrap().as_str(), "pro");
/// assert_eq!(alice, Client::named("alice"));
/// ```
#[derive(Clone)]
pub struct Client {
    pub(super) digest: Digest,
    pub(super) name: Option<Name>,
    pub(super) tier: Option<Tier>,
}

impl Client {
    /// Creates the client with this public name, digested with the key of this process.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        Digester::process().named(name)
    }

    /// Creates a client without a name and a tier.
    ///
    /// ```
    /// use tollgate::{Client, Digester};
    /// let digest = Digester::process().digest("session", [b"s3cret"]);
    /// assert!(Client::from_digest(digest).name().is_none());
    /// ```
    #[must_use]
    pub const fn from_digest(digest: Digest) -> Self {
        Self { digest, name: None, tier: None }
    }

    /// Sets a name that may be shown, logged and billed.
    ///
    /// ```
    /// use tollgate::{Client, Digester};
    /// let digest = Digester::process().digest("tenant", [b"17"]);
    /// assert_eq!(Client::from_digest(digest).with_name("acme").name().unwrap().to_string(), "acme");
    /// ```
    #[must_use]
    pub fn with_name(self, name: impl Into<Name>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Sets a tier, which may have limits of its own.
    #[must_use]
    pub fn with_tier(self, tier: impl Into<Tier>) -> Self {
        Self { tier: Some(tier.into()), ..self }
    }

    /// Returns the digest, under which the client is charged. Name and tier do not change it.
    #[must_use]
    #[inline]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the public name, if the identity has one.
    #[must_use]
    pub const fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    /// Returns the tier, if the identity has one.
    #[must_use]
    #[inline]
    pub const fn tier(&self) -> Option<&Tier> {
        self.tier.as_ref()
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "Client({name}")?,
            None => write!(f, "Client({:?}", self.digest)?,
        }
        match &self.tier {
            Some(tier) => write!(f, ", {})", tier.as_str()),
            None => f.write_str(")"),
        }
    }
}
