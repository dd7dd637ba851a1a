//! Trust in the writers of a forwarding field.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::ConfigError;

/// Trust in the writers of a forwarding field.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// Trusts the addresses in these networks.
    Networks(Box<[IpNet]>),
    /// Trusts the nearest proxies, by number and regardless of their addresses.
    Hops(usize),
}

impl Trust {
    pub(super) fn try_networks<N: AsRef<str>>(networks: impl IntoIterator<Item = N>) -> Result<Self, ConfigError> {
        let networks = networks.into_iter().map(|network| parse(network.as_ref())).collect::<Result<Box<[_]>, _>>()?;
        if networks.is_empty() {
            return Err(ConfigError::new("trusted networks", "be at least one", 0));
        }
        Ok(Self::Networks(networks))
    }

    /// Returns whether `hop` is trusted. The peer has the number 0, the address in the last element 1, and so on.
    pub(super) fn includes(&self, number: usize, hop: Option<IpAddr>) -> bool {
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
