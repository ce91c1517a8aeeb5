//! How long an answer may take on a way over which data is sent, direct or to a relay, until the way is doubled and given up.

use std::time::Duration;

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
