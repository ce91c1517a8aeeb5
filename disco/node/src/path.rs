//! The path to a peer, as an application follows it.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

/// The path to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Path {
    /// Packets go over a relay.
    #[default]
    Relayed,
    /// Packets go to the peer itself.
    Direct {
        /// Its address.
        address: SocketAddr,
    },
    /// The address of the peer has not answered in time. Packets go there and over the relay, until that is decided.
    Suspected {
        /// The address that is silent.
        address: SocketAddr,
    },
    /// The direct path loses so much that packets go over the relay until it loses less.
    Lossy {
        /// The address on the path to which packets are lost.
        address: SocketAddr,
    },
}

/// A kind of path, for statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PathClass {
    /// Over a relay.
    Relayed,
    /// Direct, to a public IPv4 address.
    Direct,
    /// Direct, to an address of a private network or link (RFC 1918, RFC 4193, RFC 6598, link-local).
    Lan,
    /// Direct, to a global IPv6 address.
    Ipv6,
}

impl PathClass {
    /// All classes.
    pub const ALL: [Self; 4] = [Self::Relayed, Self::Direct, Self::Lan, Self::Ipv6];

    /// The label of the class in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Direct => "direct",
            Self::Lan => "lan",
            Self::Ipv6 => "ipv6",
        }
    }

    /// The class of a direct path to an address.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || ip.is_loopback() => Self::Lan,
            IpAddr::V4(ip) if ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64 => Self::Lan,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_loopback() => {
                Self::Lan
            }
            IpAddr::V4(_) => Self::Direct,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

impl Path {
    /// The class of the path.
    #[must_use]
    pub fn class(&self) -> PathClass {
        match self {
            Self::Relayed | Self::Lossy { .. } => PathClass::Relayed,
            Self::Direct { address } | Self::Suspected { address } => PathClass::of(*address),
        }
    }

    /// Whether packets go to the peer itself, and over no relay.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        matches!(self, Self::Direct { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_of_a_lan_and_global_ones_are_told_apart_by_family() {
        for (address, class) in [
            ("192.168.1.2:7", PathClass::Lan),
            ("100.64.0.1:7", PathClass::Lan),
            ("100.128.0.1:7", PathClass::Direct),
            ("198.51.100.1:7", PathClass::Direct),
            ("[fd00::1]:7", PathClass::Lan),
            ("[fe80::1]:7", PathClass::Lan),
            ("[2001:db8::1]:7", PathClass::Ipv6),
        ] {
            assert_eq!(PathClass::of(address.parse().expect("an address")), class, "{address}");
        }
    }
}
