//! Seeded random numbers.

use std::time::Duration;

/// A generator of random numbers (SplitMix64): the same seed gives the same numbers.
///
/// Each NAT and each link has one of its own, so that what one draws does not depend on what the others do.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator with a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator that is independent of the others with the same seed and another tag.
    #[must_use]
    pub fn stream(seed: u64, tag: u64) -> Self {
        let mut tags = Self(tag);
        let mut seeds = Self(seed ^ tags.bits());
        Self(seeds.bits())
    }

    /// 64 random bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero for a bound of zero. The bias is below `bound` in 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of 128 bits")
    }

    /// A port of the range, both ends included.
    pub fn port(&mut self, first: u16, last: u16) -> u16 {
        let width = u64::from(last.saturating_sub(first)) + 1;
        first.wrapping_add(u16::try_from(self.below(width)).unwrap_or(0))
    }

    /// Whether something happens that has this chance.
    pub fn happens(&mut self, chance: f64) -> bool {
        // Nothing is drawn where nothing is open, which is the usual link.
        chance > 0.0 && (chance >= 1.0 || self.fraction() < chance)
    }

    /// A duration from zero up to `most`.
    pub fn duration(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        if most == 0 { Duration::ZERO } else { Duration::from_nanos(self.below(most)) }
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.bits().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }

    /// A number from 0 up to 1. A `f64` holds 53 bits exactly.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn fraction(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_the_seed_and_within_bounds() {
        let (mut one, mut same, mut other) = (Random::new(1), Random::new(1), Random::stream(1, 0));
        let numbers: Vec<u64> = (0..100).map(|_| one.below(10)).collect();
        assert_eq!(numbers, (0..100).map(|_| same.below(10)).collect::<Vec<_>>());
        assert_ne!(numbers, (0..100).map(|_| other.below(10)).collect::<Vec<_>>());
        for digit in 0..10 {
            assert!(numbers.contains(&digit), "{digit}");
        }
        assert!((0..1000).map(|_| one.port(65_534, 65_535)).all(|port| port >= 65_534));
        assert_eq!(one.port(7, 7), 7);
        let happened = (0..10_000).filter(|_| one.happens(0.05)).count();
        assert!((400..600).contains(&happened), "{happened}");
        assert!(!one.happens(0.0) && one.happens(1.0));
        assert_eq!(one.duration(Duration::ZERO), Duration::ZERO);
    }
}
