//! Client addresses in the fields that trusted proxies write.

mod hops;

use std::{
    fmt, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use http::{HeaderName, header};
use ipnet::IpNet;

use super::{UnreadableReport, credential, unidentified::reports_are_off};
use crate::{error::ConfigError, head::RequestHead};
use hops::{Form, MAX_HOPS, hops};

/// A field in which proxies report the client's address, and the proxies that are trusted.
///
/// All lines of the field are one list. It is read from the right, where the nearest proxy wrote. As long as the writer
/// of an element is trusted, the address in the element counts. The first address that is not trusted is the client.
/// Nothing to the left of it is read, because the client may have written it. An element that cannot be read ends the
/// list too, and the trusted proxy that wrote it is charged. Such elements are `unknown` and obfuscated names; the first
/// one is reported by [`Event::UnreadableForwarded`](crate::Event::UnreadableForwarded) and on standard error. Elements
/// may have ports, zones and quotation marks: `198.51.100.7:4711`, `"[fe80::7%eth0]:4711"`. Empty ones are skipped.
///
/// At most 32 elements are read, and at most 1,024 bytes of each.
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
    reports: Arc<Reports>,
}

/// A field in which proxies report the client's address, without the proxies that are trusted.
///
/// Name the field that **your** proxy writes. A client can forge a field that the proxy passes on unread.
#[derive(Clone, Debug)]
pub struct ForwardedField(AddressSource);

type Reader = Arc<dyn Fn(&RequestHead<'_>) -> Option<IpAddr> + Send + Sync>;

#[derive(Clone)]
enum AddressSource {
    Field(HeaderName, Form),
    Reader(Reader),
}

impl fmt::Debug for AddressSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name, _) => f.write_str(name.as_str()),
            Self::Reader(_) => f.write_str("reader"),
        }
    }
}

/// Functions that receive the name of a field that cannot be read, each once.
#[derive(Default)]
struct Reports {
    waiting: AtomicBool,
    functions: Mutex<Vec<UnreadableReport>>,
}

