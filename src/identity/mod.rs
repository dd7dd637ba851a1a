//! Identities: attribution of a request to a client.
//!
//! An [`Identify`] derives the client to charge from a request's head. The docs of each say what a forged request
//! gains:
//!
//! | identity | vouched for by |
//! |---|---|
//! | [`PeerIp`] | the connection, and the proxies that you name |
//! | [`ApiKey`] | your table of keys; an unknown key is no identity |
//! | [`Verified`] | your own authentication layer, through a request extension |
//! | [`Unverified`] | nothing in this crate: only what stands in front of this service |
//! | a closure | you |
//!
//! They chain: the first that finds a client decides.
//!
//! ```
//! use std::{collections::HashMap, net::SocketAddr};
//! use axum::extract::ConnectInfo;
//! use tollgate::{ApiKey, Digester, Forwarded, Identify, Principal, RequestHead};
//!
//! let keys = HashMap::from([("k-7f3a".to_owned(), Principal::named("alice").in_tier("pro"))]);
//! let peer = tollgate::peer_ip!(axum)
//!     .trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
//! let who = ApiKey::header("x-api-key", keys).or(peer);
//!
//! let request = |key: &str| {
//!     let address: SocketAddr = "198.51.100.7:4711".parse().unwrap();
//!     let request = http::Request::builder().header("x-api-key", key).extension(ConnectInfo(address));
//!     request.body(()).unwrap()
//! };
//! let name = |key: &str| who.identify(&RequestHead::of(&request(key)), Digester::process()).unwrap().name().unwrap().to_string();
//! assert_eq!(name("k-7f3a"), "alice");
//! assert_eq!(name("guessed"), "198.51.100.7");
//! ```

mod api_key;
mod client;
mod cohort;
mod credential;
mod digester;
mod forwarded;
mod lookup;
mod lookup_layer;
mod name;
mod peer_ip;
mod secret;
mod sip_hash;
mod unidentified;
mod unverified;
mod verified;

use std::sync::Arc;

use http::HeaderName;

use crate::head::RequestHead;

pub use api_key::ApiKey;
pub use client::{Client, Principal};
pub(crate) use cohort::Cohort;
pub use digester::{Digest, Digester};
pub use forwarded::{Forwarded, ForwardedField};
pub use lookup::Lookup;
pub use lookup_layer::{LookupFuture, LookupLayer, LookupService};
pub use name::{Name, Tier};
pub use peer_ip::{PeerAddress, PeerIp};
pub use secret::{LocalClient, Secret};
pub use unidentified::{MissingIdentity, OnUnidentified};
pub(crate) use unidentified::{anonymous, without_reports};
pub use unverified::Unverified;
pub use verified::Verified;

/// Derives the client to charge from a request's head; closures implement it.
///
/// It runs on every request's path and must not block. It must use the `digester` argument, so that a shared store
/// knows the same client by the same digest on every node.
///
/// ```
/// use tollgate::{Digester, Identify, RequestHead};
///
/// let by_host = |request: &RequestHead<'_>, digester: &Digester| Some(digester.named(request.uri.host()?));
/// let request = http::Request::get("http://example.org/").body(()).unwrap();
/// let client = by_host.identify(&RequestHead::of(&request), Digester::process()).unwrap();
/// assert_eq!(client.name().unwrap().to_string(), "example.org");
/// ```
pub trait Identify: Send + Sync + 'static {
    /// Returns the client, or `None` if the request has no identity of this type.
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client>;

    /// Returns the properties that all its clients have, known when a layer is built.
    ///
    /// The default guarantees nothing.
    fn guarantees(&self) -> IdentityGuarantees {
        IdentityGuarantees::default()
    }

    /// Returns the cause of a request without a client, known when a layer is built. It decides on such requests unless
    /// the layer's `on_unidentified` does.
    ///
    /// The default is [`Optional`](MissingIdentity::Optional).
    fn missing(&self) -> MissingIdentity {
        MissingIdentity::default()
    }

    /// Takes a function that is called once, with the name of the first field of a trusted proxy that cannot be read. A
    /// layer that is built calls this method.
    ///
    /// The default ignores the function.
    fn on_unreadable(&self, report: UnreadableReport) {
        drop(report);
    }

    /// Tries `other` if this identity finds no client.
    ///
    /// ```
    /// use tollgate::{Principal, ApiKey, Identify, PeerIp};
    /// let keys = |key: &str| (key == "k-7f3a").then(|| Principal::named("alice"));
    /// let who = ApiKey::header("x-api-key", keys).or(ApiKey::bearer(keys)).or(PeerIp::new());
    /// assert!(who.guarantees().verified);
    /// ```
    fn or<I: Identify>(self, other: I) -> Or<Self, I>
    where
        Self: Sized,
    {
        Or { first: self, second: other }
    }

    /// Charges each pair of this client and `other`'s apart. There is a client only if both find one.
    ///
    /// The pair has the first tier that is known. It has no public name: the name of one half is not the pair's.
    ///
    /// ```
    /// use tollgate::{Identify, PeerIp, Unverified};
    /// let who = PeerIp::new().and(Unverified::header("x-user"));
    /// assert!(!who.guarantees().named);
    /// ```
    fn and<I: Identify>(self, other: I) -> And<Self, I>
    where
        Self: Sized,
    {
        And { first: self, second: other }
    }
}

