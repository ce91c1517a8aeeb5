//! Packets of the application that came over both ways, while the sender was not certain of the direct one.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use foldhash::quality::FixedState;
use towpath_wire::key::NodePublic;
use towpath_wire::time::Instant;

use crate::datagram::Region;

/// How long a packet is remembered. The ways of one peer do not differ by more.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Sets of packets, over all peers. A power of two.
const SETS: usize = 4096;
/// Packets of a set that are remembered, 16 bytes each: a set is two lines of a cache. Of the last 1,600 packets, which are 80 ms of
/// 20,000 in a second, one is forgotten for others of its set once in a hundred million.
const OF_SET: usize = 8;
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

/// A packet that is remembered.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// 0 where there is none.
    hash: PacketHash,
    /// When it came, in milliseconds, of which the lowest bits are kept.
    millis: u32,
    /// The region of the relay that it came over, or [`DIRECT`].
    way: u32,
}

/// Stands for the direct way beside the numbers of regions.
const DIRECT: u32 = u32::MAX;

impl Seen {
    /// Milliseconds since it came; the longest time for none.
    const fn age(self, millis: u32) -> u32 {
        if self.hash == 0 { u32::MAX } else { millis.wrapping_sub(self.millis) }
    }
}

/// The packets of the last second.
#[derive(Debug)]
pub(crate) struct Doubles {
    /// With a secret, so that no peer can make packets that are taken for another's. One that finds packets of its own with one hash
    /// loses the second of them.
    state: FixedState,
    /// None before the first packet.
    sets: Vec<[Seen; OF_SET]>,
}

impl Doubles {
    pub(crate) fn new(secret: [u8; 8]) -> Self {
        Self { state: FixedState::with_seed(u64::from_le_bytes(secret)), sets: Vec::new() }
    }

    /// Whether this packet of `peer` came over the other way a moment ago. A packet that the application sends twice is none.
    pub(crate) fn is_double(&mut self, peer: &NodePublic, packet: &[u8], way: Way, now: Instant) -> bool {
        if self.sets.is_empty() {
            self.sets = vec![[Seen::default(); OF_SET]; SETS];
        }
        let hash = self.hash(peer, packet).max(1);
        let millis = (now.as_nanos() / 1_000_000) as u32;
        let way = match way {
            Way::Direct => DIRECT,
            Way::Relay(Region(region)) => region.into(),
        };
        let set = &mut self.sets[hash as usize % SETS];
        let mut oldest = 0;
        for (place, seen) in set.iter().enumerate() {
            if seen.hash == hash && u128::from(seen.age(millis)) < REMEMBERED.as_millis() {
                return seen.way != way;
            }
            if seen.age(millis) > set[oldest].age(millis) {
                oldest = place;
            }
        }
        set[oldest] = Seen { hash, millis, way };
        false
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
    fn the_last_packets_are_remembered_and_the_oldest_make_room() {
        let mut doubles = Doubles::new([1; 8]);
        let peer = NodePublic::from_bytes([1; 32]);
        let count = 4 * SETS * OF_SET;
        for number in 0..count {
            assert!(!doubles.is_double(&peer, &number.to_le_bytes(), Way::Direct, at(number as u64 / 1000)));
        }
        assert_eq!(doubles.sets.len(), SETS);
        let last = at(count as u64 / 1000);
        let mut is_known =
            |number: usize| doubles.is_double(&peer, &number.to_le_bytes(), Way::Relay(Region(1)), last);
        assert!((count - 1600..count).all(&mut is_known));
        assert!(!(0..1600).any(is_known));
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