impl fmt::Debug for Reports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reports").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Forwarded {
    /// Reads `X-Forwarded-For`, to which each proxy appends the address of its peer.
    ///
    /// ```
    /// let one_proxy = tollgate::Forwarded::x_forwarded_for().through_hops(1);
    /// # let _ = one_proxy;
    /// ```
    #[must_use]
    pub const fn x_forwarded_for() -> ForwardedField {
        ForwardedField(AddressSource::Field(HeaderName::from_static("x-forwarded-for"), Form::Addresses))
    }

    /// Reads `Forwarded` (RFC 7239), to which each proxy appends `for=` and the address of its peer.
    ///
    /// ```
    /// let trusted = tollgate::Forwarded::rfc7239().from_networks(["192.0.2.1"]);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    pub const fn rfc7239() -> ForwardedField {
        ForwardedField(AddressSource::Field(header::FORWARDED, Form::Pairs))
    }

    /// Reads a field with the client's address alone, such as `X-Real-IP` or `CF-Connecting-IP`.
    ///
    /// The proxy must replace a value that the client sent. A field that is present more than once is not read.
    ///
    /// # Panics
    /// If `name` is not a field name.
    ///
    /// ```
    /// let edge = ["173.245.48.0/20", "2400:cb00::/32"];
    /// let trusted = tollgate::Forwarded::single("cf-connecting-ip").from_networks(edge);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn single(name: impl AsRef<str>) -> ForwardedField {
        ConfigError::or_panic(Self::try_single(name))
    }

    /// [`single`](Self::single) for input at run time.
    ///
    /// # Errors
    /// If `name` is not a field name.
    pub fn try_single(name: impl AsRef<str>) -> Result<ForwardedField, ConfigError> {
        credential::token("field name", name.as_ref())
            .map(|name| ForwardedField(AddressSource::Field(name, Form::Single)))
    }

    /// Reads `CloudFront-Viewer-Address`, which has an address and a port.
    ///
    /// CloudFront adds it if the origin request policy asks for it, and replaces one that the viewer sent. Trust the
    /// networks of CloudFront's origin-facing servers.
    ///
    /// ```
    /// let trusted = tollgate::Forwarded::cloudfront().from_networks(["130.176.0.0/16"]);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    pub const fn cloudfront() -> ForwardedField {
        ForwardedField(AddressSource::Field(HeaderName::from_static("cloudfront-viewer-address"), Form::WithPort))
    }

    /// Reads the client's address by `read`, for a field of another form.
    ///
    /// It is called only if the peer is trusted. The peer is charged if it returns `None`.
    ///
    /// ```
    /// use std::net::IpAddr;
    /// use tollgate::{Forwarded, RequestHead};
    ///
    /// let viewer = |request: &RequestHead<'_>| -> Option<IpAddr> {
    ///     request.headers.get("x-viewer")?.to_str().ok()?.strip_prefix("ip=")?.parse().ok()
    /// };
    /// let trusted = Forwarded::by(viewer).from_networks(["10.0.0.0/8"]);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    pub fn by(read: impl Fn(&RequestHead<'_>) -> Option<IpAddr> + Send + Sync + 'static) -> ForwardedField {
        ForwardedField(AddressSource::Reader(Arc::new(read)))
    }

    /// Returns the address to charge: the peer's, unless the peer is trusted and names another.
    pub(super) fn client(&self, peer: Option<IpAddr>, request: &RequestHead<'_>) -> Option<IpAddr> {
        let mut client = peer.map(|ip| ip.to_canonical());
        if !self.trust.includes(0, client) {
            return client;
        }
        let (name, form) = match &self.field.0 {
            AddressSource::Field(name, form) => (name, *form),
            AddressSource::Reader(read) => return read(request).map(|ip| ip.to_canonical()).or(client),
        };
        for (before, hop) in hops(name, form, request.headers).enumerate() {
            let Some(hop) = hop else {
                self.report(name);
                break;
            };
            client = Some(hop.to_canonical());
            if !self.trust.includes(before + 1, client) {
                break;
            }
        }
        client
    }

    /// Adds a function that receives the name of the field when it first cannot be read.
    pub(super) fn on_unreadable(&self, report: UnreadableReport) {
        self.reports.functions.lock().unwrap_or_else(PoisonError::into_inner).push(report);
        self.reports.waiting.store(true, Ordering::Release);
    }

    #[cold]
    fn report(&self, field: &HeaderName) {
        if reports_are_off() {
            return;
        }
        if self.reports.waiting.load(Ordering::Relaxed) && self.reports.waiting.swap(false, Ordering::Acquire) {
            let functions = mem::take(&mut *self.reports.functions.lock().unwrap_or_else(PoisonError::into_inner));
            functions.iter().for_each(|report| report(field));
        }
    }

    /// Returns whether a client cannot claim another's address by sending a field.
    pub(super) const fn is_verified(&self) -> bool {
        matches!(self.trust, Trust::Networks(_))
    }
}

