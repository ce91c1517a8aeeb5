//! What an endpoint has sent, received and lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::path::PathClass;

/// Packets, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of the application, without headers.
    pub bytes: u64,
}

/// The bounds of [`TimeToDirect::counts`], in milliseconds.
pub const TIME_TO_DIRECT_BOUNDS: [u64; 9] = [50, 100, 150, 200, 300, 500, 1000, 3000, 10_000];

/// How long it has taken from the first packet that was wanted to go directly until the path was direct, over all peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TimeToDirect {
    /// How often it was within each of [`TIME_TO_DIRECT_BOUNDS`] and above the one before; the last count is of what took longer.
    pub counts: [u64; TIME_TO_DIRECT_BOUNDS.len() + 1],
    /// The sum of the times, in microseconds.
    pub sum_us: u64,
}

/// Counts of an endpoint since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Packets sent, by the class of the path, in the order of [`PathClass::ALL`]. One that goes by two ways counts for both.
    pub sent: [Traffic; 4],
    /// Packets received, by the class of the path.
    pub received: [Traffic; 4],
    /// Packets that were received and lost, because the application did not take them in time.
    pub inbox_dropped: u64,
    /// Packets for relays that newer ones made room for, because the relay took them too slowly or could not be reached.
    pub relay_dropped: u64,
    /// Copies of packets, for a relay while it is not certain that the direct path works, for which the relay had no room.
    pub copies_left_out: u64,
    /// Datagrams of the application that the system refused to send.
    pub send_refused: u64,
    /// Datagrams that it refused because they are longer than the path takes.
    pub too_long: u64,
    /// Packets of disco that the system refused to send, or that a relay took too slowly.
    pub disco_lost: u64,
    /// Packets for peers to which no way was known.
    pub unroutable: u64,
    /// How long it has taken to become direct.
    pub time_to_direct: TimeToDirect,
}

/// A pair of counters.
#[derive(Debug, Default)]
pub(crate) struct TrafficCounter {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl TrafficCounter {
    pub(crate) fn add(&self, packets: usize, bytes: usize) {
        self.packets.fetch_add(packets as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Traffic {
        Traffic { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    sent: [TrafficCounter; 4],
    received: [TrafficCounter; 4],
    pub(crate) inbox_dropped: AtomicU64,
    pub(crate) relay_dropped: AtomicU64,
    pub(crate) copies_left_out: AtomicU64,
    pub(crate) send_refused: AtomicU64,
    pub(crate) too_long: AtomicU64,
    pub(crate) disco_lost: AtomicU64,
    pub(crate) unroutable: AtomicU64,
    pub(crate) time_to_direct: Times,
}

/// The counters behind [`TimeToDirect`].
#[derive(Debug, Default)]
pub(crate) struct Times {
    counts: [AtomicU64; TIME_TO_DIRECT_BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Times {
    pub(crate) fn note(&self, took: Duration) {
        let at = TIME_TO_DIRECT_BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        self.counts[at.unwrap_or(TIME_TO_DIRECT_BOUNDS.len())].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn get(&self) -> TimeToDirect {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TimeToDirect { counts: std::array::from_fn(|at| load(&self.counts[at])), sum_us: load(&self.sum_us) }
    }
}

impl Counters {
    pub(crate) const fn sent(&self, class: PathClass) -> &TrafficCounter {
        &self.sent[class as usize]
    }

    pub(crate) const fn received(&self, class: PathClass) -> &TrafficCounter {
        &self.received[class as usize]
    }

    pub(crate) fn get(&self) -> Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            sent: PathClass::ALL.map(|class| self.sent(class).get()),
            received: PathClass::ALL.map(|class| self.received(class).get()),
            inbox_dropped: load(&self.inbox_dropped),
            relay_dropped: load(&self.relay_dropped),
            copies_left_out: load(&self.copies_left_out),
            send_refused: load(&self.send_refused),
            too_long: load(&self.too_long),
            disco_lost: load(&self.disco_lost),
            unroutable: load(&self.unroutable),
            time_to_direct: self.time_to_direct.get(),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    if count > 0 {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_within_the_bound_that_it_does_not_exceed() {
        let times = Times::default();
        for millis in [1, 50, 51, 130, 20_000] {
            times.note(Duration::from_millis(millis));
        }
        let TimeToDirect { counts, sum_us } = times.get();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum_us, 20_232_000);
    }
}
