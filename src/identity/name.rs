//! The public labels of a client: its name and its tier.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::IpNet;

use super::cohort::Cohort;

/// Public name: a text or a network. A network is formatted only when it is displayed.
///
/// ```
/// use tollgate::Name;
/// let name = Name::network("2001:db8::".parse().unwrap(), 64);
/// assert_eq!(name.to_string(), "2001:db8::/64");
/// ```
#[derive(Clone)]
pub struct Name(Inner);

/// Words only: an `IpAddr` would be misaligned inside a client, and each move of it would stall.
#[derive(Clone)]
enum Inner {
    Text {
        text: Arc<str>,
        cohort: Cohort,
    },
    V4 {
        address: u64,
        bits: u64,
    },
    V6 {
        address: [u64; 2],
        bits: u64,
    },
    /// No name, only the cohort of a client without one. No name that a caller sees is this one.
    Hidden {
        cohort: Cohort,
    },
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
    /// Creates what a client of this cohort has in place of a name.
    pub(super) const fn hidden(cohort: Cohort) -> Self {
        Self(Inner::Hidden { cohort })
    }

    /// Whether it stands in place of a name.
    #[inline]
    pub(super) const fn is_hidden(&self) -> bool {
        matches!(self.0, Inner::Hidden { .. })
    }

    /// Returns the cohort of a client with this name.
    #[allow(clippy::cast_possible_truncation)] // made from an address
    pub(super) fn cohort(&self) -> Cohort {
        match self.0 {
            Inner::Text { cohort, .. } | Inner::Hidden { cohort } => cohort,
            Inner::V4 { address, .. } => Cohort::of(Ipv4Addr::from_bits(address as u32).into()),
            Inner::V6 { address, .. } => Cohort::of(Ipv6Addr::from_bits(join(address)).into()),
        }
    }

    /// Sets the cohort, unless the name is a network, which has one of its own.
    #[inline]
    pub(super) fn set_cohort(&mut self, to: Cohort) {
        if let Inner::Text { cohort, .. } | Inner::Hidden { cohort } = &mut self.0 {
            *cohort = to;
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.0 {
            Inner::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    #[allow(clippy::cast_possible_truncation)] // made from an address
    pub(super) fn as_network(&self) -> Option<IpNet> {
        let (address, bits) = match self.0 {
            Inner::Text { .. } | Inner::Hidden { .. } => return None,
            Inner::V4 { address, bits } => (IpAddr::V4(Ipv4Addr::from_bits(address as u32)), bits),
            Inner::V6 { address, bits } => (IpAddr::V6(Ipv6Addr::from_bits(join(address))), bits),
        };
        IpNet::new(address, bits as u8).ok()
    }
}

/// Joins the halves of an address.
fn join([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

/// The cohort is not a part of the name.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        (self.as_text(), self.as_network()) == (other.as_text(), other.as_network())
    }
}

impl Eq for Name {}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.as_text(), self.as_network()).hash(state);
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
        Self(Inner::Text { text: text.into(), cohort: Cohort::CLAIMED })
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
