//! When a worker lets packets gather before it looks for them.
//!
//! Waking up, writing to a socket and going to sleep again cost a worker several times what a packet costs, and each
//! write wakes a receiver. A busy network card delays its interrupts for the same reason. So a worker that is woken
//! often, each time for little, sleeps for a moment after each turn, whatever arrives, and then finds more at once:
//! fewer wake-ups on both sides, and larger records. It does not pause for three kinds of traffic:
//!
//! - an idle relay, where a packet is forwarded at once;
//! - a relay with more work than time: no pause follows a turn that took as long as a pause;
//! - two peers that answer each other in turn, where nothing gathers: after a few pauses that brought nothing, the
//!   worker stops pausing for a while.

use std::time::Duration;

use towpath_wire::time::Instant;

/// Wake-ups in a row, each soon after the last, that make a worker busy.
const START: u32 = 4;
/// A wake-up is soon after the last within so many times the pause.
const SOON: u32 = 3;
/// Pauses in a row that brought nothing, after which a worker does not pause for [`REST`].
const GIVE_UP: u32 = 4;
/// How long a worker does not pause after [`GIVE_UP`] pauses that brought nothing.
const REST: Duration = Duration::from_millis(20);
/// The bytes of a single connection from which on a turn shows that packets gathered.
const GATHERED: usize = 4096;

/// Decides on the pauses of one worker.
#[derive(Debug)]
pub(crate) struct Coalescer {
    /// The least time from one wake-up to the next while pausing is on. Zero: never on.
    pause: Duration,
    woke: Instant,
    on: bool,
    /// While off: wake-ups in a row that came soon. While on: pauses in a row that brought nothing.
    streak: u32,
    /// The time before which pausing is not on again.
    rest_until: Instant,
}

impl Coalescer {
    pub(crate) fn new(pause: Duration, now: Instant) -> Self {
        Self { pause, woke: now, on: false, streak: 0, rest_until: now }
    }

    /// Whether [`Self::pause`] may be other than zero. Unlike that, this check does not need the time.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// How long to sleep at `now`, at the end of a turn.
    #[inline]
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let spent = now.since(self.woke);
        (self.on && spent < self.pause).then(|| self.pause - spent)
    }

    /// Notes that the worker woke at `woke`, and what it found: connections with something to read, bytes in them.
    #[inline]
    pub(crate) fn note(&mut self, woke: Instant, connections: usize, bytes: usize) {
        let soon = woke.since(self.woke) < self.pause * SOON;
        self.woke = woke;
        if !self.on {
            let counts = soon && woke >= self.rest_until;
            self.streak = if counts { self.streak + 1 } else { 0 };
            if self.streak == START {
                self.switch(true);
            }
        } else if !soon {
            self.switch(false);
        } else if connections > 1 || bytes >= GATHERED {
            self.streak = 0;
        } else {
            self.streak += 1;
            if self.streak == GIVE_UP {
                self.rest_until = woke + REST;
                self.switch(false);
            }
        }
    }

    fn switch(&mut self, on: bool) {
        self.on = on;
        self.streak = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_micros(100);

    /// A worker and the time. Its turns take no time.
    struct Rig {
        coalescer: Coalescer,
        now: Instant,
    }

    impl Rig {
        fn new(pause: Duration) -> Self {
            let now = Instant::from_nanos(1_000_000_000);
            Self { coalescer: Coalescer::new(pause, now), now }
        }

        /// Something arrives after `micros`; returns how long it had to wait for the worker.
        fn arrive(&mut self, micros: u64, connections: usize, bytes: usize) -> Duration {
            let arrival = self.now + Duration::from_micros(micros);
            let awake = self.now + self.coalescer.pause(self.now).unwrap_or_default();
            self.now = arrival.max(awake);
            self.coalescer.note(self.now, connections, bytes);
            self.now.since(arrival)
        }

        fn many(&mut self, count: u32, micros: u64, connections: usize, bytes: usize) -> Duration {
            (0..count).map(|_| self.arrive(micros, connections, bytes)).sum()
        }
    }

    #[test]
    fn a_packet_through_a_relay_at_rest_never_waits() {
        let mut rig = Rig::new(PAUSE);
        assert_eq!(rig.many(10_000, 1000, 1, 1437), Duration::ZERO);
        // Even a few wake-ups together do not make the worker busy.
        assert_eq!(rig.many(3, 10, 1, 1437), Duration::ZERO);
    }

    #[test]
    fn a_busy_worker_wakes_up_once_a_pause() {
        let mut rig = Rig::new(PAUSE);
        rig.many(START, 10, 1, 1437);
        for _ in 0..1000 {
            assert_eq!(rig.arrive(10, 5, 7000), PAUSE - Duration::from_micros(10));
        }
        // One connection whose packets gather is as good as many.
        assert!(rig.many(1000, 10, 1, GATHERED) > PAUSE * 800);
    }

    #[test]
    fn peers_that_answer_each_other_wait_for_a_small_part_of_the_time() {
        let mut rig = Rig::new(PAUSE);
        let start = rig.now;
        let waited = rig.many(10_000, 60, 1, 150);
        assert!(waited > Duration::ZERO, "it does try");
        assert!(waited.as_secs_f64() < 0.03 * rig.now.since(start).as_secs_f64(), "{waited:?}");
    }

    #[test]
    fn a_turn_that_took_as_long_as_the_pause_is_followed_by_none() {
        let mut rig = Rig::new(PAUSE);
        rig.many(START, 10, 1, 1437);
        assert!(rig.coalescer.is_on());
        assert_eq!(rig.coalescer.pause(rig.now + PAUSE / 4), Some(PAUSE * 3 / 4));
        assert_eq!(rig.coalescer.pause(rig.now + PAUSE), None);
    }

    #[test]
    fn when_traffic_ends_the_next_packet_does_not_wait() {
        let mut rig = Rig::new(PAUSE);
        rig.many(START + 10, 10, 4, 5600);
        assert!(rig.coalescer.is_on());
        assert_eq!(rig.many(3, 1000, 1, 1437), Duration::ZERO);
        assert!(!rig.coalescer.is_on());
    }

    #[test]
    fn without_a_pause_it_is_never_on() {
        let mut rig = Rig::new(Duration::ZERO);
        assert_eq!(rig.many(1000, 1, 8, 65_536), Duration::ZERO);
        assert!(!rig.coalescer.is_on());
    }
}
