//! What a worker counts: plain numbers in the worker, published once a turn for whoever scrapes.

use std::sync::atomic::{AtomicU64, Ordering};

use relay_proto::outbox::{DropReason, DropSink};
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
}

/// The numbers of one worker, or the sums over all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: [Traffic; KINDS],
    pub(crate) dropped: [[Traffic; KINDS]; DropReason::ALL.len()],
    pub(crate) closed: [u64; Close::ALL.len()],
    pub(crate) pings: u64,
    pub(crate) pongs: u64,
    pub(crate) gone_disconnected: u64,
    pub(crate) gone_not_here: u64,
    pub(crate) control_dropped: u64,
    pub(crate) unknown_frames: u64,
    pub(crate) keepalives: u64,
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
const NUMBERS: usize = 2 * KINDS * (1 + DropReason::ALL.len()) + Close::ALL.len() + 11;

impl Tally {
    #[inline]
    pub(crate) fn received(&mut self, kind: PacketKind, bytes: usize) {
        self.received[kind_index(kind)].add(bytes);
    }

    pub(crate) fn closed(&mut self, reason: Close) {
        let index = Close::ALL.iter().position(|&each| each == reason).expect("all reasons are in ALL");
        self.closed[index] += 1;
    }

    /// All packets that were received, and all that were dropped.
    pub(crate) fn totals(&self) -> (Traffic, Traffic) {
        let (mut received, mut dropped) = (Traffic::default(), Traffic::default());
        self.received.iter().for_each(|&each| received.merge(each));
        self.dropped.iter().flatten().for_each(|&each| dropped.merge(each));
        (received, dropped)
    }
}

impl DropSink for Tally {
    fn dropped(&mut self, reason: DropReason, kind: PacketKind, bytes: usize) {
        let index = DropReason::ALL.iter().position(|&each| each == reason).expect("all reasons are in ALL");
        self.dropped[index][kind_index(kind)].add(bytes);
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
        tally.dropped(DropReason::Gone, PacketKind::Other, 50);
        tally.closed(Close::Shutdown);
        let (first, second) = (Counters::default(), Counters::default());
        first.publish(&mut tally);
        second.publish(&mut tally);
        let mut sum = Tally::default();
        first.add_to(&mut sum);
        second.add_to(&mut sum);
        let (received, dropped) = sum.totals();
        assert_eq!((received.packets, received.bytes), (2, 200));
        assert_eq!((dropped.packets, dropped.bytes), (2, 100));
        assert_eq!((sum.closed.iter().sum::<u64>(), sum.pauses), (2, 14));
    }
}
