//! Whom to believe.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::error::ConfigError;

/// Which of those who wrote into the field are believed.
#[derive(Clone, Debug)]
pub(super) enum Trust {
    /// Whoever is in one of these networks.
    Networks(Box<[IpNet]>),
    /// The nearest so many, whoever they are.
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

    /// Whether the one who called us is believed.
    pub(super) fn admits_peer(&self, peer: Option<IpAddr>) -> bool {
        match self {
            Self::Networks(_) => peer.is_some_and(|peer| self.contains(peer)),
            Self::Hops(_) => true,
        }
    }

    /// Whether `hop`, named by the `walked`-th element from the right, is believed in turn.
    pub(super) fn goes_on(&self, walked: usize, hop: IpAddr) -> bool {
        match self {
            Self::Networks(_) => self.contains(hop),
            Self::Hops(count) => walked < *count,
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match self {
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&ip)),
            Self::Hops(_) => false,
        }
    }
}

/// A network, an IPv4 one if it was an IPv6 one only in form, as the addresses are that it is compared with.
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
    fn a_network_is_written_in_any_of_its_forms() {
        assert_eq!(parse("10.0.0.0/8").unwrap().to_string(), "10.0.0.0/8");
        assert_eq!(parse("192.0.2.1").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(parse("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        assert_eq!(parse("::ffff:10.0.0.0/104").unwrap().to_string(), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_network_or_all_the_world_is_refused() {
        for text in ["", "10.0.0", "10.0.0.0/33", "0.0.0.0/0", "::/0", "::ffff:0.0.0.0/96", "::ffff:0.0.0.0/90", "x"] {
            assert!(parse(text).is_err(), "{text}");
        }
        let nobody = Trust::try_networks([""; 0]).unwrap_err();
        assert_eq!(nobody.to_string(), "trusted networks must be at least one, got 0");
    }
}
