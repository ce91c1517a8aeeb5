//! What became of the packets: what is new, what came twice, late or broken.

use serde::{Deserialize, Serialize};

/// How a packet stands to those before it in its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PacketOrder {
    /// Behind all others.
    Next,
    /// Before one that was there earlier.
    Reordered,
    /// A packet with this number has come.
    Duplicate,
}

/// The numbers of one flow that have come.
#[derive(Clone, Debug)]
pub(crate) struct PacketSequence {
    /// One more than the highest number.
    next: u64,
    /// Of the last [`WINDOW`](Self::WINDOW) numbers, which have come; a ring.
    seen: Box<[u64; Self::WORDS]>,
}

impl Default for PacketSequence {
    fn default() -> Self {
        Self { next: 0, seen: Box::new([0; Self::WORDS]) }
    }
}

impl PacketSequence {
    /// A packet that is later than so many others counts as reordered without being known to be no duplicate.
    const WINDOW: u64 = 4096;
    const WORDS: usize = Self::WINDOW as usize / 64;

    /// One more than the highest number.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn note(&mut self, number: u64) -> PacketOrder {
        if number >= self.next {
            // What was skipped is forgotten from the round before.
            for skipped in self.next.max(number.saturating_sub(Self::WINDOW - 1))..number {
                let (word, bit) = Self::at(skipped);
                self.seen[word] &= !bit;
            }
            self.next = number + 1;
            let (word, bit) = Self::at(number);
            self.seen[word] |= bit;
            return PacketOrder::Next;
        }
        if self.next - number > Self::WINDOW {
            return PacketOrder::Reordered;
        }
        let (word, bit) = Self::at(number);
        if self.seen[word] & bit != 0 {
            return PacketOrder::Duplicate;
        }
        self.seen[word] |= bit;
        PacketOrder::Reordered
    }

    const fn at(number: u64) -> (usize, u64) {
        let place = number % Self::WINDOW;
        ((place / 64) as usize, 1 << (place % 64))
    }
}

/// Damage that a relay must never do, whatever the load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketDamage {
    /// Packets that came twice.
    pub duplicated: u64,
    /// Packets that came behind a later one of their flow.
    pub reordered: u64,
    /// Packets that were not as they were sent.
    pub corrupted: u64,
    /// Packets that were another client's, or came under another name.
    pub misrouted: u64,
}

impl PacketDamage {
    /// Whether there is any.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.total() > 0
    }

    pub(crate) const fn total(&self) -> u64 {
        self.duplicated + self.reordered + self.corrupted + self.misrouted
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
    fn order_and_repetition_are_told_apart() {
        let mut sequence = PacketSequence::default();
        for (number, place) in [
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
            // Same places in the ring as numbers that came a round earlier.
            (5000 + 4096, Next),
            (4999 + 4096, Reordered),
            (5001, Reordered),
            (5001, Duplicate),
            (1_000_000, Next),
            (1_000_000 - 4095, Reordered),
            (1_000_000 - 4095, Duplicate),
        ] {
            assert_eq!(sequence.note(number), place, "{number}");
        }
        assert_eq!(sequence.next(), 1_000_001);
    }

    #[test]
    fn a_long_flow_in_order_is_only_that() {
        let mut sequence = PacketSequence::default();
        assert!((0..100_000).filter(|number| number % 7 != 0).all(|number| sequence.note(number) == Next));
        assert!(
            (99_000..100_000)
                .filter(|number| number % 7 == 0)
                .all(|number| sequence.note(number) == Reordered)
        );
        assert!((99_000..100_000).all(|number| sequence.note(number) == Duplicate));
    }
}
