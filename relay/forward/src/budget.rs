//! Budgets: rates of rare things that a connection may cause, kept in one instant each.

use std::time::Duration;

use towpath_wire::time::Instant;

/// A rate: so many at once, and one more for each interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) interval: Duration,
}

/// What is left of a rate (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// When the whole burst may be spent again.
    full_at: Instant,
}

impl Default for Budget {
    fn default() -> Self {
        Self { full_at: Instant::ZERO }
    }
}

impl Budget {
    /// Spends one. Returns false if nothing is left at `now`.
    pub(crate) fn spend(&mut self, rate: &Rate, now: Instant) -> bool {
        let granted = self.full_at.since(now) <= rate.interval * (rate.burst - 1);
        if granted {
            self.full_at = self.full_at.max(now) + rate.interval;
        }
        granted
    }
}
