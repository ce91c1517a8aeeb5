//! Which local address a datagram was sent to, or is to be sent from: `IP_PKTINFO` and `IPV6_PKTINFO`.
//!
//! Control messages are read and written as bytes in the kernel's layout: a header of length (`size_t`),
//! level and type, then the data, everything aligned to a `size_t`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LocalAddr {
    /// The address; unspecified if the kernel is to choose by route.
    pub ip: IpAddr,
    /// Index of the interface. What is sent is bound to it only if `ip` is an IPv6 link-local address, which
    /// means nothing without it; everything else goes where the routes say. 0 if unknown.
    pub interface: u32,
}

impl LocalAddr {
    /// Leaves the choice of the source address to the kernel.
    pub const ANY: Self = Self { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), interface: 0 };
}

/// Length of a control message's header.
const HEADER_LEN: usize = size_of::<usize>() + 8;
const ALIGN: usize = size_of::<usize>();

/// `struct in_pktinfo`: interface, local address, destination in the header.
const IPV4_INFO_LEN: usize = 12;
/// `struct in6_pktinfo`: address, interface.
const IPV6_INFO_LEN: usize = 20;

/// Room for PKTINFO of either family, and some for what a caller may have switched on besides.
const CONTROL_LEN: usize = 64;

/// Memory for the control messages of one datagram.
#[derive(Clone, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control(pub(crate) [u8; CONTROL_LEN]);

impl Default for Control {
    fn default() -> Self {
        Self([0; CONTROL_LEN])
    }
}

impl Control {
    /// Writes the message that fixes the source address, and returns its length; 0 if the kernel may choose.
    pub(crate) fn write(&mut self, local: LocalAddr) -> usize {
        if local.ip.is_unspecified() {
            return 0;
        }
        match local.ip {
            IpAddr::V4(ip) => {
                let mut info = [0; IPV4_INFO_LEN];
                info[4..8].copy_from_slice(&ip.octets());
                self.write_message(libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
            }
            IpAddr::V6(ip) => {
                let interface = if ip.is_unicast_link_local() { local.interface } else { 0 };
                let mut info = [0; IPV6_INFO_LEN];
                info[..16].copy_from_slice(&ip.octets());
                info[16..].copy_from_slice(&interface.to_ne_bytes());
                self.write_message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
            }
        }
    }

    /// Writes the message that fixes the source address, and one that fixes the hops after which the datagram dies; returns the
    /// length of both.
    pub(crate) fn write_with_ttl(&mut self, local: LocalAddr, is_ipv4: bool, ttl: u8) -> usize {
        let start = self.write(local);
        let (level, kind) = if is_ipv4 {
            (libc::IPPROTO_IP, libc::IP_TTL)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)
        };
        start + write_message(&mut self.0[start..], level, kind, &i32::from(ttl).to_ne_bytes())
    }

    fn write_message(&mut self, level: i32, kind: i32, data: &[u8]) -> usize {
        write_message(&mut self.0, level, kind, data)
    }

    /// The hops that a received datagram has left, where the socket was asked to say so.
    #[cfg(test)]
    pub(crate) fn hops(&self) -> Option<i32> {
        let mut rest = &self.0[..];
        while let Some((level, kind, data, next)) = split_message(rest) {
            if [(libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT)]
                .contains(&(level, kind))
            {
                return data.first_chunk().map(|hops| i32::from_ne_bytes(*hops));
            }
            rest = next;
        }
        None
    }

    /// Finds PKTINFO in the first `len` bytes; [`LocalAddr::ANY`] if there is none.
    pub(crate) fn read(&self, len: usize) -> LocalAddr {
        let mut rest = self.0.get(..len).unwrap_or(&self.0);
        while let Some((level, kind, data, next)) = split_message(rest) {
            let local = match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => read_ipv4(data),
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => read_ipv6(data),
                _ => None,
            };
            if let Some(local) = local {
                return local;
            }
            rest = next;
        }
        LocalAddr::ANY
    }
}

