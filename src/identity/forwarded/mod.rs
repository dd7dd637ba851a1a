//! What proxies say about where a request came from, and whom of them to believe.

mod element;
mod hops;
mod trust;

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};

use super::network::canonical;
use crate::error::ConfigError;
use hops::{Form, Hops, MAX_HOPS};
use trust::Trust;

/// A field in which proxies tell the client's address, and which proxies are believed.
///
/// All lines of the field are one list. It is walked from the right, where the proxy nearest to us wrote: while the one
/// who wrote is trusted, the address that it wrote down counts. The first address that is not trusted is the client;
/// nothing to the left of it is looked at, for the client may have written that. An element that cannot be read (also
/// an empty one, `unknown`, or an obfuscated name) ends the walk too, and the trusted proxy that wrote it is charged.
/// Elements may carry ports: `198.51.100.7:4711`, `[2001:db8::7]:4711`.
///
/// At most 32 elements are walked, and at most 1,024 bytes of each.
///
/// ```
/// use std::net::SocketAddr;
/// use tollgate::{Digester, Forwarded, Identify, PeerIp, RequestHead};
///
/// let peer = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
/// let charged = |from: [u8; 4], field: &str| {
///     let request = http::Request::builder().header("x-forwarded-for", field).extension(SocketAddr::from((from, 80)));
///     let request = request.body(()).unwrap();
///     peer.identify(&RequestHead::of(&request), Digester::process()).unwrap().name().unwrap().to_string()
/// };
/// assert_eq!(charged([10, 0, 0, 1], "forged, 198.51.100.7, 10.0.0.2"), "198.51.100.7");
/// assert_eq!(charged([203, 0, 113, 9], "198.51.100.7"), "203.0.113.9");
/// ```
#[derive(Clone, Debug)]
pub struct Forwarded {
    field: ForwardedField,
    trust: Trust,
}

/// A field in which proxies tell the client's address, before it is said whom to believe.
///
/// Name the field that **your** proxy writes: one that it passes on unread is the client's to forge.
///
/// ```
/// use tollgate::Forwarded;
/// let field = Forwarded::x_forwarded_for();
/// let trusted = field.from_networks(["10.0.0.0/8", "fd00::/8"]);
/// # let _ = trusted;
/// ```
#[derive(Clone, Debug)]
pub struct ForwardedField {
    name: HeaderName,
    form: Form,
}

impl Forwarded {
    /// `X-Forwarded-For`, to which each proxy appends the address that it was called from.
    ///
    /// ```
    /// let one_proxy = tollgate::Forwarded::x_forwarded_for().through_hops(1);
    /// # let _ = one_proxy;
    /// ```
    #[must_use]
    pub const fn x_forwarded_for() -> ForwardedField {
        ForwardedField { name: HeaderName::from_static("x-forwarded-for"), form: Form::Addresses }
    }

    /// `Forwarded` (RFC 7239), to which each proxy appends `for=` and the address that it was called from.
    ///
    /// ```
    /// let trusted = tollgate::Forwarded::rfc7239().from_networks(["192.0.2.1"]);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    pub const fn rfc7239() -> ForwardedField {
        ForwardedField { name: header::FORWARDED, form: Form::Pairs }
    }

    /// A field with the client's address alone, such as `X-Real-IP` or `CF-Connecting-IP`.
    ///
    /// The proxy has to replace what the client sent in it. A field that comes more than once is not read.
    ///
    /// # Panics
    /// When `name` is no field name.
    ///
    /// ```
    /// let edge = ["173.245.48.0/20", "2400:cb00::/32"];
    /// let trusted = tollgate::Forwarded::single("cf-connecting-ip").from_networks(edge);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    pub fn single(name: impl AsRef<str>) -> ForwardedField {
        Self::try_single(name).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`single`](Self::single) for input at run time.
    ///
    /// # Errors
    /// When `name` is no field name.
    ///
    /// ```
    /// let error = tollgate::Forwarded::try_single("x real ip").unwrap_err();
    /// assert_eq!(error.to_string(), "field name must be a token of RFC 9110, got \"x real ip\"");
    /// ```
    pub fn try_single(name: impl AsRef<str>) -> Result<ForwardedField, ConfigError> {
        Ok(ForwardedField { name: super::credential::field_name(name.as_ref())?, form: Form::Single })
    }

    /// The address to charge: `peer` unless it is trusted and names another.
    pub(super) fn client(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Option<IpAddr> {
        let peer = peer.map(canonical);
        if !self.trust.admits_peer(peer) {
            return peer;
        }
        let mut client = peer;
        for (walked, hop) in Hops::of(&self.field.name, self.field.form, headers).take(MAX_HOPS).enumerate() {
            let Some(hop) = hop.map(canonical) else { break };
            client = Some(hop);
            if !self.trust.goes_on(walked + 1, hop) {
                break;
            }
        }
        client
    }

    /// Whether no client can make itself another by what it sends.
    pub(super) const fn is_verified(&self) -> bool {
        matches!(self.trust, Trust::Networks(_))
    }
}

