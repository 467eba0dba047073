//! Who may connect to a listener of this program.
//!
//! Owns the list of addresses and the rule that nobody but this machine is let in without one. Relies on nothing. An
//! address is no proof of who somebody is: the list narrows who can knock, a tunnel (SSH, WireGuard) says who it is.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address or a network: `192.168.1.7`, `192.168.1.0/24`, `fe80::/10`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no address and no network. Consequence: the configuration or the command line is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkError {
    /// Not an IP address.
    Address,
    /// No prefix length of this kind of address.
    Prefix,
    /// Bits are set behind the prefix: probably another network is meant.
    HostBits,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "not an IP address or network, such as 192.168.1.7 or 192.168.1.0/24",
            Self::Prefix => "the prefix length must be 0 to 32 for IPv4 and 0 to 128 for IPv6",
            Self::HostBits => "bits are set behind the prefix: write the network's first address",
        })
    }
}

impl core::error::Error for NetworkError {}

/// IPv4 in IPv6's clothes is IPv4: a listener for both sees it so.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The address as a number, left aligned.
const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => (Ipv4Addr::to_bits(v4) as u128) << 96, // widening
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

impl Network {
    /// Whether the network holds this address.
    #[must_use]
    pub fn holds(self, address: IpAddr) -> bool {
        let address = plain(address);
        address.is_ipv4() == self.address.is_ipv4()
            && (bits(address) ^ bits(self.address)).checked_shr(128 - u32::from(self.prefix)).unwrap_or(0)
                == 0
    }

    /// Whether the network is every address of its kind: `0.0.0.0/0` or `::/0`.
    #[must_use]
    pub const fn holds_everybody(self) -> bool {
        self.prefix == 0
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => most,
            Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                text.parse().ok().filter(|prefix| *prefix <= most).ok_or(NetworkError::Prefix)?
            }
            Some(_) => return Err(NetworkError::Prefix),
        };
        if bits(address).checked_shl(u32::from(prefix)).unwrap_or(0) != 0 {
            return Err(NetworkError::HostBits);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = if self.address.is_ipv4() { 32 } else { 128 };
        if self.prefix == most {
            write!(f, "{}", self.address)
        } else {
            write!(f, "{}/{}", self.address, self.prefix)
        }
    }
}

/// Who may connect: this machine always, others by the list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AllowList {
    networks: Vec<Network>,
}

impl AllowList {
    /// A list of networks; empty, it lets nobody in but this machine.
    #[must_use]
    pub const fn new(networks: Vec<Network>) -> Self {
        Self { networks }
    }

    /// Whether a peer at this address may connect.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        plain(address).is_loopback() || self.networks.iter().any(|network| network.holds(address))
    }

    /// Whether nobody but this machine is let in.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }
}

impl fmt::Display for AllowList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this machine")?;
        for network in &self.networks {
            write!(f, ", {network}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> AllowList {
        AllowList::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn permits(list: &AllowList, address: &str) -> bool {
        list.permits(address.parse().unwrap())
    }

    #[test]
    fn row_98_nobody_but_this_machine_is_let_in_without_a_list() {
        let nobody = AllowList::default();
        for address in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(permits(&nobody, address), "{address}");
        }
        for address in ["192.168.1.7", "10.0.0.1", "0.0.0.0", "::2", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!permits(&nobody, address), "{address}");
        }
    }

    #[test]
    fn a_network_holds_its_addresses_in_both_forms() {
        let some = list(&["192.168.1.0/24", "10.1.2.3", "fd00::/8"]);
        for address in ["192.168.1.0", "192.168.1.255", "::ffff:192.168.1.9", "10.1.2.3", "fd12::1"] {
            assert!(permits(&some, address), "{address}");
        }
        for address in ["192.168.2.0", "192.168.0.255", "10.1.2.4", "fe00::1", "::c0a8:109"] {
            assert!(!permits(&some, address), "{address}");
        }
        assert!(permits(&list(&["0.0.0.0/0"]), "8.8.8.8") && !permits(&list(&["0.0.0.0/0"]), "2001::1"));
        assert!(permits(&list(&["::/0"]), "2001::1") && !permits(&list(&["::/0"]), "8.8.8.8"));
    }

    #[test]
    fn what_is_no_network_is_refused_with_its_reason() {
        for (text, error) in [
            ("", NetworkError::Address),
            ("localhost", NetworkError::Address),
            ("192.168.1", NetworkError::Address),
            ("192.168.1.0/33", NetworkError::Prefix),
            ("192.168.1.0/", NetworkError::Prefix),
            ("192.168.1.0/+8", NetworkError::Prefix),
            ("::/129", NetworkError::Prefix),
            ("192.168.1.7/24", NetworkError::HostBits),
        ] {
            assert_eq!(text.parse::<Network>(), Err(error), "{text:?}");
        }
        assert_eq!("192.168.1.0/24".parse::<Network>().unwrap().to_string(), "192.168.1.0/24");
        assert_eq!("::1".parse::<Network>().unwrap().to_string(), "::1");
    }
}
