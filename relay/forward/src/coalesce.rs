//! When a worker lets packets gather before it looks for them.
//!
//! Waking up, writing to a socket and going to sleep again cost a worker several times what a packet costs, and each
//! write wakes a receiver. A busy network card delays its interrupts for the same reason. So a worker that is woken
//! often, each time for little, may sleep for a moment after each turn, whatever arrives, and then finds more at once:
//! fewer wake-ups on both sides, and larger records.
//!
//! A pause delays packets and costs a wake-up itself, and whether it saves others depends on how packets arrive. Those that
//! come in bursts are found together without it, and bursts that are far apart do not gather. So a busy worker measures: it
//! counts the bytes for each wake-up without pauses, then tries some pauses, and goes on with them only if a wake-up then brings
//! [`GAIN`] times as much. It measures again from time to time. There is no pause on an idle relay, where a packet is forwarded
//! at once, and none after a turn that took as long as a pause.

use std::time::Duration;

use towpath_wire::time::Instant;

/// A wake-up is soon after the last within so many times the pause. Only a worker whose wake-ups come soon pauses.
const SOON: u32 = 3;
/// Wake-ups without pauses over which is measured what they bring.
const MEASURED: u32 = 16;
/// Pauses that are tried.
const TRIED: u32 = 8;
/// How many times as much a wake-up must bring with pauses. At twice as much, the wake-ups that are saved have been spent on
/// the pauses.
const GAIN: usize = 3;
/// How long the worker pauses until it measures again.
const TERM: Duration = Duration::from_millis(100);
/// How long the worker does not try again after pauses that gained too little: this at first, and twice as long each time, up to
/// [`REST_MAX`].
const REST: Duration = Duration::from_millis(20);
const REST_MAX: Duration = Duration::from_millis(640);

/// Decides on the pauses of one worker.
#[derive(Debug)]
pub(crate) struct Coalescer {
    /// The least time from one wake-up to the next while pausing is on. Zero: never on.
    pause: Duration,
    woke: Instant,
    phase: Phase,
    /// Wake-ups of this phase, and the bytes that they brought.
    wakeups: u32,
    bytes: usize,
    /// The bytes of [`MEASURED`] wake-ups without pauses.
    alone: usize,
    /// The next rest.
    rest: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No pauses: counts what wake-ups bring that come soon after each other.
    Measuring,
    /// Pauses, to see what they bring.
    Trying,
    /// Pauses, until it measures again at this time.
    Gathering(Instant),
    /// No pauses before this time.
    Resting(Instant),
}

impl Coalescer {
    pub(crate) fn new(pause: Duration, now: Instant) -> Self {
        Self { pause, woke: now, phase: Phase::Measuring, wakeups: 0, bytes: 0, alone: 0, rest: REST }
    }