/// Function that receives the name of a field that cannot be read; see [`Identify::on_unreadable`].
pub type UnreadableReport = Arc<dyn Fn(&HeaderName) + Send + Sync>;

/// Properties that all clients of an [`Identify`] have.
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// assert!(PeerIp::new().guarantees().verified);
/// assert!(!Unverified::header("x-user").guarantees().verified);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentityGuarantees {
    /// Each client has a public name.
    pub named: bool,
    /// A client cannot claim another's identity by sending a field.
    pub verified: bool,
    /// Each client is one party. An address is none: all clients behind it have it.
    pub personal: bool,
    /// All clients are of one kind, so that no other kind needs room in a table that they fill.
    pub(crate) one_kind: bool,
}

impl<F> Identify for F
where
    F: Fn(&RequestHead<'_>, &Digester) -> Option<Client> + Send + Sync + 'static,
{
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        self(request, digester)
    }
}

impl<I: Identify + ?Sized> Identify for Arc<I> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        (**self).identify(request, digester)
    }

    fn guarantees(&self) -> IdentityGuarantees {
        (**self).guarantees()
    }

    fn missing(&self) -> MissingIdentity {
        (**self).missing()
    }

    fn on_unreadable(&self, report: UnreadableReport) {
        (**self).on_unreadable(report);
    }
}

impl Identify for Box<dyn Identify> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        (**self).identify(request, digester)
    }

    fn guarantees(&self) -> IdentityGuarantees {
        (**self).guarantees()
    }

    fn missing(&self) -> MissingIdentity {
        (**self).missing()
    }

    fn on_unreadable(&self, report: UnreadableReport) {
        (**self).on_unreadable(report);
    }
}

/// Identity that tries a second one if the first finds no client; made by [`Identify::or`].
///
/// It guarantees only the properties that both have.
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// let who: tollgate::identity::Or<Unverified, PeerIp> = Unverified::header("x-user").or(PeerIp::new());
/// assert!(!who.guarantees().verified);
/// ```
#[derive(Clone, Debug)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A: Identify, B: Identify> Identify for Or<A, B> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        self.first.identify(request, digester).or_else(|| self.second.identify(request, digester))
    }

    fn guarantees(&self) -> IdentityGuarantees {
        let (first, second) = (self.first.guarantees(), self.second.guarantees());
        IdentityGuarantees {
            named: first.named && second.named,
            verified: first.verified && second.verified,
            personal: first.personal && second.personal,
            one_kind: false,
        }
    }

    fn missing(&self) -> MissingIdentity {
        self.first.missing().or(self.second.missing())
    }

    fn on_unreadable(&self, report: UnreadableReport) {
        self.first.on_unreadable(Arc::clone(&report));
        self.second.on_unreadable(report);
    }
}

/// Identity that requires two others and takes each pair of their clients for one client; made by [`Identify::and`].
///
/// It is verified if both are. Its clients have no public names.
///
/// ```
/// use tollgate::{Identify, PeerIp, Unverified};
/// let who: tollgate::identity::And<PeerIp, Unverified> = PeerIp::new().and(Unverified::header("x-user"));
/// assert!(!who.guarantees().verified);
/// ```
#[derive(Clone, Debug)]
pub struct And<A, B> {
    first: A,
    second: B,
}

impl<A: Identify, B: Identify> Identify for And<A, B> {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let first = self.first.identify(request, digester)?;
        let second = self.second.identify(request, digester)?;
        let halves = [first.digest().0.to_le_bytes(), second.digest().0.to_le_bytes()];
        let pair = Client::from_digest(digester.digest("pair", halves));
        let tier = first.tier().or(second.tier()).cloned();
        Some(Client { tier, ..pair.of_cohort(first.cohort().and(second.cohort())) })
    }

    fn guarantees(&self) -> IdentityGuarantees {
        let (first, second) = (self.first.guarantees(), self.second.guarantees());
        IdentityGuarantees {
            named: false,
            verified: first.verified && second.verified,
            personal: first.personal || second.personal,
            one_kind: first.one_kind && second.one_kind,
        }
    }

    fn missing(&self) -> MissingIdentity {
        use MissingIdentity::{Credential, Optional};
        // The half that a client may leave out is blamed, not one that the server provides.
        match (self.first.missing(), self.second.missing()) {
            (sent @ Credential { .. }, _) | (_, sent @ Credential { .. }) => sent,
            (Optional, _) | (_, Optional) => Optional,
            (first, _) => first,
        }
    }

    fn on_unreadable(&self, report: UnreadableReport) {
        self.first.on_unreadable(Arc::clone(&report));
        self.second.on_unreadable(report);
    }
}
