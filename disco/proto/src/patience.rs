//! How long an answer may take on a way over which data is sent, direct or to a relay, until the way is doubled and given up; and how
//! long what comes may stay away until a node that only receives asks why.

use std::time::Duration;

use towpath_wire::time::Instant;

/// The round trip to a relay of which none is known.
pub(crate) const TYPICAL_RTT: Duration = Duration::from_millis(100);
/// Probes in the time of the patience, so that one that is lost is not the end of the way.
pub(crate) const PROBES: u32 = 4;
/// How long a silent way may be without an answer until it is given up.
pub(crate) const GIVE_UP: Duration = Duration::from_secs(3);
/// The least patience, and the round trips that it has besides.
const LEAST: Duration = Duration::from_millis(250);
const ROUND_TRIPS: u32 = 3;

/// How long an answer may take on a way with this round trip.
pub(crate) fn patience(rtt: Duration) -> Duration {
    (rtt * ROUND_TRIPS).max(LEAST)
}

/// The time between two probes while data is sent and nothing comes.
pub(crate) fn probe_interval(rtt: Duration) -> Duration {
    patience(rtt) / PROBES
}

/// How long after a probe that is not answered the way is silent: earlier than the patience by one interval, in which data may have
/// been sent before the probe.
pub(crate) fn silent_after(rtt: Duration) -> Duration {
    patience(rtt) - probe_interval(rtt)
}

/// What comes further apart than this is not missed.
const SPARSE: Duration = Duration::from_secs(5);

/// What comes again and again by a way, as data and the probes of a peer do, and when it is missed: it has ended, or the way has
/// become a hole.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulse {
    last: Instant,
    /// The time between the last two; `None` once they have been missed, until more come.
    gap: Option<Duration>,
}

impl Pulse {
    /// What may come again and again from now on.
    pub(crate) const fn since(now: Instant) -> Self {
        Self { last: now, gap: None }
    }

    /// When something came last.
    pub(crate) const fn last(&self) -> Instant {
        self.last
    }

    /// Notes that something has come.
    pub(crate) fn beat(&mut self, now: Instant) {
        self.gap = Some(now.since(self.last)).filter(|gap| *gap <= SPARSE);
        self.last = now;
    }

    /// When it is missed on a way with this round trip: two probes are late, or it takes twice as long as the last time.
    pub(crate) fn missed_at(&self, rtt: Duration) -> Option<Instant> {
        Some(self.last + (self.gap? * 2).max(probe_interval(rtt) * 5 / 2))
    }

    /// Notes that it is missed.
    pub(crate) const fn miss(&mut self) {
        self.gap = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from(Duration::from_millis(millis))
    }

    #[test]
    fn what_comes_again_and_again_is_missed_once_and_sooner_the_more_often_it_comes() {
        let rtt = Duration::from_millis(40);
        for (gap, missed) in
            [(1, Some(156)), (78, Some(156)), (100, Some(200)), (5000, Some(10_000)), (5001, None)]
        {
            let mut pulse = Pulse::default();
            assert_eq!(pulse.missed_at(rtt), None);
            pulse.beat(at(60_000));
            assert_eq!(pulse.missed_at(rtt), None, "one says nothing of the next");
            pulse.beat(at(60_000 + gap));
            let expected = missed.map(|after| 60_000 + gap + after);
            assert_eq!(
                pulse.missed_at(rtt).map(|at| at.since(Instant::ZERO).as_millis() as u64),
                expected,
                "{gap} ms"
            );
            pulse.miss();
            assert_eq!(pulse.missed_at(rtt), None);
        }
        let mut far = Pulse::default();
        [1000, 1010].into_iter().for_each(|millis| far.beat(at(millis)));
        assert_eq!(far.missed_at(Duration::from_millis(120)), Some(at(1010 + 225)));
    }
}
