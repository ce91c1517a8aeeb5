//! What an endpoint has sent, received and lost.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Datagrams of the application that the system refused to send.
    pub send_refused: u64,
    /// Datagrams that it refused because they are longer than the path takes.
    pub too_long: u64,
    /// Packets of disco that the system refused to send, or that a relay took too slowly.
    pub disco_lost: u64,
    /// Packets for peers to which no way was known.
    pub unroutable: u64,
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
    pub(crate) send_refused: AtomicU64,
    pub(crate) too_long: AtomicU64,
    pub(crate) disco_lost: AtomicU64,
    pub(crate) unroutable: AtomicU64,
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
            send_refused: load(&self.send_refused),
            too_long: load(&self.too_long),
            disco_lost: load(&self.disco_lost),
            unroutable: load(&self.unroutable),
        }
    }
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, count: usize) {
    if count > 0 {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}
