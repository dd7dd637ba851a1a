//! Peer addresses as identities.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Deref,
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    Client, Digester, Forwarded, Identify, IdentityGuarantees, MissingIdentity, UnreadableReport,
    verified::ExtensionReader,
};
use crate::{error::ConfigError, head::RequestHead};

/// Charges the address that a request came from: an IPv4 address, or the /64 network of an IPv6 address.
///
/// IPv6 is grouped because one household has 2^64 addresses to choose from. An address behind NAT64 (`64:ff9b::/96`) is
/// the IPv4 address inside, and a link-local address counts whole. The network is the client's public name.
///
/// # Behind a proxy
/// The peer is the proxy, so all clients would share one limit: see [`trust_forwarded`](Self::trust_forwarded).
///
/// # Without an address
/// Each server inserts the address in a type of its own, which [`peer_ip!`](crate::peer_ip) names. A request without it
/// is refused with a 500 that says so, because otherwise all clients would silently share one limit.
///
/// ```
/// let axum = tollgate::peer_ip!(axum);
/// let tonic = tollgate::peer_ip!(tonic);
/// # let _ = (axum, tonic);
/// ```
#[derive(Clone, Debug)]
pub struct PeerIp {
    /// `None` for a plain `SocketAddr`.
    source: Option<ExtensionReader<IpAddr>>,
    /// Number of leading bits by which IPv4 addresses are distinguished.
    v4: u8,
    /// The same of IPv6 addresses.
    v6: u8,
    forwarded: Option<Arc<Forwarded>>,
}

/// Creates the [`PeerIp`](crate::PeerIp) of a framework: `peer_ip!(axum)` or `peer_ip!(tonic)`.
///
/// The paths are resolved in your crate, so that this one depends on no framework. For axum, serve the router with
/// `into_make_service_with_connect_info::<SocketAddr>()`; its `MockConnectInfo` is read too, for tests.
///
/// ```
/// use tollgate::{Forwarded, Rate, TokenBucketLayer};
///
/// let behind_a_proxy = tollgate::peer_ip!(axum)
///     .trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
/// let layer = TokenBucketLayer::new(Rate::per_second(50)).identify_by(behind_a_proxy);
/// ```
#[macro_export]
macro_rules! peer_ip {
    (axum) => {
        $crate::PeerIp::extension::<::axum::extract::ConnectInfo<::std::net::SocketAddr>>().or_from_extension(
            |mock: &::axum::extract::connect_info::MockConnectInfo<::std::net::SocketAddr>| {
                ::core::option::Option::Some(mock.0)
            },
        )
    };
    (tonic) => {
        $crate::PeerIp::from_extension(|info: &::tonic::transport::server::TcpConnectInfo| info.remote_addr())
    };
}

/// Address of a peer, made from an IP address with or without a port.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(IpAddr);

impl From<IpAddr> for PeerAddress {
    fn from(ip: IpAddr) -> Self {
        Self(ip)
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self(address.ip())
    }
}

