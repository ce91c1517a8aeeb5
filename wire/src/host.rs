//! Hosts: what a limit counts as one, what a list of prefixes holds, and how a URL names one.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::ports;

/// One host as a limit has to see it: an IPv4 address, or the /64 of an IPv6 address.
///
/// Within its /64 a host takes as many addresses as it likes (RFC 4291 section 2.5.1, RFC 8981). An IPv4 address is the
/// same host when it is mapped into IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Host {
    /// The address, or the upper half of it. An IPv4 address looks like a network of ::/32, where no host is.
    bits: u64,
}

impl Host {
    /// The host that has this address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        let bits = match address.to_canonical() {
            IpAddr::V4(ip) => ip.to_bits().into(),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        Self { bits }
    }

    /// The prefixes by which a limit has to see what comes from this host, the narrowest first.
    ///
    /// An IPv4 address is one. For IPv6 they are the /64, the /56 and the /48, because those are what a provider commonly
    /// delegates to one customer (RFC 6177): a limit on the /64 alone is 65,536 limits for a customer with a /48.
    pub fn prefixes(self) -> impl Iterator<Item = SourcePrefix> {
        let widths: &[PrefixWidth] =
            if self.bits <= u32::MAX.into() { &[PrefixWidth::Host] } else { &PrefixWidth::ALL };
        widths.iter().map(move |&width| SourcePrefix { bits: self.bits >> width.cut() << width.cut(), width })
    }
}

/// A prefix of source addresses that a limit counts as one principal: a [`Host`], or the /56 or /48 that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePrefix {
    bits: u64,
    width: PrefixWidth,
}

impl SourcePrefix {
    /// How wide the prefix is.
    #[must_use]
    pub const fn width(self) -> PrefixWidth {
        self.width
    }
}

/// The width of a [`SourcePrefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrefixWidth {
    /// An IPv4 address, or a /64 of IPv6.
    Host,
    /// A /56 of IPv6.
    Net56,
    /// A /48 of IPv6.
    Net48,
}

impl PrefixWidth {
    /// Every width, the narrowest first.
    pub const ALL: [Self; 3] = [Self::Host, Self::Net56, Self::Net48];

    /// How many times as much as a host a prefix of this width may use: 1, 2 for a /56, 4 for a /48.
    ///
    /// A /56 or a /48 is one customer as a rule, and sometimes a few of them or a campus.
    #[must_use]
    pub const fn factor(self) -> usize {
        match self {
            Self::Host => 1,
            Self::Net56 => 2,
            Self::Net48 => 4,
        }
    }

    /// The position in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The length of a prefix of IPv6 with this width, in bits.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::Host => 64,
            Self::Net56 => 56,
            Self::Net48 => 48,
        }
    }

    /// Bits of the /64 that do not belong to the prefix.
    const fn cut(self) -> u8 {
        64 - self.bits()
    }
}

/// A list of prefixes of IP addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(Vec<IpNet>);

impl Prefixes {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` is in one of them. An IPv4 address counts as such when it is mapped into IPv6.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|prefix| prefix.contains(&address))
    }
}

impl From<Vec<IpNet>> for Prefixes {
    fn from(prefixes: Vec<IpNet>) -> Self {
        Self(prefixes)
    }
}

/// A DNS name or an IP address as a URL has it: an IPv6 address stands in brackets (RFC 3986 section 3.2.2).
#[must_use]
pub fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { format!("[{host}]").into() } else { host.into() }
}

/// Host and port as a URL with `https` and the header `Host` have them: without the port where that is 443.
#[must_use]
pub fn https_authority(host: &str, port: u16) -> String {
    let host = bracketed(host);
    if port == ports::HTTPS { host.into() } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_host_is_an_ipv4_address_or_a_64_of_ipv6() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "192.0.3.1", false),
            ("2001:db8:0:1::1", "2001:db8:0:1:ffff::9", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("2001:db8:0:1::1", "2001:db9:0:1::1", false),
            ("192.0.2.1", "2001:db8::192.0.2.1", false),
        ] {
            assert_eq!(Host::of(ip(one)) == Host::of(ip(other)), same, "{one} and {other}");
        }
    }

    #[test]
    fn a_host_of_ipv6_is_seen_by_three_prefixes_and_one_of_ipv4_by_one() {
        let prefixes = |text| Host::of(ip(text)).prefixes().collect::<Vec<_>>();
        let one = prefixes("2001:db8:0:1::1");
        assert_eq!(one.iter().map(|prefix| prefix.width()).collect::<Vec<_>>(), PrefixWidth::ALL);
        for (other, shared) in [
            ("2001:db8:0:1::2", 3),
            ("2001:db8:0:ff::1", 2),
            ("2001:db8:0:100::1", 1),
            ("2001:db8:0:ffff::1", 1),
            ("2001:db8:1:1::1", 0),
            ("192.0.2.1", 0),
        ] {
            let other_prefixes = prefixes(other);
            let found = one.iter().filter(|prefix| other_prefixes.contains(prefix)).count();
            assert_eq!(found, shared, "{other}");
        }
        assert_eq!(prefixes("192.0.2.1"), prefixes("::ffff:192.0.2.1"));
        assert_eq!(prefixes("192.0.2.1").len(), 1);
        assert_ne!(prefixes("192.0.2.1"), prefixes("192.0.2.2"));
        // The /64, the /56 and the /48 of one number are three prefixes.
        assert_eq!(prefixes("2001:db8::").iter().collect::<std::collections::HashSet<_>>().len(), 3);
    }

    #[test]
    fn prefixes_hold_mapped_addresses_as_well() {
        let prefixes: Vec<_> =
            ["10.0.0.0/8", "2001:db8::/32"].map(|prefix| prefix.parse().expect("a prefix")).into();
        let prefixes = Prefixes::from(prefixes);
        for (text, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::10.1.2.3", false),
        ] {
            assert_eq!(prefixes.contains(ip(text)), expected, "{text}");
        }
        assert!(!Prefixes::default().contains(ip("10.1.2.3")) && Prefixes::default().is_empty());
    }
    #[test]
    fn an_authority_has_brackets_and_a_port_where_they_are_needed() {
        for (host, port, expected) in [
            ("relay.example.com", 443, "relay.example.com"),
            ("relay.example.com", 3340, "relay.example.com:3340"),
            ("192.0.2.1", 80, "192.0.2.1:80"),
            ("2001:db8::1", 443, "[2001:db8::1]"),
            ("2001:db8::1", 8443, "[2001:db8::1]:8443"),
        ] {
            assert_eq!(https_authority(host, port), expected);
        }
    }
}
