//! Warnings that repeat: the first is logged, and then a number once a minute.

use std::time::{Duration, Instant};

/// The shortest time between two log lines about the same failure.
const QUIET: Duration = Duration::from_secs(60);

/// A failure that may repeat as often as another program likes.
#[derive(Debug, Default)]
pub struct Repeated {
    told: Option<Instant>,
    untold: u64,
}

impl Repeated {
    /// Notes the failure. Returns how often it has happened since the last line, with this time, if a line is due.
    pub fn note(&mut self, now: Instant) -> Option<u64> {
        self.untold += 1;
        if self.told.is_some_and(|told| now.saturating_duration_since(told) < QUIET) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_once_a_minute_by_their_number() {
        let (mut repeated, start) = (Repeated::default(), Instant::now());
        assert_eq!(repeated.note(start), Some(1));
        for second in 1..60 {
            assert_eq!(repeated.note(start + Duration::from_secs(second)), None);
        }
        assert_eq!(repeated.note(start + Duration::from_secs(60)), Some(60));
        assert_eq!(repeated.note(start + Duration::from_secs(61)), None);
        assert_eq!(repeated.note(start + Duration::from_secs(600)), Some(2));
    }
}
