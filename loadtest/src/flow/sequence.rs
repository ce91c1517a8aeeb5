//! The order in which the packets of a flow arrive: in order, reordered or duplicated.

use serde::{Deserialize, Serialize};

/// A packet's place in its flow, beside those that arrived before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketOrder {
    /// The packet has the highest number so far.
    Next,
    /// A packet with a higher number arrived before.
    Reordered,
    /// A packet with this number arrived before.
    Duplicate,
}

/// The packet numbers of one flow that have arrived.
#[derive(Clone, Debug)]
pub(crate) struct PacketSequence {
    /// The highest number, and 1.
    next: u64,
    /// Which of the last [`WINDOW`](Self::WINDOW) numbers have arrived, as a ring of bits.
    seen: Box<[u64; Self::WORDS]>,
}

impl Default for PacketSequence {
    fn default() -> Self {
        Self { next: 0, seen: Box::new([0; Self::WORDS]) }
    }
}

impl PacketSequence {
    /// A packet more than this far behind the highest number counts as reordered, even if it is a duplicate.
    const WINDOW: u64 = 4096;
    const WORDS: usize = Self::WINDOW as usize / 64;

    /// The highest number that has arrived, and 1.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Records that the packet `number` has arrived.
    pub(crate) fn record(&mut self, number: u64) -> PacketOrder {
        if number >= self.next {
            // The bits of skipped numbers still hold numbers of the ring's previous round.
            for skipped in self.next.max(number.saturating_sub(Self::WINDOW - 1))..number {
                let (word, bit) = Self::position(skipped);
                self.seen[word] &= !bit;
            }
            self.next = number + 1;
            let (word, bit) = Self::position(number);
            self.seen[word] |= bit;
            return PacketOrder::Next;
        }
        if self.next - number > Self::WINDOW {
            return PacketOrder::Reordered;
        }
        let (word, bit) = Self::position(number);
        if self.seen[word] & bit != 0 {
            return PacketOrder::Duplicate;
        }
        self.seen[word] |= bit;
        PacketOrder::Reordered
    }

    const fn position(number: u64) -> (usize, u64) {
        let position = number % Self::WINDOW;
        ((position / 64) as usize, 1 << (position % 64))
    }
}

/// Damage that a relay must never do, whatever the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketDamage {
    /// Packets that arrived twice.
    pub duplicated: u64,
    /// Packets that arrived after a later packet of their flow.
    pub reordered: u64,
    /// Packets whose content changed.
    pub corrupted: u64,
    /// Packets for another client, or with another sender's key.
    pub misrouted: u64,
}

impl PacketDamage {
    /// Whether there is any damage.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.total() > 0
    }

    pub(crate) const fn total(&self) -> u64 {
        self.duplicated + self.reordered + self.corrupted + self.misrouted
    }

    /// Counts a packet that arrived in this order.
    pub(crate) const fn count(&mut self, order: PacketOrder) {
        match order {
            PacketOrder::Next => {}
            PacketOrder::Reordered => self.reordered += 1,
            PacketOrder::Duplicate => self.duplicated += 1,
        }
    }

    pub(crate) const fn add(&mut self, other: &Self) {
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.misrouted += other.misrouted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PacketOrder::{Duplicate, Next, Reordered};

    #[test]
    fn reordered_and_duplicated_packets_are_told_apart() {
        let mut sequence = PacketSequence::default();
        for (number, order) in [
            (0, Next),
            (0, Duplicate),
            (2, Next),
            (1, Reordered),
            (1, Duplicate),
            (2, Duplicate),
            (5000, Next),
            (2, Reordered),
            (4999, Reordered),
            (4999, Duplicate),
            // The same bits of the ring as numbers of the round before.
            (5000 + 4096, Next),
            (4999 + 4096, Reordered),
            (5001, Reordered),
            (5001, Duplicate),
            (1_000_000, Next),
            (1_000_000 - 4095, Reordered),
            (1_000_000 - 4095, Duplicate),
        ] {
            assert_eq!(sequence.record(number), order, "{number}");
        }
        assert_eq!(sequence.next(), 1_000_001);
    }

    #[test]
    fn a_long_flow_in_order_has_no_reordered_or_duplicated_packet() {
        let mut sequence = PacketSequence::default();
        assert!((0..100_000).filter(|number| number % 7 != 0).all(|number| sequence.record(number) == Next));
        assert!(
            (99_000..100_000)
                .filter(|number| number % 7 == 0)
                .all(|number| sequence.record(number) == Reordered)
        );
        assert!((99_000..100_000).all(|number| sequence.record(number) == Duplicate));
    }
}
