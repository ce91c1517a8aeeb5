//! Packets of the application that came over both ways, while the sender was not certain of the direct one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::datagram::Region;

/// How long a packet is remembered. The ways of one peer do not differ by more.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Packets that are remembered, over all peers: 64 bytes each.
const MOST: usize = 16_384;
/// Bytes at the start and at the end by which a packet is known, apart from its length. All in which two packets of WireGuard
/// differ is there: the counter or the ephemeral key at the start, the tag at the end. With a peer and a length these make two
/// blocks of the hash, where a packet of 1,400 bytes would make 23.
const KNOWN_BY: usize = 40;

/// The way that a packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Relay(Region),
}

/// The packets of the last second.
#[derive(Debug)]
pub(crate) struct Doubles {
    /// Secret, so that no peer can make packets that are taken for others.
    key: [u8; 32],
    seen: HashMap<[u8; 16], Way>,
    oldest: VecDeque<(Instant, [u8; 16])>,
}

impl Doubles {
    pub(crate) fn new(key: [u8; 32]) -> Self {
        Self { key, seen: HashMap::new(), oldest: VecDeque::new() }
    }

    /// Whether this packet of `peer` came over the other way a moment ago. A packet that the application sends twice is none.
    pub(crate) fn is_double(&mut self, peer: &NodePublic, packet: &[u8], way: Way, now: Instant) -> bool {
        while let Some(&(at, hash)) = self.oldest.front()
            && (now.since(at) >= REMEMBERED || self.oldest.len() >= MOST)
        {
            self.oldest.pop_front();
            self.seen.remove(&hash);
        }
        let hash = self.hash(peer, packet);
        match self.seen.get(&hash) {
            Some(before) if *before != way => true,
            Some(_) => false,
            None => {
                self.seen.insert(hash, way);
                self.oldest.push_back((now, hash));
                false
            }
        }
    }

    fn hash(&self, peer: &NodePublic, packet: &[u8]) -> [u8; 16] {
        let (start, rest) = packet.split_at(packet.len().min(KNOWN_BY));
        let end = &rest[rest.len().saturating_sub(KNOWN_BY)..];
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(peer.as_bytes()).update(&packet.len().to_le_bytes()).update(start).update(end);
        *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    #[test]
    fn a_packet_is_a_double_if_it_came_over_the_other_way_within_a_second() {
        let mut doubles = Doubles::new([1; 32]);
        let [peer, other] = [1, 2].map(|byte| NodePublic::from_bytes([byte; 32]));
        assert!(!doubles.is_double(&peer, b"one", Way::Direct, at(0)));
        assert!(doubles.is_double(&peer, b"one", Way::Relay(Region(1)), at(999)));
        assert!(!doubles.is_double(&peer, b"one", Way::Direct, at(999)), "sent twice");
        assert!(doubles.is_double(&peer, b"one", Way::Relay(Region(2)), at(999)), "over another relay");
        assert!(!doubles.is_double(&other, b"one", Way::Relay(Region(1)), at(999)), "of another peer");
        assert!(!doubles.is_double(&peer, b"one", Way::Relay(Region(1)), at(1000)), "a second later");
        assert!(doubles.is_double(&peer, b"one", Way::Direct, at(1001)));
    }

    #[test]
    fn packets_that_are_remembered_are_bounded() {
        let mut doubles = Doubles::new([1; 32]);
        let peer = NodePublic::from_bytes([1; 32]);
        for number in 0..2 * MOST {
            assert!(!doubles.is_double(&peer, &number.to_le_bytes(), Way::Direct, at(1)));
        }
        assert_eq!((doubles.seen.len(), doubles.oldest.len()), (MOST, MOST));
    }

    #[test]
    fn packets_of_wireguard_differ_in_what_they_are_known_by() {
        let mut doubles = Doubles::new([1; 32]);
        let peer = NodePublic::from_bytes([1; 32]);
        let data = |counter: u64, tag: u8, len: usize| {
            let mut packet = vec![4, 0, 0, 0, 9, 9, 9, 9];
            packet.extend_from_slice(&counter.to_le_bytes());
            packet.resize(len - 16, 7);
            packet.resize(len, tag);
            packet
        };
        let mut initiation = vec![1; 148];
        assert!(!doubles.is_double(&peer, &initiation, Way::Direct, at(0)));
        initiation[8 + 31] = 2;
        assert!(
            !doubles.is_double(&peer, &initiation, Way::Relay(Region(1)), at(0)),
            "another ephemeral key"
        );
        assert!(!doubles.is_double(&peer, &data(1, 1, 1400), Way::Direct, at(0)));
        assert!(
            !doubles.is_double(&peer, &data(2, 1, 1400), Way::Relay(Region(1)), at(0)),
            "another counter"
        );
        assert!(!doubles.is_double(&peer, &data(1, 2, 1400), Way::Relay(Region(1)), at(0)), "another tag");
        assert!(!doubles.is_double(&peer, &data(1, 1, 1399), Way::Relay(Region(1)), at(0)), "another length");
        assert!(doubles.is_double(&peer, &data(1, 1, 1400), Way::Relay(Region(1)), at(0)));
        for len in [0, 1, 39, 40, 41, 79, 80, 81] {
            let mut packet = vec![3; len];
            assert!(!doubles.is_double(&peer, &packet, Way::Direct, at(0)), "{len} bytes");
            assert!(doubles.is_double(&peer, &packet, Way::Relay(Region(1)), at(0)), "{len} bytes");
            if let Some(last) = packet.last_mut() {
                *last = 4;
                assert!(!doubles.is_double(&peer, &packet, Way::Relay(Region(1)), at(0)), "{len} bytes");
            }
        }
    }
}