impl ForwardedField {
    /// Believes proxies in these networks, each an address or `address/prefix length`.
    ///
    /// Name the proxies alone: whoever calls from one of these networks can say that it is anyone, so a network with
    /// all the world in it is not taken.
    ///
    /// # Panics
    /// When one of them is no network, or has a prefix length of 0.
    ///
    /// ```
    /// let trusted = tollgate::Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8", "2001:db8::1"]);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    pub fn from_networks<N: AsRef<str>>(self, networks: impl IntoIterator<Item = N>) -> Forwarded {
        self.try_from_networks(networks).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`from_networks`](Self::from_networks) for input at run time.
    ///
    /// # Errors
    /// When one of them is no network, or has a prefix length of 0.
    ///
    /// ```
    /// let error = tollgate::Forwarded::x_forwarded_for().try_from_networks(["10.0.0.0/33"]).unwrap_err();
    /// assert_eq!(error.to_string(), "trusted network must be an address, alone or with a prefix length above 0, got \"10.0.0.0/33\"");
    /// ```
    pub fn try_from_networks<N: AsRef<str>>(
        self,
        networks: impl IntoIterator<Item = N>,
    ) -> Result<Forwarded, ConfigError> {
        Ok(Forwarded { field: self, trust: Trust::try_networks(networks)? })
    }

    /// Believes the nearest `count` proxies, whatever their addresses: 1 to 32.
    ///
    /// It holds only if **nobody can reach this service but through all of them**: who goes round one can say that it
    /// is anyone. So such an identity is not [`verified`](crate::IdentityGuarantees::verified). A list that is shorter than `count`
    /// is taken to its left end, and a [`single`](Forwarded::single) address is taken whatever the count. It works
    /// without a peer's address too, as behind a proxy on a Unix socket.
    ///
    /// # Panics
    /// When `count` is 0 or above 32.
    ///
    /// ```
    /// let router_behind_cdn = tollgate::Forwarded::x_forwarded_for().through_hops(2);
    /// # let _ = router_behind_cdn;
    /// ```
    #[must_use]
    pub fn through_hops(self, count: usize) -> Forwarded {
        self.try_through_hops(count).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// [`through_hops`](Self::through_hops) for input at run time.
    ///
    /// # Errors
    /// When `count` is 0 or above 32.
    ///
    /// ```
    /// let error = tollgate::Forwarded::rfc7239().try_through_hops(0).unwrap_err();
    /// assert_eq!(error.to_string(), "trusted hops must be from 1 to 32, got 0");
    /// ```
    pub fn try_through_hops(self, count: usize) -> Result<Forwarded, ConfigError> {
        match count {
            1..=MAX_HOPS => Ok(Forwarded { field: self, trust: Trust::Hops(count) }),
            _ => Err(ConfigError::new("trusted hops", "be from 1 to 32", count)),
        }
    }
}
