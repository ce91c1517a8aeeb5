//! What a datagram on the socket of a peer is, by its first bytes.
//!
//! One socket carries WireGuard, disco, STUN, and disco or WireGuard behind a Geneve header (RFC 8926) by which Tailscale's UDP
//! relays are spoken to. The tests and their order are upstream's (`magicsock.packetLooksLike`).

use super::MAGIC;
use crate::key::KEY_LEN;

/// The cookie of STUN (RFC 8489 section 5).
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// The low byte of the types of STUN's Binding messages.
const STUN_BINDING: u8 = 0x01;
/// Bytes of the header of STUN, below which nothing is STUN.
const STUN_HEADER: usize = 20;
/// Bytes of the header of Geneve without options.
const GENEVE_HEADER: usize = 8;
/// The protocols behind the header of Geneve.
const GENEVE_DISCO: [u8; 2] = [0x7a, 0x11];
const GENEVE_WIREGUARD: [u8; 2] = [0x7a, 0x12];

/// The kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramKind {
    /// A Binding message of STUN with the cookie: answers to this peer's own requests.
    Stun,
    /// A disco packet, or what begins like one.
    Disco,
    /// A disco packet of a UDP relay, or through one.
    GeneveDisco,
    /// A WireGuard packet through a UDP relay.
    GeneveWireGuard,
    /// Everything else is for WireGuard, be it empty.
    WireGuard,
}

impl DatagramKind {
    /// The kind of `datagram`.
    #[must_use]
    pub fn of(datagram: &[u8]) -> Self {
        if is_stun(datagram) {
            return Self::Stun;
        }
        match geneve_protocol(datagram) {
            Some((GENEVE_DISCO, inner)) if begins_like_disco(inner) => Self::GeneveDisco,
            // Upstream takes what only begins like disco in Geneve for WireGuard.
            Some((GENEVE_DISCO, _)) => Self::WireGuard,
            Some((GENEVE_WIREGUARD, _)) => Self::GeneveWireGuard,
            _ if begins_like_disco(datagram) => Self::Disco,
            _ => Self::WireGuard,
        }
    }

    /// Whether a packet of an application would be taken for something else than its own by a peer, so that it must not be sent
    /// as it is.
    #[must_use]
    pub fn is_mistaken(packet: &[u8]) -> bool {
        Self::of(packet) != Self::WireGuard
    }
}

fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= STUN_HEADER
        && datagram[0] & 0xc0 == 0
        && datagram[1] == STUN_BINDING
        && datagram[4..8] == STUN_COOKIE
}

/// The protocol of a datagram with a header of Geneve, and what is behind it.
fn geneve_protocol(datagram: &[u8]) -> Option<([u8; 2], &[u8])> {
    let ([version, reserved, high, low, _, _, _, tail], inner) =
        datagram.split_first_chunk::<GENEVE_HEADER>()?;
    let is_geneve = version & 0xc0 == 0 && reserved & 0x3f == 0 && *tail == 0;
    is_geneve.then_some(([*high, *low], inner))
}

/// Whether a datagram has the magic and room for a key. Whether the rest is whole is seen when it is opened.
fn begins_like_disco(datagram: &[u8]) -> bool {
    datagram.len() >= MAGIC.len() + KEY_LEN && datagram.starts_with(&MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geneve(protocol: [u8; 2], inner: &[u8]) -> Vec<u8> {
        [&[0, 0][..], &protocol, &[0, 0, 7, 0], inner].concat()
    }

    #[test]
    fn a_datagram_is_told_by_its_first_bytes() {
        let disco = [&MAGIC[..], &[0; 60]].concat();
        let stun = [&[1, 1, 0, 0][..], &STUN_COOKIE, &[0; 12]].concat();
        let handshake = [&[1, 0, 0, 0][..], &[7; 144]].concat();
        for (datagram, expected) in [
            (stun.clone(), DatagramKind::Stun),
            (stun[..19].to_vec(), DatagramKind::WireGuard),
            ([&[1, 2][..], &stun[2..]].concat(), DatagramKind::WireGuard),
            (disco.clone(), DatagramKind::Disco),
            (disco[..38].to_vec(), DatagramKind::Disco),
            (disco[..37].to_vec(), DatagramKind::WireGuard),
            (handshake, DatagramKind::WireGuard),
            (Vec::new(), DatagramKind::WireGuard),
            (geneve(GENEVE_DISCO, &disco), DatagramKind::GeneveDisco),
            (geneve(GENEVE_DISCO, &disco[..38]), DatagramKind::GeneveDisco),
            (geneve(GENEVE_DISCO, &disco[..37]), DatagramKind::WireGuard),
            (geneve(GENEVE_DISCO, &[7; 60]), DatagramKind::WireGuard),
            (geneve(GENEVE_WIREGUARD, &[]), DatagramKind::GeneveWireGuard),
            (geneve([0x7a, 0x13], &[]), DatagramKind::WireGuard),
        ] {
            assert_eq!(DatagramKind::of(&datagram), expected, "{datagram:02x?}");
            assert_eq!(DatagramKind::is_mistaken(&datagram), expected != DatagramKind::WireGuard);
        }
        for (at, byte) in [(0, 0x40), (1, 0x01), (7, 0x01)] {
            let mut other = geneve(GENEVE_WIREGUARD, &[]);
            other[at] = byte;
            assert_eq!(DatagramKind::of(&other), DatagramKind::WireGuard, "byte {at}");
        }
        // The bit of control messages, which a relay sets while it is bound to, and a number of 24 bits.
        for (at, byte) in [(1, 0x80), (4, 0xff), (6, 0xff)] {
            let mut other = geneve(GENEVE_DISCO, &disco);
            other[at] = byte;
            assert_eq!(DatagramKind::of(&other), DatagramKind::GeneveDisco, "byte {at}");
        }
        assert_eq!(DatagramKind::of(&geneve(GENEVE_WIREGUARD, &[])[..7]), DatagramKind::WireGuard);
    }
}
