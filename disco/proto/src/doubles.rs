//! Packets of the application that came over both ways, while the sender was not certain of the direct one.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::time::Duration;

use foldhash::quality::FixedState;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::datagram::Region;

/// How long a packet is remembered. The ways of one peer do not differ by more.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Packets that are remembered, over all peers: 40 bytes each.
const MOST: usize = 16_384;
/// Bytes at the start and at the end by which a packet is known, apart from its length. All in which two packets of WireGuard
/// differ is there: the counter or the ephemeral key at the start, the tag at the end.
const KNOWN_BY: usize = 40;

/// The way that a packet came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Relay(Region),
}

/// A hash of a packet. At 100,000 packets a second, two of those that are remembered share one less than once in a century.
type PacketHash = u64;

/// The packets of the last second.
#[derive(Debug)]
pub(crate) struct Doubles {
    /// With a secret, so that no peer can make packets that are taken for another's. One that finds packets of its own with one hash
    /// loses the second of them.
    state: FixedState,
    seen: HashMap<PacketHash, Way, BuildHasherDefault<AsItIs>>,
    oldest: VecDeque<(Instant, PacketHash)>,
}

/// The hasher of what is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Keys are written as a whole, by the method below.
        self.0 = bytes.iter().fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Doubles {
    pub(crate) fn new(secret: [u8; 8]) -> Self {
        let state = FixedState::with_seed(u64::from_le_bytes(secret));
        Self { state, seen: HashMap::default(), oldest: VecDeque::new() }
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

    fn hash(&self, peer: &NodePublic, packet: &[u8]) -> PacketHash {
        let (start, rest) = packet.split_at(packet.len().min(KNOWN_BY));
        let end = &rest[rest.len().saturating_sub(KNOWN_BY)..];
        let mut hasher = self.state.build_hasher();
        hasher.write(peer.as_bytes());
        hasher.write_usize(packet.len());
        hasher.write(start);
        hasher.write(end);
        hasher.finish()
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
        let mut doubles = Doubles::new([1; 8]);
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
        let mut doubles = Doubles::new([1; 8]);
        let peer = NodePublic::from_bytes([1; 32]);
        for number in 0..2 * MOST {
            assert!(!doubles.is_double(&peer, &number.to_le_bytes(), Way::Direct, at(1)));
        }
        assert_eq!((doubles.seen.len(), doubles.oldest.len()), (MOST, MOST));
    }

    #[test]
    fn packets_of_wireguard_differ_in_what_they_are_known_by() {
        let mut doubles = Doubles::new([1; 8]);
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
