//! The public labels of a client: its name and its tier.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

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

impl fmt::Display for Name {
    #[allow(clippy::cast_possible_truncation)] // made from an address
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, bits, whole) = match self.0 {
            Inner::Text(ref text) => return f.write_str(text),
            Inner::V4 { address, bits } => (IpAddr::V4(Ipv4Addr::from_bits(address as u32)), bits, 32),
            Inner::V6 { address: [high, low], bits } => {
                (IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))), bits, 128)
            }
        };
        if bits == whole { write!(f, "{address}") } else { write!(f, "{address}/{bits}") }
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

impl<T: Into<Arc<str>>> From<T> for Tier {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}
