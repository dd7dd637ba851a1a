//! The public labels of a client: its name and its tier.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

/// Public name: a text or a network. A network is formatted only when it is displayed.
///
/// ```
/// use tollgate::Name;
/// let name = Name::network("2001:db8::".parse().unwrap(), 64);
/// assert_eq!(name.to_string(), "2001:db8::/64");
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Name(Inner);

/// Words only: an `IpAddr` would be misaligned inside a client, and each move of it would stall.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Inner {
    Text(Arc<str>),
    V4 { address: u64, bits: u64 },
    V6 { address: [u64; 2], bits: u64 },
}

impl Name {
    /// Creates the name of a network from an address and the number of its leading bits that count.
    ///
    /// A whole address is displayed without its length.
    ///
    /// ```
    /// use tollgate::Name;
    /// assert_eq!(Name::network("192.0.2.7".parse().unwrap(), 32).to_string(), "192.0.2.7");
    /// ```
    #[must_use]
    #[allow(clippy::cast_possible_truncation)] // the halves of an address
    pub fn network(address: IpAddr, bits: u8) -> Self {
        let bits = u64::from(bits);
        Self(match address {
            IpAddr::V4(v4) => Inner::V4 { address: u64::from(v4.to_bits()), bits },
            IpAddr::V6(v6) => Inner::V6 { address: [(v6.to_bits() >> 64) as u64, v6.to_bits() as u64], bits },
        })
    }
}

impl Name {
    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Inner::Text(text) => Some(text),
            _ => None,
        }
    }

    #[allow(clippy::cast_possible_truncation)] // made from an address
    pub(super) fn as_network(&self) -> Option<IpNet> {
        let (address, bits) = match self.0 {
            Inner::Text(_) => return None,
            Inner::V4 { address, bits } => (IpAddr::V4(Ipv4Addr::from_bits(address as u32)), bits),
            Inner::V6 { address: [high, low], bits } => {
                (IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))), bits)
            }
        };
        IpNet::new(address, bits as u8).ok()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.as_text(), self.as_network()) {
            (Some(text), _) => f.write_str(text),
            (None, Some(network)) if network.prefix_len() < network.max_prefix_len() => network.fmt(f),
            (None, network) => network.map_or(Ok(()), |network| network.addr().fmt(f)),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({self})")
    }
}

impl<T: Into<Arc<str>>> From<T> for Name {
    fn from(text: T) -> Self {
        Self(Inner::Text(text.into()))
    }
}

/// Returns whether a text can be a public name: it is not empty, and has no character that ends a line, controls a
/// terminal or changes the order of letters, and none that is invisible, so that no two names look alike for it.
///
/// The joiners U+200C and U+200D are visible in some scripts.
pub(super) fn is_public(text: &str) -> bool {
    let is_hidden = |c: char| {
        c.is_control()
            || matches!(
                c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            )
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    !text.is_empty() && !text.contains(is_hidden)
}

/// Class of clients that share their limits, such as `free` or `pro`; cheap to clone.
///
/// ```
/// assert_eq!(tollgate::Tier::from("pro").as_str(), "pro");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tier(Arc<str>);

impl Tier {
    /// Creates what stands for a tier until it is known.
    pub(super) fn unknown() -> Self {
        Self(Arc::default())
    }

    #[inline]
    pub(super) fn is_unknown(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the name of the tier.
    #[must_use]
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Into<Arc<str>>> From<T> for Tier {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}
