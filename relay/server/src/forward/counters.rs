//! What a worker counts: plain numbers in the worker, published once a turn for whoever scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

use towpath_relay_proto::outbox::{DropReason, DropSink, Hop};
use towpath_relay_proto::session::{Close, PacketKind};

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

    fn numbers(&mut self) -> [&mut u64; 2] {
        [&mut self.packets, &mut self.bytes]
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

/// The numbers of one worker, or the sums over all: those that nearly every turn changes, and the others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: [Traffic; KINDS],
    /// From other relays.
    pub(crate) forwarded_in: Traffic,
    /// Handed to links, those included that were dropped there later.
    pub(crate) handed_to_links: Traffic,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) polls: u64,
    rare: Rare,
    /// Whether [`Self::rare`] has changed since it was published.
    is_rare_due: bool,
}

/// The numbers that most turns leave as they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rare {
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
    pub(crate) pauses: u64,
}

/// How many numbers there are in a [`Tally`] beside the [`Rare`] ones.
const OFTEN: usize = 2 * KINDS + 7;
/// How many numbers a [`Rare`] has.
const RARE: usize = 2 * KINDS * DropReason::ALL.len() + 2 + Close::ALL.len() + 9;

impl Rare {
    fn numbers(&mut self) -> impl Iterator<Item = &mut u64> {
        let dropped = self.dropped.iter_mut().flatten().chain([&mut self.dropped_on_links]);
        let others = [
            &mut self.pings,
            &mut self.pongs,
            &mut self.gone_disconnected,
            &mut self.gone_not_here,
            &mut self.control_dropped,
            &mut self.unknown_frames,
            &mut self.keepalives,
            &mut self.unfounded_gone,
            &mut self.pauses,
        ];
        dropped.flat_map(Traffic::numbers).chain(&mut self.closed).chain(others)
    }
}

impl Tally {
    fn numbers(&mut self) -> [&mut u64; OFTEN] {
        let [disco, other] = &mut self.received;
        let [[a, b], [c, d], [e, f], [g, h]] =
            [disco, other, &mut self.forwarded_in, &mut self.handed_to_links].map(Traffic::numbers);
        [a, b, c, d, e, f, g, h, &mut self.reads, &mut self.writes, &mut self.polls]
    }

    /// The numbers that most turns leave as they are, to read.
    pub(crate) fn rare(&self) -> &Rare {
        &self.rare
    }

    /// The same, to change.
    pub(crate) fn rare_mut(&mut self) -> &mut Rare {
        self.is_rare_due = true;
        &mut self.rare
    }

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
        self.rare_mut().closed[reason.index()] += 1;
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
        self.rare.dropped.iter().flatten().for_each(|&each| dropped.merge(each));
        came.less(self.handed_to_links).less(dropped.less(self.rare.dropped_on_links))
    }

    /// Packets that were handed to links and not dropped there.
    pub(crate) fn forwarded_out(&self) -> Traffic {
        self.handed_to_links.less(self.rare.dropped_on_links)
    }
}

impl DropSink for Tally {
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize) {
        let rare = self.rare_mut();
        rare.dropped[reason.index()][kind_index(kind)].add(bytes);
        if hop == Hop::Relay {
            rare.dropped_on_links.add(bytes);
        }
    }
}

/// The published numbers of one worker, on cache lines that no other worker writes to.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counters {
    often: [AtomicU64; OFTEN],
    rare: [AtomicU64; RARE],
}

impl Default for Counters {
    fn default() -> Self {
        Self { often: [const { AtomicU64::new(0) }; OFTEN], rare: [const { AtomicU64::new(0) }; RARE] }
    }
}

impl Counters {
    /// Publishes the worker's numbers. Only the worker calls it, so plain stores do.
    pub(crate) fn publish(&self, tally: &mut Tally) {
        for (cell, number) in self.often.iter().zip(tally.numbers()) {
            cell.store(*number, Ordering::Relaxed);
        }
        if std::mem::take(&mut tally.is_rare_due) {
            for (cell, number) in self.rare.iter().zip(tally.rare.numbers()) {
                cell.store(*number, Ordering::Relaxed);
            }
        }
    }

    /// Adds the published numbers to `sum`.
    pub(crate) fn add_to(&self, sum: &mut Tally) {
        let often = self.often.iter().zip(sum.numbers());
        often.for_each(|(cell, number)| *number += cell.load(Ordering::Relaxed));
        let rare = self.rare.iter().zip(sum.rare_mut().numbers());
        rare.for_each(|(cell, number)| *number += cell.load(Ordering::Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_numbers_add_up() {
        let mut tally = Tally { polls: 7, ..Tally::default() };
        tally.received(PacketKind::Disco, 100);
        tally.forwarded_in(10);
        tally.handed_to_link(60);
        tally.dropped(Hop::Client, DropReason::Gone, PacketKind::Other, 5);
        tally.dropped(Hop::Relay, DropReason::QueueAge, PacketKind::Other, 20);
        tally.closed(Close::Shutdown);
        let mut again = tally;
        let (first, second) = (Counters::default(), Counters::default());
        first.publish(&mut tally);
        second.publish(&mut again);
        let mut sum = Tally::default();
        first.add_to(&mut sum);
        second.add_to(&mut sum);
        let bytes =
            [sum.all_received(), sum.forwarded_in, sum.forwarded_out(), sum.sent()].map(|each| each.bytes);
        assert_eq!(bytes, [200, 20, 80, 90]);
        assert_eq!(sum.rare().dropped.iter().flatten().map(|each| each.packets).sum::<u64>(), 4);
        assert_eq!((sum.rare().closed.iter().sum::<u64>(), sum.polls), (2, 14));
        tally.rare_mut().pauses += 1;
        first.publish(&mut tally);
        let mut sum = Tally::default();
        first.add_to(&mut sum);
        assert_eq!((sum.rare().pauses, sum.polls), (1, 7));
    }

    #[test]
    fn every_number_has_a_cell() {
        assert_eq!(Rare::default().numbers().count(), RARE);
    }
}
