//! The headers of IP packets, as far as a router reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use towpath_sim::Traffic;

/// The number of UDP among IP's protocols.
const UDP: u8 = 17;
/// The header of a fragment of IPv6.
const FRAGMENT: u8 = 44;
const V4_LEN: usize = 20;
const V6_LEN: usize = 40;

/// What a router reads of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) destination: IpAddr,
    /// UDP, or everything else.
    pub(crate) traffic: Traffic,
}

impl Header {
    /// Reads a packet. `None` if it is none of IPv4 or IPv6.
    pub(crate) fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let header: &[u8; V4_LEN] = packet.first_chunk()?;
                let [.., a, b, c, d] = *header;
                Some(Self { destination: Ipv4Addr::new(a, b, c, d).into(), traffic: traffic(header[9]) })
            }
            6 => {
                let header: &[u8; V6_LEN] = packet.first_chunk()?;
                let destination: [u8; 16] = *header.last_chunk()?;
                let next = if header[6] == FRAGMENT { *packet.get(V6_LEN)? } else { header[6] };
                Some(Self { destination: Ipv6Addr::from(destination).into(), traffic: traffic(next) })
            }
            _ => None,
        }
    }
}

const fn traffic(protocol: u8) -> Traffic {
    if protocol == UDP { Traffic::Udp } else { Traffic::Everything }
}

/// Counts the hops of a packet down, as so many routers do. Returns whether any are left. The packet is one that was read.
pub(crate) fn take_hops(packet: &mut [u8], hops: u8) -> bool {
    let is_v4 = packet[0] >> 4 == 4;
    let left = if is_v4 { &mut packet[8] } else { &mut packet[7] };
    let old = *left;
    if old <= hops {
        return false;
    }
    *left = old - hops;
    if is_v4 {
        // RFC 1624, equation 3. The hops are the upper half of a word.
        let sum = u16::from_be_bytes([packet[10], packet[11]]);
        let sum = !fold(u32::from(!sum) + u32::from(!(u16::from(old) << 8)) + (u32::from(old - hops) << 8));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    true
}

/// A sum in ones' complement.
fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("it was folded")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The checksum of a header whose checksum is right.
    const RIGHT: u16 = 0xffff;

    /// An IPv4 packet with an empty datagram, and 64 hops.
    pub(crate) fn datagram(destination: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 0, 1];
        packet.extend(destination);
        let sum = !checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend([0; 8]);
        packet
    }

    fn checksum(header: &[u8]) -> u16 {
        fold(header.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum())
    }

    #[test]
    fn destinations_and_protocols_are_read() {
        let mut packet = datagram([192, 0, 2, 1]);
        let destination = "192.0.2.1".parse().unwrap();
        assert_eq!(Header::read(&packet), Some(Header { destination, traffic: Traffic::Udp }));
        packet[9] = 6;
        assert_eq!(Header::read(&packet), Some(Header { destination, traffic: Traffic::Everything }));
        let mut packet = [0; 48];
        (packet[0], packet[6], packet[39], packet[40]) = (0x60, FRAGMENT, 1, UDP);
        let destination = "::1".parse().unwrap();
        assert_eq!(Header::read(&packet), Some(Header { destination, traffic: Traffic::Udp }));
        packet[6] = 6;
        assert_eq!(Header::read(&packet), Some(Header { destination, traffic: Traffic::Everything }));
        for broken in [&[][..], &[0x45; 19], &[0x60; 39], &[0x10; 60]] {
            assert_eq!(Header::read(broken), None);
        }
    }

    #[test]
    fn hops_are_counted_down_with_the_checksum() {
        let mut packet = datagram([192, 0, 2, 1]);
        for left in (1..64).rev() {
            assert!(take_hops(&mut packet, 1));
            assert_eq!((packet[8], checksum(&packet[..20])), (left, RIGHT));
        }
        assert!(!take_hops(&mut packet, 1) && packet[8] == 1);
        let mut packet = [0x60, 0, 0, 0, 0, 0, 17, 3];
        assert!(take_hops(&mut packet, 2) && packet[7] == 1);
        assert!(!take_hops(&mut packet, 2));
    }
}