impl PeerIp {
    /// Charges the address in a plain `SocketAddr` among the request's extensions.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use tollgate::{Digester, Identify, PeerIp, RequestHead};
    ///
    /// let mut request = http::Request::new(());
    /// assert!(PeerIp::new().identify(&RequestHead::of(&request), Digester::process()).is_none());
    /// request.extensions_mut().insert(SocketAddr::from(([198, 51, 100, 7], 4711)));
    /// let client = PeerIp::new().identify(&RequestHead::of(&request), Digester::process()).unwrap();
    /// assert_eq!(client.name().unwrap().to_string(), "198.51.100.7");
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { source: None, v4: 32, v6: 64, forwarded: None }
    }

    /// Charges the address in the request extension of type `T`, which your framework inserts.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use axum::extract::ConnectInfo;
    /// let peer = tollgate::PeerIp::extension::<ConnectInfo<SocketAddr>>();
    /// # let _ = peer;
    /// ```
    #[must_use]
    pub fn extension<T>() -> Self
    where
        T: Deref<Target: Clone + Into<PeerAddress>> + Send + Sync + 'static,
    {
        Self::from_extension(|extension: &T| Some((**extension).clone()))
    }

    /// Charges the address that `read` finds in the request extension of type `T`.
    ///
    /// A request without the extension is unidentified. axum inserts it only if the router is served with
    /// `into_make_service_with_connect_info::<SocketAddr>()`. tonic inserts a `TcpConnectInfo`, with TLS and without;
    /// `TlsConnectInfo<TcpConnectInfo>` has the same address. [`peer_ip!`](crate::peer_ip) knows both.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// let bare = tollgate::PeerIp::from_extension(|ip: &IpAddr| Some(*ip));
    /// # let _ = bare;
    /// ```
    #[must_use]
    pub fn from_extension<T, A>(read: impl Fn(&T) -> Option<A> + Send + Sync + 'static) -> Self
    where
        T: Send + Sync + 'static,
        A: Into<PeerAddress>,
    {
        let read = move |extension: &T| read(extension).map(|address| address.into().0);
        Self { source: Some(ExtensionReader::new(read)), ..Self::new() }
    }

    /// Charges the address that `read` finds in the second extension type `T` if the first has none.
    ///
    /// ```
    /// use std::net::{IpAddr, SocketAddr};
    /// let either = tollgate::PeerIp::new().or_from_extension(|ip: &IpAddr| Some(*ip));
    /// # let _ = either;
    /// ```
    #[must_use]
    pub fn or_from_extension<T, A>(self, read: impl Fn(&T) -> Option<A> + Send + Sync + 'static) -> Self
    where
        T: Send + Sync + 'static,
        A: Into<PeerAddress>,
    {
        let first = self.source.unwrap_or_else(|| ExtensionReader::new(|address: &SocketAddr| Some(address.ip())));
        let read = move |extension: &T| read(extension).map(|address| address.into().0);
        Self { source: Some(first.or(ExtensionReader::new(read))), ..self }
    }

    /// Reads the client's address from a field that trusted proxies write. By default no proxy is trusted.
    ///
    /// A peer that is not trusted is charged under its own address, regardless of the fields that it sends.
    ///
    /// ```
    /// use tollgate::{Forwarded, PeerIp};
    /// let peer = PeerIp::new().trust_forwarded(Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8"]));
    /// # let _ = peer;
    /// ```
    #[must_use]
    pub fn trust_forwarded(self, forwarded: Forwarded) -> Self {
        Self { forwarded: Some(Arc::new(forwarded)), ..self }
    }

    /// Groups IPv6 addresses by their first `prefix` bits, 32 to 128; the default is 64.
    ///
    /// # Panics
    /// If `prefix` is below 32 or above 128.
    ///
    /// ```
    /// let by_site = tollgate::PeerIp::new().group_v6(56);
    /// # let _ = by_site;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn group_v6(self, prefix: u8) -> Self {
        ConfigError::or_panic(self.try_group_v6(prefix))
    }

    /// [`group_v6`](Self::group_v6) for input at run time.
    ///
    /// # Errors
    /// If `prefix` is below 32 or above 128.
    ///
    /// ```
    /// let error = tollgate::PeerIp::new().try_group_v6(16).unwrap_err();
    /// assert_eq!(error.to_string(), "IPv6 prefix must be from 32 to 128, got 16");
    /// ```
    pub fn try_group_v6(self, prefix: u8) -> Result<Self, ConfigError> {
        match prefix {
            32..=128 => Ok(Self { v6: prefix, ..self }),
            _ => Err(ConfigError::new("IPv6 prefix", "be from 32 to 128", prefix)),
        }
    }

    /// Groups IPv4 addresses by their first `prefix` bits, 8 to 32; the default is 32.
    ///
    /// # Panics
    /// If `prefix` is below 8 or above 32.
    ///
    /// ```
    /// let by_block = tollgate::PeerIp::new().group_v4(24);
    /// # let _ = by_block;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn group_v4(self, prefix: u8) -> Self {
        ConfigError::or_panic(self.try_group_v4(prefix))
    }

    /// [`group_v4`](Self::group_v4) for input at run time.
    ///
    /// # Errors
    /// If `prefix` is below 8 or above 32.
    ///
    /// ```
    /// let error = tollgate::PeerIp::new().try_group_v4(33).unwrap_err();
    /// assert_eq!(error.to_string(), "IPv4 prefix must be from 8 to 32, got 33");
    /// ```
    pub fn try_group_v4(self, prefix: u8) -> Result<Self, ConfigError> {
        match prefix {
            8..=32 => Ok(Self { v4: prefix, ..self }),
            _ => Err(ConfigError::new("IPv4 prefix", "be from 8 to 32", prefix)),
        }
    }

    /// Returns the client of an address.
    ///
    /// ```
    /// use tollgate::{Digester, PeerIp};
    /// let site = PeerIp::new().group_v6(56).client("2001:db8::7".parse().unwrap(), Digester::process());
    /// assert_eq!(site.to_string(), "ip:2001:db8::/56");
    /// ```
    #[must_use]
    pub fn client(&self, ip: IpAddr, digester: &Digester) -> Client {
        digester.network(self.network(ip))
    }

    /// Returns the network of an address.
    ///
    /// An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) and one of the NAT64 prefix (RFC 6052, section 2.1) count
    /// as the IPv4 address inside. All hosts of a link share the network of link-local addresses, which are therefore
    /// distinguished whole.
    fn network(&self, ip: IpAddr) -> IpNet {
        let v4 = |ip| Ipv4Net::new_assert(ip, self.v4).trunc().into();
        match ip.to_canonical() {
            IpAddr::V4(ip) => v4(ip),
            IpAddr::V6(ip) => match ip.segments() {
                [0x64, 0xff9b, 0, 0, 0, 0, ..] => v4(Ipv4Addr::from_bits(ip.to_bits() as u32)),
                [0xfe80..=0xfebf, ..] => Ipv6Net::from(ip).into(),
                _ => Ipv6Net::new_assert(ip, self.v6).trunc().into(),
            },
        }
    }
}

