//! Networks of addresses, each of which is one client.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Client, Digester, Name};

/// Number of leading bits by which clients are distinguished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grouping {
    pub(super) v4: u8,
    pub(super) v6: u8,
}

impl Grouping {
    /// Returns the client of an address.
    pub(super) fn client(self, ip: IpAddr, digester: &Digester) -> Client {
        let (network, bits) = self.network(ip);
        let digest = match network {
            IpAddr::V4(ip) => digester.digest("ip", [&ip.octets()[..], &[bits]]),
            IpAddr::V6(ip) => digester.digest("ip", [&ip.octets()[..], &[bits]]),
        };
        Client::from_digest(digest).with_name(Name::network(network, bits))
    }

    /// Returns the network of an address and its length. An IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2) counts
    /// as IPv4.
    fn network(self, ip: IpAddr) -> (IpAddr, u8) {
        match ip.to_canonical() {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4)).unwrap_or(0);
                (Ipv4Addr::from_bits(ip.to_bits() & mask).into(), self.v4)
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6)).unwrap_or(0);
                (Ipv6Addr::from_bits(ip.to_bits() & mask).into(), self.v6)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ip: &str, v4: u8, v6: u8) -> String {
        let (network, bits) = Grouping { v4, v6 }.network(ip.parse().unwrap());
        format!("{network}/{bits}")
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
    fn ipv4_mapped_address_is_grouped_as_ipv4() {
        assert_eq!(shown("::ffff:198.51.100.77", 32, 64), "198.51.100.77/32");
        assert_eq!(shown("::198.51.100.77", 32, 64), "::/64", "the deprecated compatible form is not an IPv4 address");
    }
}