    /// Whether [`Self::pause`] may be other than zero. Unlike that, this check does not need the time.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        matches!(self.phase, Phase::Trying | Phase::Gathering(_))
    }

    /// How long to sleep at `now`, at the end of a turn.
    #[inline]
    pub(crate) fn pause(&self, now: Instant) -> Option<Duration> {
        let spent = now.since(self.woke);
        (self.is_on() && spent < self.pause).then(|| self.pause - spent)
    }

    /// Notes that the worker woke at `woke`, and how many bytes it found.
    #[inline]
    pub(crate) fn note(&mut self, woke: Instant, bytes: usize) {
        let soon = woke.since(self.woke) < self.pause * SOON;
        self.woke = woke;
        match self.phase {
            Phase::Resting(until) | Phase::Gathering(until) if woke >= until => self.enter(Phase::Measuring),
            Phase::Resting(_) => {}
            _ if !soon => self.enter(Phase::Measuring),
            Phase::Gathering(_) => {}
            Phase::Measuring => {
                if self.count(bytes) == MEASURED {
                    self.alone = self.bytes;
                    self.enter(Phase::Trying);
                }
            }
            Phase::Trying => {
                if self.count(bytes) == TRIED {
                    self.judge(woke);
                }
            }
        }
    }

    /// Counts a wake-up of this phase. Returns how many there were.
    #[inline]
    fn count(&mut self, bytes: usize) -> u32 {
        self.bytes += bytes;
        self.wakeups += 1;
        self.wakeups
    }

    /// Compares what wake-ups have brought with and without pauses.
    fn judge(&mut self, now: Instant) {
        let gains = self.bytes * MEASURED as usize >= GAIN * self.alone * TRIED as usize;
        if gains {
            self.rest = REST;
            self.enter(Phase::Gathering(now + TERM));
        } else {
            self.enter(Phase::Resting(now + self.rest));
            self.rest = (self.rest * 2).min(REST_MAX);
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.wakeups, self.bytes) = (phase, 0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_micros(100);
    const PACKET: usize = 1437;

    /// A worker that is sent packets. Its turns take no time.
    struct Rig {
        coalescer: Coalescer,
        now: Instant,
        wakeups: u32,
        waited: Duration,
    }

    impl Rig {
        fn new(pause: Duration) -> Self {
            let now = Instant::from_nanos(1_000_000_000);
            Self { coalescer: Coalescer::new(pause, now), now, wakeups: 0, waited: Duration::ZERO }
        }

        /// Packets arrive at these microseconds from now. Those that arrive during a pause are found together.
        fn arrive(&mut self, micros: impl IntoIterator<Item = u64>) {
            let start = self.now;
            let mut arrivals =
                micros.into_iter().map(|micros| start + Duration::from_micros(micros)).peekable();
            while let Some(first) = arrivals.next() {
                let awake = self.now + self.coalescer.pause(self.now).unwrap_or_default();
                self.now = first.max(awake);
                self.waited += self.now.since(first);
                let mut bytes = PACKET;
                while let Some(arrival) = arrivals.next_if(|arrival| *arrival <= self.now) {
                    self.waited += self.now.since(arrival);
                    bytes += PACKET;
                }
                self.coalescer.note(self.now, bytes);
                self.wakeups += 1;
            }
        }
    }

    /// A packet each so many microseconds.
    fn evenly(count: u64, micros: u64) -> impl Iterator<Item = u64> {
        (1..=count).map(move |number| number * micros)
    }

    #[test]
    fn a_packet_through_a_relay_at_rest_never_waits() {
        let mut rig = Rig::new(PAUSE);
        rig.arrive(evenly(10_000, 1000));
        // Even a few wake-ups together do not make the worker busy.
        rig.arrive(evenly(u64::from(MEASURED) - 1, 10));
        assert_eq!(rig.waited, Duration::ZERO);
    }

    #[test]
    fn packets_that_are_evenly_spaced_are_found_together() {
        let mut rig = Rig::new(PAUSE);
        rig.arrive(evenly(100_000, 20));
        assert!(rig.wakeups < 100_000 / 4, "{} wake-ups for 100,000 packets", rig.wakeups);
        assert!(rig.coalescer.is_on());
    }

    /// As from a sender with a clock that ticks each millisecond: the relay finds each burst as a whole in any case.
    #[test]
    fn bursts_wait_for_a_small_part_of_the_time() {
        let mut rig = Rig::new(PAUSE);
        rig.arrive((1..=100_000_u64).map(|number| number / 8 * 80));
        let mean = rig.waited / 100_000;
        assert!(mean < PAUSE / 20, "{mean:?} a packet");
    }

    #[test]
    fn peers_that_answer_each_other_wait_for_a_small_part_of_the_time() {
        let mut rig = Rig::new(PAUSE);
        let start = rig.now;
        for _ in 0..10_000 {
            rig.arrive([60]);
        }
        assert!(rig.waited > Duration::ZERO, "it does try");
        let part = rig.waited.as_secs_f64() / rig.now.since(start).as_secs_f64();
        assert!(part < 0.01, "{part}");
    }

    #[test]
    fn a_turn_that_took_as_long_as_the_pause_is_followed_by_none() {
        let mut rig = Rig::new(PAUSE);
        rig.arrive(evenly(1000, 10));
        assert!(rig.coalescer.is_on());
        assert_eq!(rig.coalescer.pause(rig.now + PAUSE / 4), Some(PAUSE * 3 / 4));
        assert_eq!(rig.coalescer.pause(rig.now + PAUSE), None);
    }

    #[test]
    fn when_traffic_ends_the_next_packet_does_not_wait() {
        let mut rig = Rig::new(PAUSE);
        rig.arrive(evenly(1000, 10));
        assert!(rig.coalescer.is_on());
        rig.waited = Duration::ZERO;
        rig.arrive(evenly(3, 1000));
        assert_eq!(rig.waited, Duration::ZERO);
        assert!(!rig.coalescer.is_on());
    }

    /// What made pauses worth while has ended, without a break.
    #[test]
    fn it_measures_again() {
        let mut rig = Rig::new(PAUSE);
        rig.arrive(evenly(10_000, 10));
        assert!(rig.coalescer.is_on());
        rig.arrive(evenly(10_000, 60));
        assert!(!rig.coalescer.is_on());
        rig.arrive(evenly(100_000, 10));
        assert!(rig.coalescer.is_on(), "and a rest ends");
    }

    #[test]
    fn without_a_pause_it_is_never_on() {
        let mut rig = Rig::new(Duration::ZERO);
        rig.arrive(evenly(10_000, 1));
        assert_eq!(rig.waited, Duration::ZERO);
        assert!(!rig.coalescer.is_on());
    }
}
