//! The client to which a request is attributed, and the principal that a credential belongs to.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    cohort::Cohort,
    digester::{Digest, Digester},
    name::{Name, Tier, is_public},
};
use crate::error::ConfigError;

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
    /// Also [hidden](Name::hidden) where it only holds the cohort.
    pub(super) name: Option<Name>,
    pub(super) tier: Option<Tier>,
}

impl Client {
    /// Creates the client with this public name, digested with the key of this process.
    ///
    /// Its tier is unknown: the accounts of quotas use the one under which the client was seen last. A client that a
    /// layer identifies without a tier has none.
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
        let mut name = name.into();
        if let Some(old) = &self.name {
            name.set_cohort(old.cohort());
        }
        Self { name: Some(name), ..self }
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
        match &self.name {
            Some(name) if !name.is_hidden() => Some(name),
            _ => None,
        }
    }

    /// Returns the client of the same public name that is known by nothing else.
    pub(super) fn known_by_name(&self, digester: &Digester) -> Option<Self> {
        let name = self.name()?;
        match (name.as_text(), name.as_network()) {
            (Some(text), _) => Some(digester.named(text)),
            (None, network) => network.map(|network| digester.network(network)),
        }
    }

    /// Returns the cohort, of which a bounded table holds only a part.
    pub(crate) fn cohort(&self) -> Cohort {
        self.name.as_ref().map_or(Cohort::CLAIMED, Name::cohort)
    }

    /// Sets the cohort of a client that is not a network.
    #[inline]
    pub(super) fn of_cohort(mut self, cohort: Cohort) -> Self {
        match &mut self.name {
            Some(name) => name.set_cohort(cohort),
            None => self.name = Some(Name::hidden(cohort)),
        }
        self
    }

    /// Returns the tier, if the identity has one.
    #[must_use]
    #[inline]
    pub fn tier(&self) -> Option<&Tier> {
        self.tier.as_ref().filter(|tier| !tier.is_unknown())
    }

    /// Whether it is known which tier the client has, if any.
    #[inline]
    pub(crate) fn has_known_tier(&self) -> bool {
        self.tier.as_ref().is_none_or(|tier| !tier.is_unknown())
    }

    /// Gives the client that a layer identified no tier if its tier is unknown.
    #[inline]
    pub(crate) fn identified(found: &mut Option<Self>) {
        if let Some(client) = found
            && !client.has_known_tier()
        {
            client.tier = None;
        }
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

/// Displays the client as `kind:name`, such as `name:acme` or `ip:2001:db8::/64`. A client without a public name is
/// displayed by a part of its digest.
///
/// These two kinds can be parsed. Any other kind is `other`: its identity has more parts than the name.
///
/// ```
/// use tollgate::{Client, Digester};
///
/// let peer = Digester::process().peer("198.51.100.7".parse().unwrap());
/// assert_eq!(peer.to_string(), "ip:198.51.100.7");
/// assert_eq!("ip:198.51.100.7".parse(), Ok(peer));
/// assert_eq!("name:acme".parse(), Ok(Client::named("acme")));
/// ```
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(name) = self.name() else { return fmt::Debug::fmt(&self.digest, f) };
        let same = self.known_by_name(Digester::process());
        let kind = same
            .filter(|client| client == self)
            .map_or("other", |_| if name.as_text().is_some() { "name" } else { "ip" });
        write!(f, "{kind}:{name}")
    }
}

/// Parses the kinds `name`, as [`Client::named`] makes it, and `ip`.
impl FromStr for Client {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let client = match text.split_once(':') {
            Some(("name", name)) if is_public(name) => Some(Digester::process().named(name)),
            Some(("ip", network)) => {
                let network = network.parse().or_else(|_| network.parse().map(|ip: IpAddr| IpNet::from(ip)));
                network.ok().map(|network: IpNet| Digester::process().network(network.trunc()))
            }
            _ => None,
        };
        client.ok_or_else(|| ConfigError::quoted("client", "be name:.. or ip:.. with a public name or a network", text))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "Client({name}")?,
            None => write!(f, "Client({:?}", self.digest)?,
        }
        match self.tier() {
            Some(tier) => write!(f, ", {tier})"),
            None => f.write_str(")"),
        }
    }
}

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
    /// The name or the id cannot be one.
    Invalid,
}

impl Principal {
    /// Creates a principal with a public name; it is the same client as [`Client::named`] of that name.
    ///
    /// The name may be shown, logged and billed. A name that is empty or contains a control character or an invisible one
    /// is no identity.
    #[must_use]
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        let name = name.into();
        Self { label: if is_public(&name) { Label::Named(name) } else { Label::Invalid }, tier: None }
    }

    /// Creates a principal with an `id` that is never shown, such as an e-mail address or a customer number. An empty one
    /// is no identity.
    ///
    /// ```
    /// let alice = tollgate::Principal::private("alice@example.org");
    /// assert_eq!(format!("{alice:?}"), "Principal(..)");
    /// ```
    #[must_use]
    pub fn private(id: impl Into<Arc<str>>) -> Self {
        let id = id.into();
        Self { label: if id.is_empty() { Label::Invalid } else { Label::Private(id) }, tier: None }
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
            Label::Invalid => return None,
            _ if named_only => return None,
            Label::Private(id) => digester.secret("account", id.as_bytes()),
            Label::Unnamed => digester.secret("key", credential?),
        };
        Some(Client { tier: self.tier, ..client.of_cohort(Cohort::VOUCHED) })
    }
}

/// Displays the name as `Debug` does, without the type: `alice`, `..` for a private id, `unnamed`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.label {
            Label::Named(name) => name,
            Label::Private(_) => "..",
            Label::Unnamed => "unnamed",
            Label::Invalid => "invalid",
        })
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tier {
            Some(tier) => write!(f, "Principal({self}, {tier})"),
            None => write!(f, "Principal({self})"),
        }
    }
}
