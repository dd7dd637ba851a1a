//! Cohorts: groups of clients that one party can make up, which a bounded table must not be filled with.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    num::NonZeroU64,
};

use super::name::Name;

/// Leading bits of the network that is the cohort of an IPv6 address. A party with a /44 has 2^20 networks of 64 bits.
const V6_BITS: u8 = 44;

/// Leading bits of the network that is the cohort of an IPv4 address.
const V4_BITS: u8 = 16;

/// Cohort of a client: a coarse network, or the kind of its identity. One word, which says nothing finer.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Cohort(NonZeroU64);

/// The lowest bits tell the kinds apart.
const V4: u64 = 1;
const V6: u64 = 2;
const KIND_BITS: u32 = 2;

impl Cohort {
    /// Clients that nothing vouches for: a request claims the identity, or a closure or the program has made the client.
    pub(crate) const CLAIMED: Self = Self(NonZeroU64::new(1 << KIND_BITS).unwrap());

    /// Clients that a table of keys or an authentication layer knows. A stranger cannot make up more of them.
    pub(crate) const VOUCHED: Self = Self(NonZeroU64::new(2 << KIND_BITS).unwrap());

    /// Returns the cohort of an address, or of the network that begins with it.
    #[allow(clippy::cast_possible_truncation)] // 44 bits
    pub(super) fn of(address: IpAddr) -> Self {
        let word = match address {
            IpAddr::V4(v4) => u64::from(v4.to_bits() >> (32 - V4_BITS)) << KIND_BITS | V4,
            IpAddr::V6(v6) => ((v6.to_bits() >> (128 - V6_BITS)) as u64) << KIND_BITS | V6,
        };
        Self(NonZeroU64::new(word).expect("its kind is not zero"))
    }

    /// Returns the network that is the cohort, if it is one.
    #[allow(clippy::cast_possible_truncation)] // 16 bits
    pub(crate) fn network(self) -> Option<Name> {
        let bits = self.0.get() >> KIND_BITS;
        match self.0.get() & ((1 << KIND_BITS) - 1) {
            V4 => Some(Name::network(Ipv4Addr::from_bits((bits as u32) << (32 - V4_BITS)).into(), V4_BITS)),
            V6 => Some(Name::network(Ipv6Addr::from_bits(u128::from(bits) << (128 - V6_BITS)).into(), V6_BITS)),
            _ => None,
        }
    }

    /// Returns the cohort of the pair of two clients: a network if one of them has one, because the party behind it makes
    /// up pairs without end if it can make up the other half.
    pub(super) fn and(self, other: Self) -> Self {
        match (self.network(), other.network()) {
            (Some(_), _) => self,
            (None, Some(_)) => other,
            (None, None) if self == Self::VOUCHED => other,
            (None, None) => self,
        }
    }

    /// Returns the word, for a choice among a few places.
    pub(crate) const fn word(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Debug for Cohort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.network() {
            Some(network) => write!(f, "Cohort({network})"),
            None if *self == Self::VOUCHED => f.write_str("Cohort(vouched)"),
            None => f.write_str("Cohort(claimed)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Cohort {
        Cohort::of(address.parse().unwrap())
    }

    #[test]
    fn addresses_of_a_coarse_network_are_one_cohort() {
        assert_eq!(of("2001:db8::7"), of("2001:db8:f:ffff:ffff::"));
        assert_ne!(of("2001:db8::7"), of("2001:db8:10::"));
        assert_eq!(of("198.51.100.7"), of("198.51.0.0"));
        assert_ne!(of("198.51.100.7"), of("198.52.100.7"));
        assert_ne!(of("::"), of("0.0.0.0"));
    }

    #[test]
    fn network_of_a_cohort_is_that_of_its_addresses() {
        for (address, network) in [
            ("2001:db8:f:1::7", "2001:db8::/44"),
            ("ffff:ffff:ffff::", "ffff:ffff:fff0::/44"),
            ("::1", "::/44"),
            ("198.51.100.7", "198.51.0.0/16"),
            ("0.0.0.0", "0.0.0.0/16"),
            ("255.255.0.1", "255.255.0.0/16"),
        ] {
            assert_eq!(of(address).network().unwrap().to_string(), network);
        }
        assert!(Cohort::CLAIMED.network().is_none() && Cohort::VOUCHED.network().is_none());
        assert_ne!(Cohort::CLAIMED, Cohort::VOUCHED);
    }

    #[test]
    fn pair_has_the_network_of_either_half() {
        let (network, other) = (of("198.51.100.7"), of("::"));
        for half in [Cohort::CLAIMED, Cohort::VOUCHED] {
            assert_eq!((network.and(half), half.and(network)), (network, network));
            assert_eq!((half.and(Cohort::CLAIMED), Cohort::CLAIMED.and(half)), (Cohort::CLAIMED, Cohort::CLAIMED));
        }
        assert_eq!(Cohort::VOUCHED.and(Cohort::VOUCHED), Cohort::VOUCHED);
        assert_eq!(network.and(other), network, "the address of the connection comes first");
    }
}