/// Writes a control message, and returns its length with the padding that the next one needs.
fn write_message(out: &mut [u8], level: i32, kind: i32, data: &[u8]) -> usize {
    let len = HEADER_LEN + data.len();
    let space = len.next_multiple_of(ALIGN);
    out[..ALIGN].copy_from_slice(&len.to_ne_bytes());
    out[ALIGN..ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
    out[ALIGN + 4..HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
    out[HEADER_LEN..len].copy_from_slice(data);
    out[len..space].fill(0);
    space
}

/// Splits off the first control message: level, type, data and what follows.
fn split_message(bytes: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    let (len, after_len) = bytes.split_first_chunk::<ALIGN>()?;
    let (level, after_level) = after_len.split_first_chunk()?;
    let (kind, _) = after_level.split_first_chunk()?;
    let len = usize::from_ne_bytes(*len);
    let data = bytes.get(HEADER_LEN..len)?;
    let next = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    Some((i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind), data, next))
}

/// The second field is the address to answer from, also if the datagram was broadcast.
fn read_ipv4(data: &[u8]) -> Option<LocalAddr> {
    let (interface, rest) = data.split_first_chunk()?;
    let ip = Ipv4Addr::from(*rest.first_chunk::<4>()?);
    Some(LocalAddr { ip: ip.into(), interface: u32::from_ne_bytes(*interface) })
}

/// The address is the destination in the header; nothing can be sent from a multicast one.
fn read_ipv6(data: &[u8]) -> Option<LocalAddr> {
    let (ip, rest) = data.split_first_chunk::<16>()?;
    let ip = Ipv6Addr::from(*ip);
    let ip = if ip.is_multicast() { Ipv6Addr::UNSPECIFIED } else { ip };
    Some(LocalAddr { ip: ip.into(), interface: u32::from_ne_bytes(*rest.first_chunk()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(ip: &str, interface: u32) -> LocalAddr {
        LocalAddr { ip: ip.parse().unwrap(), interface }
    }

    #[test]
    fn addresses_survive_and_only_link_local_ones_name_an_interface() {
        let mut control = Control::default();
        for (given, expected) in [
            (local("192.0.2.1", 7), local("192.0.2.1", 0)),
            (local("2001:db8::1", 7), local("2001:db8::1", 0)),
            (local("fe80::1", 7), local("fe80::1", 7)),
        ] {
            let len = control.write(given);
            assert_eq!(control.read(len), expected);
        }
        assert_eq!(control.write(LocalAddr::ANY), 0);
        assert_eq!(control.write(local("::", 7)), 0);
    }

    #[test]
    fn other_messages_are_passed_over() {
        let mut pktinfo = Control::default();
        let pktinfo_len = pktinfo.write(local("192.0.2.1", 0));
        let mut control = Control::default();
        let other_len = control.write_message(libc::SOL_SOCKET, libc::SCM_RIGHTS, &[1, 2, 3, 4, 5]);
        control.0[other_len..other_len + pktinfo_len].copy_from_slice(&pktinfo.0[..pktinfo_len]);
        assert_eq!(control.read(other_len + pktinfo_len), local("192.0.2.1", 0));
        assert_eq!(control.read(other_len), LocalAddr::ANY);
    }

    #[test]
    fn multicast_is_no_source() {
        let mut control = Control::default();
        let len = control.write(local("ff02::1", 0));
        assert_eq!(control.read(len), local("::", 0));
    }

    /// The kernel writes these bytes, so they are no attacker's; a wrong length must still not panic.
    #[test]
    fn nonsense_is_no_address() {
        for byte in 0..=u8::MAX {
            for len in 0..=CONTROL_LEN + 1 {
                Control([byte; CONTROL_LEN]).read(len);
            }
        }
        let mut control = Control::default();
        control.write(local("fe80::1", 7));
        for len in 0..HEADER_LEN + IPV6_INFO_LEN {
            assert_eq!(control.read(len), LocalAddr::ANY);
        }
    }
}
