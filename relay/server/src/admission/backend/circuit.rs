//! The circuit: whether a backend that has failed is asked again, or is left in peace for a moment.
//!
//! After a few failures in a row the backend rests: it is not asked, so that an outage costs no login the deadline and the
//! backend no storm. After the rest one question goes through as a probe. Its answer ends the outage, its failure begins
//! another, longer rest.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which a backend rests. One alone may be a connection that broke.
const FAILURES: u32 = 3;
/// The longest first rest, and the longest of all: how late the end of an outage may be noticed.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(4);

/// The state of a backend, as its answers and failures show it.
#[derive(Debug, Default)]
pub(super) struct Circuit {
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The backend is asked. So many failures in a row came last.
    Asking { failures: u32 },
    /// The backend is not asked before this time. So many rests came before.
    Resting { until: Instant, rests: u32 },
    /// One question is on its way, and counts as lost at this time.
    Probing { until: Instant, rests: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Asking { failures: 0 }
    }
}

impl Circuit {
    /// Whether a question would be turned away now.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        match self.state {
            State::Asking { .. } => false,
            State::Resting { until, .. } | State::Probing { until, .. } => now < until,
        }
    }

    /// Lets a question through, or not. `deadline`: when its answer comes at the latest.
    pub(super) fn enter(&mut self, now: Instant, deadline: Instant) -> bool {
        if self.is_resting(now) {
            return false;
        }
        if let State::Resting { rests, .. } | State::Probing { rests, .. } = self.state {
            self.state = State::Probing { until: deadline, rests };
        }
        true
    }

    /// Notes that the backend has answered.
    pub(super) fn answered(&mut self) {
        self.state = State::default();
    }

    /// Notes that the backend has failed. `random` spreads the ends of rests, so that relays which lost a backend together
    /// do not come back to it together.
    pub(super) fn failed(&mut self, now: Instant, random: u8) {
        self.state = match self.state {
            State::Asking { failures } if failures + 1 < FAILURES => State::Asking { failures: failures + 1 },
            State::Asking { .. } => State::Resting { until: now + rest(0, random), rests: 1 },
            State::Probing { rests, .. } => {
                State::Resting { until: now + rest(rests, random), rests: rests.saturating_add(1) }
            }
            // It was asked before the rest began.
            resting @ State::Resting { .. } => resting,
        };
    }
}

/// How long a backend rests that has rested so often in this outage: from half of the time to all of it.
fn rest(rests: u32, random: u8) -> Duration {
    let longest = FIRST_REST.saturating_mul(2_u32.saturating_pow(rests)).min(LONGEST_REST);
    longest / 2 + longest / 2 * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_backend_rests_after_failures_in_a_row_and_is_then_probed_by_one_question() {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        let asked = |circuit: &mut Circuit, at: Duration| circuit.enter(start + at, start + at + 5 * SECOND);
        for _ in 0..2 {
            assert!(asked(&mut circuit, Duration::ZERO));
            circuit.failed(start, 255);
        }
        circuit.answered();
        for _ in 0..3 {
            assert!(asked(&mut circuit, Duration::ZERO), "an answer in between starts the count anew");
            circuit.failed(start, 255);
        }
        assert!(circuit.is_resting(start));
        assert!(!asked(&mut circuit, Duration::from_millis(499)));
        assert!(asked(&mut circuit, Duration::from_millis(500)));
        assert!(!asked(&mut circuit, Duration::from_millis(501)), "the probe is on its way");
        circuit.failed(start + SECOND, 255);
        assert!(!asked(&mut circuit, Duration::from_millis(1999)), "the second rest is longer");
        assert!(asked(&mut circuit, 2 * SECOND));
        circuit.answered();
        assert!(asked(&mut circuit, 2 * SECOND) && asked(&mut circuit, 2 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_lost_is_followed_by_another() {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        for _ in 0..3 {
            circuit.failed(start, 0);
        }
        assert!(circuit.enter(start + SECOND, start + 6 * SECOND));
        assert!(circuit.is_resting(start + 5 * SECOND));
        assert!(circuit.enter(start + 6 * SECOND, start + 11 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_from_before_the_rest_prolongs_nothing_and_an_answer_ends_the_rest() {
        let (mut circuit, start) = (Circuit::default(), Instant::now());
        for _ in 0..64 {
            circuit.failed(start, 255);
        }
        assert!(!circuit.is_resting(start + FIRST_REST));
        circuit.answered();
        assert!(!circuit.is_resting(start));
    }

    #[test]
    fn rests_grow_to_a_few_seconds_and_are_spread() {
        let longest: Vec<_> = (0..5).map(|rests| rest(rests, 255).as_millis()).collect();
        assert_eq!(longest, [500, 1000, 2000, 4000, 4000]);
        assert_eq!(rest(3, 0), 2 * SECOND);
        assert_eq!(rest(u32::MAX, 255), LONGEST_REST);
    }
}
