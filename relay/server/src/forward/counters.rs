//! What a worker counts: plain numbers in the worker, published once a turn for whoever scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

use relay_proto::outbox::{DropReason, DropSink, Hop};
use relay_proto::session::{Close, PacketKind};

const KINDS: usize = 2;

/// The index of a kind in arrays by kind: disco, other.
pub(crate) const fn kind_index(kind: PacketKind) -> usize {
    match kind {
        PacketKind::Disco => 0,
        PacketKind::Other => 1,
    }
}

/// Packets and their bytes, keys and headers not counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Traffic {
    fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    fn merge(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }

    fn less(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(other.packets),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The numbers of one worker, or the sums over all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: [Traffic; KINDS],
    /// From other relays.
    pub(crate) forwarded_in: Traffic,
    /// Handed to links, those included that were dropped there later.
    pub(crate) handed_to_links: Traffic,
    pub(crate) dropped: [[Traffic; KINDS]; DropReason::ALL.len()],
    /// Those of them that were dropped on links.
    pub(crate) dropped_on_links: Traffic,
    pub(crate) closed: [u64; Close::ALL.len()],
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    pub(crate) gone_disconnected: u64,
    pub(crate) gone_not_here: u64,
    pub(crate) control_dropped: u64,
    pub(crate) unknown_frames: u64,
    pub(crate) keepalives: u64,
    /// Announcements that were taken back without having been made.
    pub(crate) unfounded_gone: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) polls: u64,
    pub(crate) pauses: u64,
}

macro_rules! each_number {
    ($tally:ident, $number:ident => $do:expr) => {{
        for traffic in $tally.received.iter_mut().chain($tally.dropped.iter_mut().flatten()) {
            for $number in [&mut traffic.packets, &mut traffic.bytes] {
                $do;
            }
        }
        for $number in &mut $tally.closed {
            $do;
        }
        for $number in [
            &mut $tally.pings,
            &mut $tally.pongs,
            &mut $tally.gone_disconnected,
            &mut $tally.gone_not_here,
            &mut $tally.control_dropped,
            &mut $tally.unknown_frames,
            &mut $tally.keepalives,
            &mut $tally.forwarded_in.packets,
            &mut $tally.forwarded_in.bytes,
            &mut $tally.handed_to_links.packets,
            &mut $tally.handed_to_links.bytes,
            &mut $tally.dropped_on_links.packets,
            &mut $tally.dropped_on_links.bytes,
            &mut $tally.unfounded_gone,
            &mut $tally.reads,
            &mut $tally.writes,
            &mut $tally.polls,
            &mut $tally.pauses,
        ] {
            $do;
        }
    }};
}

/// How many numbers a [`Tally`] has.
const NUMBERS: usize = 2 * KINDS * (1 + DropReason::ALL.len()) + Close::ALL.len() + 18;

impl Tally {
    #[inline]
    pub(crate) fn received(&mut self, kind: PacketKind, bytes: usize) {
        self.received[kind_index(kind)].add(bytes);
    }

    pub(crate) fn forwarded_in(&mut self, bytes: usize) {
        self.forwarded_in.add(bytes);
    }

    pub(crate) fn handed_to_link(&mut self, bytes: usize) {
        self.handed_to_links.add(bytes);
    }

    pub(crate) fn closed(&mut self, reason: Close) {
        let index = Close::ALL.iter().position(|&each| each == reason).expect("all reasons are in ALL");
        self.closed[index] += 1;
    }

    /// All packets from clients.
    pub(crate) fn all_received(&self) -> Traffic {
        let mut received = Traffic::default();
        self.received.iter().for_each(|&each| received.merge(each));
        received
    }

    /// Packets for clients that came from anybody and were neither handed on nor dropped.
    pub(crate) fn sent(&self) -> Traffic {
        let mut came = self.all_received();
        came.merge(self.forwarded_in);
        let mut dropped = Traffic::default();
        self.dropped.iter().flatten().for_each(|&each| dropped.merge(each));
        came.less(self.handed_to_links).less(dropped.less(self.dropped_on_links))
    }

    /// Packets that were handed to links and not dropped there.
    pub(crate) fn forwarded_out(&self) -> Traffic {
        self.handed_to_links.less(self.dropped_on_links)
    }
}

impl DropSink for Tally {
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize) {
        let index = DropReason::ALL.iter().position(|&each| each == reason).expect("all reasons are in ALL");
        self.dropped[index][kind_index(kind)].add(bytes);
        if hop == Hop::Relay {
            self.dropped_on_links.add(bytes);
        }
    }
}

/// The published numbers of one worker, on cache lines that no other worker writes to.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counters([AtomicU64; NUMBERS]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; NUMBERS])
    }
}

impl Counters {
    /// Publishes the worker's numbers. Only the worker calls it, so plain stores do.
    pub(crate) fn publish(&self, tally: &mut Tally) {
        let mut cells = self.0.iter();
        each_number!(tally, number => {
            let cell = cells.next().expect("NUMBERS is how many there are");
            cell.store(*number, Ordering::Relaxed);
        });
    }

    /// Adds the published numbers to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Tally) {
        let mut cells = self.0.iter();
        each_number!(sum, number => {
            let cell = cells.next().expect("NUMBERS is how many there are");
            *number += cell.load(Ordering::Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_numbers_add_up() {
        let mut tally = Tally { pauses: 7, ..Tally::default() };
        tally.received(PacketKind::Disco, 100);
        tally.forwarded_in(10);
        tally.handed_to_link(60);
        tally.dropped(Hop::Client, DropReason::Gone, PacketKind::Other, 5);
        tally.dropped(Hop::Relay, DropReason::QueueAge, PacketKind::Other, 20);
        tally.closed(Close::Shutdown);
        let (first, second) = (Counters::default(), Counters::default());
        first.publish(&mut tally);
        second.publish(&mut tally);
        let mut sum = Tally::default();
        first.add_to(&mut sum);
        second.add_to(&mut sum);
        let bytes =
            [sum.all_received(), sum.forwarded_in, sum.forwarded_out(), sum.sent()].map(|each| each.bytes);
        assert_eq!(bytes, [200, 20, 80, 90]);
        assert_eq!(sum.dropped.iter().flatten().map(|each| each.packets).sum::<u64>(), 4);
        assert_eq!((sum.closed.iter().sum::<u64>(), sum.pauses), (2, 14));
    }
}
