//! How long a relay that could not be reached is left alone.

use std::time::Duration;

/// The first pause, and the longest one. A relay that restarts is missed for little longer than it is away.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Pauses, each about twice as long as the one before.
#[derive(Debug, Default)]
pub(super) struct Pauses(u32);

impl Pauses {
    /// The next pause. `random` spreads clients that have lost the same relay, so that they do not all return at once.
    pub(super) fn next(&mut self, random: u8) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.0.min(10)).min(LONGEST);
        self.0 = self.0.saturating_add(1);
        // Between half of it and all of it.
        longest / 2 + longest.mul_f64(f64::from(random) / 510.0)
    }

    /// Begins anew, after a link that has worked.
    pub(super) const fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_seconds_and_are_spread_over_half_of_that() {
        let mut pauses = Pauses::default();
        let longest: Vec<_> = (0..8).map(|_| pauses.next(255).as_millis()).collect();
        assert_eq!(longest, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(pauses.next(0), LONGEST / 2);
        pauses.reset();
        assert_eq!(pauses.next(0), FIRST / 2);
        pauses.0 = u32::MAX;
        assert_eq!(pauses.next(255), LONGEST);
    }
}
