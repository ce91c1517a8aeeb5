//! The addresses of the laboratory's internet, from the blocks for documentation and for measurements (RFC 5737, RFC 2544 and
//! RFC 3849). Programs take them for public ones, but for miniupnpd, which forwards no port of an address in such a block: NATs have
//! addresses of a block that is in use elsewhere; no packet leaves the laboratory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use towpath_sim::Class;

/// Most NATs and servers of a laboratory, and most hosts that a LAN ever has.
pub(crate) const MOST: u8 = 200;
/// In a LAN, the gateway has the first address, and hosts have those from the second one up.
const FIRST_HOST: u8 = 2;

/// The addresses of a NAT and its LAN.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    number: u8,
    lan: Lan,
}

/// What a LAN is numbered from.
#[derive(Clone, Copy, Debug)]
enum Lan {
    Private,
    Public,
    Public6,
}

impl Addresses {
    pub(crate) const fn of(class: Class, number: u8) -> Self {
        let lan = match class {
            Class::O => Lan::Public,
            Class::V6 => Lan::Public6,
            _ => Lan::Private,
        };
        Self { number, lan }
    }

    /// The address outside.
    pub(crate) const fn outside(self) -> IpAddr {
        match self.lan {
            Lan::Private | Lan::Public => IpAddr::V4(Ipv4Addr::new(25, 0, 0, self.number)),
            Lan::Public6 => v6(0xffff, 1, self.number),
        }
    }

    /// The router's address in the LAN.
    pub(crate) const fn gateway(self) -> IpAddr {
        self.inside(1)
    }

    /// The address of a host in the LAN, by its number from zero up.
    pub(crate) const fn host(self, number: u8) -> Option<IpAddr> {
        if number < MOST { Some(self.inside(number + FIRST_HOST)) } else { None }
    }

    /// The length of the LAN's prefix.
    pub(crate) const fn prefix_len(self) -> u8 {
        match self.lan {
            Lan::Private | Lan::Public => 24,
            Lan::Public6 => 64,
        }
    }

    /// Whether hosts in the LAN have public addresses.
    pub(crate) const fn is_public(self) -> bool {
        !matches!(self.lan, Lan::Private)
    }

    /// What `ip` wants to be told for the family: the prefix of everything, and what is behind an address. Duplicates of an
    /// IPv6 address are not looked for, which would take a second.
    pub(crate) const fn options(self) -> (&'static str, &'static str) {
        match self.lan {
            Lan::Private | Lan::Public => ("0.0.0.0/0", ""),
            Lan::Public6 => ("::/0", "nodad"),
        }
    }

    const fn inside(self, host: u8) -> IpAddr {
        match self.lan {
            Lan::Private => IpAddr::V4(Ipv4Addr::new(10, 0, self.number, host)),
            Lan::Public => IpAddr::V4(Ipv4Addr::new(198, 18, self.number, host)),
            Lan::Public6 => v6(self.number as u16, 0, host),
        }
    }
}

/// The addresses of a server: two of IPv4, and two of IPv6.
pub(crate) const fn server(number: u8) -> [(IpAddr, IpAddr); 2] {
    [
        (IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)), v6(0xffff, 2, number)),
        (IpAddr::V4(Ipv4Addr::new(203, 0, 113, number)), v6(0xffff, 3, number)),
    ]
}

const fn v6(network: u16, subnet: u16, host: u8) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, network, subnet, 0, 0, 0, host as u16))
}