impl Default for PeerIp {
    fn default() -> Self {
        Self::new()
    }
}

impl Identify for PeerIp {
    fn identify(&self, request: &RequestHead<'_>, digester: &Digester) -> Option<Client> {
        let peer = match &self.source {
            Some(source) => source.read(request.extensions),
            None => request.extensions.get::<SocketAddr>().map(SocketAddr::ip),
        };
        let ip = match &self.forwarded {
            Some(forwarded) => forwarded.client(peer, request),
            None => peer,
        };
        ip.map(|ip| self.client(ip, digester))
    }

    fn guarantees(&self) -> IdentityGuarantees {
        let verified = self.forwarded.as_deref().is_none_or(Forwarded::is_verified);
        IdentityGuarantees { named: true, verified, personal: false, one_kind: true }
    }

    fn missing(&self) -> MissingIdentity {
        MissingIdentity::PeerAddress
    }

    fn on_unreadable(&self, report: UnreadableReport) {
        if let Some(forwarded) = &self.forwarded {
            forwarded.on_unreadable(report);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ip: &str, v4: u8, v6: u8) -> String {
        PeerIp { v4, v6, ..PeerIp::new() }.network(ip.parse().unwrap()).to_string()
    }

    #[test]
    fn network_has_only_the_leading_bits() {
        assert_eq!(shown("198.51.100.77", 32, 64), "198.51.100.77/32");
        assert_eq!(shown("198.51.100.77", 24, 64), "198.51.100.0/24");
        assert_eq!(shown("2001:db8:1:2:3:4:5:6", 32, 64), "2001:db8:1:2::/64");
        assert_eq!(shown("2001:db8:1:2:3:4:5:6", 32, 128), "2001:db8:1:2:3:4:5:6/128");
        assert_eq!(shown("2001:db8:1:2:3:4:5:6", 32, 32), "2001:db8::/32");
    }

    #[test]
    fn hosts_of_a_link_are_distinguished() {
        assert_eq!(shown("fe80::1", 32, 64), "fe80::1/128");
        assert_eq!(shown("febf::2", 32, 64), "febf::2/128");
        assert_eq!(shown("fec0::2", 32, 64), "fec0::/64");
    }

    #[test]
    fn ipv4_address_inside_ipv6_is_grouped_as_ipv4() {
        assert_eq!(shown("::ffff:198.51.100.77", 32, 64), "198.51.100.77/32");
        assert_eq!(shown("64:ff9b::198.51.100.77", 32, 64), "198.51.100.77/32");
        assert_eq!(shown("64:ff9b::198.51.100.77", 24, 64), "198.51.100.0/24");
        assert_eq!(shown("64:ff9b:1::198.51.100.77", 32, 64), "64:ff9b:1::/64", "local prefixes put it elsewhere");
        assert_eq!(shown("::198.51.100.77", 32, 64), "::/64", "the deprecated compatible form is not an IPv4 address");
    }
}