impl ForwardedField {
    /// Trusts the proxies in these networks, each an address or `address/prefix length`. `127.0.0.1` and `::1` imply each
    /// other.
    ///
    /// Name only the proxies: a peer in one of these networks can claim any address. A network of all addresses is
    /// therefore rejected.
    ///
    /// # Panics
    /// If one of them is not a network, or has a prefix length of 0.
    ///
    /// ```
    /// let trusted = tollgate::Forwarded::x_forwarded_for().from_networks(["10.0.0.0/8", "2001:db8::1"]);
    /// # let _ = trusted;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn from_networks<N: AsRef<str>>(self, networks: impl IntoIterator<Item = N>) -> Forwarded {
        ConfigError::or_panic(self.try_from_networks(networks))
    }

    /// [`from_networks`](Self::from_networks) for input at run time.
    ///
    /// # Errors
    /// If one of them is not a network, or has a prefix length of 0.
    ///
    /// ```
    /// let error = tollgate::Forwarded::x_forwarded_for().try_from_networks(["10.0.0.0/33"]).unwrap_err();
    /// assert_eq!(error.to_string(), "trusted network must be an address, alone or with a prefix length above 0, got \"10.0.0.0/33\"");
    /// ```
    pub fn try_from_networks<N: AsRef<str>>(
        self,
        networks: impl IntoIterator<Item = N>,
    ) -> Result<Forwarded, ConfigError> {
        Ok(self.trusting(Trust::try_networks(networks)?))
    }

    /// Trusts the nearest `count` proxies, 1 to 32, regardless of their addresses.
    ///
    /// Use it only if **every request passes through all of them**: a client that bypasses one can claim any address.
    /// So such an identity is not [`verified`](crate::IdentityGuarantees::verified). A list that is shorter than
    /// `count` is read to its left end, and a [`single`](Forwarded::single) address is read with every count. It works
    /// without a peer address too, as behind a proxy on a Unix socket.
    ///
    /// # Panics
    /// If `count` is 0 or above 32.
    ///
    /// ```
    /// let router_behind_cdn = tollgate::Forwarded::x_forwarded_for().through_hops(2);
    /// # let _ = router_behind_cdn;
    /// ```
    #[must_use]
    #[track_caller]
    pub fn through_hops(self, count: usize) -> Forwarded {
        ConfigError::or_panic(self.try_through_hops(count))
    }

    /// [`through_hops`](Self::through_hops) for input at run time.
    ///
    /// # Errors
    /// If `count` is 0 or above 32.
    ///
    /// ```
    /// let error = tollgate::Forwarded::rfc7239().try_through_hops(0).unwrap_err();
    /// assert_eq!(error.to_string(), "trusted hops must be from 1 to 32, got 0");
    /// ```
    pub fn try_through_hops(self, count: usize) -> Result<Forwarded, ConfigError> {
        match count {
            1..=MAX_HOPS => Ok(self.trusting(Trust::Hops(count))),
            _ => Err(ConfigError::new("trusted hops", "be from 1 to 32", count)),
        }
    }

    fn trusting(self, trust: Trust) -> Forwarded {
        Forwarded { field: self, trust, reports: Arc::default() }
    }
}

/// Trust in the writers of a forwarding field.
#[derive(Clone, Debug)]
enum Trust {
    /// Trusts the addresses in these networks.
    Networks(Box<[IpNet]>),
    /// Trusts the nearest proxies, by number and regardless of their addresses.
    Hops(usize),
}

impl Trust {
    fn try_networks<N: AsRef<str>>(networks: impl IntoIterator<Item = N>) -> Result<Self, ConfigError> {
        let networks = networks.into_iter().map(|network| parse(network.as_ref()));
        let mut networks = networks.collect::<Result<Vec<_>, _>>()?;
        if networks.is_empty() {
            return Err(ConfigError::new("trusted networks", "be at least one", 0));
        }
        // A proxy on this machine that connects to `localhost` comes from either address.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        if loopback.iter().any(|ip| networks.iter().any(|network| network.contains(ip))) {
            networks.extend(loopback.map(IpNet::from));
        }
        Ok(Self::Networks(networks.into()))
    }

    /// Returns whether `hop` is trusted. The peer has the number 0, the address in the last element 1, and so on.
    fn includes(&self, number: usize, hop: Option<IpAddr>) -> bool {
        match self {
            Self::Networks(networks) => hop.is_some_and(|ip| networks.iter().any(|network| network.contains(&ip))),
            Self::Hops(count) => number < *count,
        }
    }
}

/// Parses a network. An IPv4-mapped one becomes an IPv4 network, as the addresses do that it is compared with.
fn parse(text: &str) -> Result<IpNet, ConfigError> {
    let network = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| IpNet::from(ip))).ok();
    let network = network.and_then(|network: IpNet| match (network.addr().to_canonical(), network) {
        (ip @ IpAddr::V4(_), IpNet::V6(_)) => IpNet::new(ip, network.prefix_len().checked_sub(96)?).ok(),
        _ => Some(network),
    });
    network.filter(|network| network.prefix_len() > 0).ok_or_else(|| {
        ConfigError::quoted("trusted network", "be an address, alone or with a prefix length above 0", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_is_parsed_in_each_of_its_forms() {
        assert_eq!(parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(parse("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(parse("::ffff:10.0.0.0/104").unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn invalid_network_or_one_of_all_addresses_is_rejected() {
        for text in ["", "10.0.0", "10.0.0.0/33", "0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "::ffff:0.0.0.0/90", "x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let empty = Trust::try_networks([""; 0]).unwrap_err();
        assert_eq!(empty.to_string(), "trusted networks must be at least one, got 0");
    }
}
