//! What a worker counts: plain numbers in the worker, published once a turn for the scrapes of metrics.
//!
//! A counter is declared once, with the name under which it is exported and its meaning, in the group that says how
//! often it changes. Packets with their bytes, drops by reason and closes by reason are counted separately.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use towpath_relay_proto::outbox::{DropReason, DropSink, Hop};
use towpath_relay_proto::session::{Close, PacketKind};

/// Declares an enum of numbers, each with its exported name and its meaning.
macro_rules! numbers {
    ($($(#[$about:meta])* $group:ident { $($number:ident = $name:literal: $help:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $group { $(#[doc = $help] $number,)+ }

        impl $group {
            const ALL: &[Self] = &[$(Self::$number,)+];

            const fn sample(self, value: u64) -> PlaneSample {
                let (name, help) = match self { $(Self::$number => ($name, $help),)+ };
                PlaneSample { name, help, value }
            }
        }
    )+};
}

numbers! {
    /// Counters that nearly every turn changes.
    HotCount {
        Reads = "towpath_reads_total": "Reads from sockets of clients",
        Writes = "towpath_writes_total": "Writes to sockets of clients",
        Wakeups = "towpath_wakeups_total": "Times that a worker of the data plane woke up",
    }
    /// Counters that most turns leave as they are.
    ColdCount {
        Pings = "derp_got_ping": "Ping frames received",
        Pongs = "derp_sent_pong": "Pong frames sent",
        GoneDisconnected = "derp_peer_gone_disconnected_frames": "PeerGone frames to clients that heard from a key that left",
        GoneNotHere = "derp_peer_gone_not_here_frames":
            "PeerGone frames to senders of disco to a key that is not here",
        UnknownFrames = "derp_unknown_frames": "Frames of unknown types, which are skipped",
        UnfoundedGone = "derp_packet_forwarder_delete_other_value":
            "Keys that another relay took back without having announced them",
        ClosePeers = "towpath_close_peer_frames_total": "ClosePeer frames of other relays",
        Keepalives = "towpath_keepalives_total": "KeepAlive frames sent",
        ControlDropped = "towpath_control_frames_dropped_total":
            "Frames other than packets that found no room or a closed connection",
        SnapshotKeys = "towpath_snapshot_keys_total": "Keys that new watchers were told in their snapshots",
        ForgottenKeys = "towpath_forgotten_keys_total": "Keys of other relays that were forgotten with a broken link",
        Listed = "towpath_listed_connections_total": "Connections that operators were shown",
        Holds = "towpath_holds_total": "Times that a sender was held back for a moment because a destination was behind",
    }
    /// Levels that connections change as they come and go, whichever worker owns them.
    Level {
        Connections = "derp_current_connections": "Logged-in connections",
        Home = "derp_current_home_connections": "Connections that call this relay their home",
        NotIdeal = "derp_current_notideal_connections":
            "Connections that another relay of the region would suit better",
        KeysLocal = "derp_clients_local": "Distinct keys on this relay",
        KeysRemote = "derp_clients_remote": "Distinct keys that other relays of the region have and this one does not have",
        Watchers = "derp_watchers": "Connections that are told of keys that come and go",
        Links = "towpath_mesh_links": "Links that are up: the other relay announces its clients",
        FrameMemory = "towpath_frame_memory_bytes":
            "Memory of packets and other frames that wait or are unfinished, and of free buffers, at most `memory.max`",
        MostWork = "towpath_turn_work_max":
            "Most steps that one worker did in one turn: reads, writes, packets, pings, keys of snapshots and departures, \
             and connections that are listed",
        SharedKeys = "derp_current_dup_client_keys": "Keys with more than one connection",
        SharedConnections = "derp_current_dup_client_conns": "Connections of keys with more than one connection",
    }
    /// Events that are counted as connections come and go, whichever worker owns them.
    Event {
        SharedConnection = "derp_total_dup_client_conns": "Connections that came while their key had one",
        ContestedKey = "towpath_contested_keys_total":
            "Times that two clients were found to use one key, and were told so",
        SecondForwarder = "derp_multiforwarder_created": "Times that a key of one relay came to be on a second one",
        LastForwarder = "derp_multiforwarder_deleted": "Times that a key of several relays came to be on one again",
    }
}

/// A number as it is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaneSample {
    /// The name of the metric.
    pub name: &'static str,
    /// What it means.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

/// The number of kinds of packets, which arrays by kind have as their length.
const KINDS: usize = PacketKind::ALL.len();

/// Packets and their bytes, keys and headers not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// The bytes of those packets.
    pub bytes: u64,
}

impl Traffic {
    const CELLS: usize = 2;

    #[inline]
    pub(crate) const fn add(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }

    fn cells(&mut self) -> [&mut u64; Self::CELLS] {
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

/// The numbers of one worker, or the sums over all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    hot: HotNumbers,
    cold: ColdNumbers,
    /// Whether `cold` has changed since it was published.
    is_cold_due: bool,
    /// The sum of all that was ever added to the counts in `cold`.
    cold_work: u64,
}

/// The numbers that nearly every turn changes: traffic, and then counts. One array, because it is published in every
/// turn.
#[derive(Clone, Copy, Debug, Default)]
struct HotNumbers([u64; Self::CELLS]);

/// Traffic that nearly every turn changes.
#[derive(Clone, Copy, Debug)]
enum HotTraffic {
    Received(PacketKind),
    /// From other relays.
    ForwardedIn,
    /// Handed to links, including packets that were dropped there later.
    HandedToLinks,
}

/// The numbers that most turns leave as they are.
#[derive(Clone, Copy, Debug, Default)]
struct ColdNumbers {
    dropped: [[Traffic; KINDS]; DropReason::ALL.len()],
    /// Packets that were handed to links and dropped there.
    dropped_on_links: Traffic,
    closed: [u64; Close::ALL.len()],
    counts: [u64; ColdCount::ALL.len()],
}

impl HotTraffic {
    const COUNT: usize = KINDS + 2;

    const fn index(self) -> usize {
        match self {
            Self::Received(kind) => kind.index(),
            Self::ForwardedIn => KINDS,
            Self::HandedToLinks => KINDS + 1,
        }
    }
}

impl HotNumbers {
    const TRAFFIC_CELLS: usize = HotTraffic::COUNT * Traffic::CELLS;
    const CELLS: usize = Self::TRAFFIC_CELLS + HotCount::ALL.len();

    #[inline]
    fn add(&mut self, traffic: HotTraffic, bytes: usize) {
        let at = traffic.index() * Traffic::CELLS;
        self.0[at] += 1;
        self.0[at + 1] += bytes as u64;
    }

    const fn traffic(&self, traffic: HotTraffic) -> Traffic {
        let at = traffic.index() * Traffic::CELLS;
        Traffic { packets: self.0[at], bytes: self.0[at + 1] }
    }

    const fn count(&self, count: HotCount) -> u64 {
        self.0[Self::TRAFFIC_CELLS + count as usize]
    }

    #[inline]
    const fn count_mut(&mut self, count: HotCount) -> &mut u64 {
        &mut self.0[Self::TRAFFIC_CELLS + count as usize]
    }
}

impl ColdNumbers {
    const CELLS: usize =
        (KINDS * DropReason::ALL.len() + 1) * Traffic::CELLS + Close::ALL.len() + ColdCount::ALL.len();

    fn cells(&mut self) -> impl Iterator<Item = &mut u64> {
        let dropped = self.dropped.iter_mut().flatten().chain([&mut self.dropped_on_links]);
        dropped.flat_map(Traffic::cells).chain(&mut self.closed).chain(&mut self.counts)
    }
}

impl Tally {
    #[inline]
    pub(crate) fn add(&mut self, count: HotCount) {
        *self.hot.count_mut(count) += 1;
    }

    /// Everything that was counted and takes time, in steps of some hundred nanoseconds.
    #[inline]
    pub(crate) fn work(&self) -> u64 {
        let [disco, other] = PacketKind::ALL.map(|kind| self.hot.traffic(HotTraffic::Received(kind)).packets);
        let forwarded = self.hot.traffic(HotTraffic::ForwardedIn).packets;
        let counts = self.hot.count(HotCount::Reads) + self.hot.count(HotCount::Writes);
        disco + other + forwarded + counts + self.cold_work
    }

    pub(crate) fn set(&mut self, count: HotCount, value: u64) {
        *self.hot.count_mut(count) = value;
    }

    pub(crate) fn add_cold(&mut self, count: ColdCount, many: u64) {
        self.is_cold_due = true;
        self.cold.counts[count as usize] += many;
        self.cold_work += many;
    }

    #[cfg(test)]
    pub(crate) fn cold(&self, count: ColdCount) -> u64 {
        self.cold.counts[count as usize]
    }

    #[cfg(test)]
    pub(crate) fn closed_for(&self, reason: Close) -> u64 {
        self.cold.closed[reason.index()]
    }

    #[inline]
    pub(crate) fn received(&mut self, kind: PacketKind, bytes: usize) {
        self.hot.add(HotTraffic::Received(kind), bytes);
    }

    pub(crate) fn forwarded_in(&mut self, bytes: usize) {
        self.hot.add(HotTraffic::ForwardedIn, bytes);
    }

    pub(crate) fn handed_to_link(&mut self, bytes: usize) {
        self.hot.add(HotTraffic::HandedToLinks, bytes);
    }

    pub(crate) fn closed(&mut self, reason: Close) {
        self.is_cold_due = true;
        self.cold.closed[reason.index()] += 1;
    }

    /// All packets that were dropped.
    pub(crate) fn all_dropped(&self) -> Traffic {
        sum(self.cold.dropped.iter().flatten())
    }
}

fn sum<'a>(parts: impl IntoIterator<Item = &'a Traffic>) -> Traffic {
    let mut whole = Traffic::default();
    parts.into_iter().for_each(|&part| whole.merge(part));
    whole
}

impl DropSink for Tally {
    fn dropped(&mut self, hop: Hop, reason: DropReason, kind: PacketKind, bytes: usize) {
        self.is_cold_due = true;
        self.cold.dropped[reason.index()][kind.index()].add(bytes);
        if hop == Hop::Relay {
            self.cold.dropped_on_links.add(bytes);
        }
    }
}

/// The published numbers of one worker, on cache lines that no other worker writes to.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerCounters {
    hot: [AtomicU64; HotNumbers::CELLS],
    cold: [AtomicU64; ColdNumbers::CELLS],
}

impl Default for WorkerCounters {
    fn default() -> Self {
        Self {
            hot: [const { AtomicU64::new(0) }; HotNumbers::CELLS],
            cold: [const { AtomicU64::new(0) }; ColdNumbers::CELLS],
        }
    }
}

impl WorkerCounters {
    /// Publishes the worker's numbers. Only the worker calls it, so plain stores do.
    pub(crate) fn publish(&self, tally: &mut Tally) {
        for (cell, number) in self.hot.iter().zip(tally.hot.0) {
            cell.store(number, Ordering::Relaxed);
        }
        if std::mem::take(&mut tally.is_cold_due) {
            for (cell, number) in self.cold.iter().zip(tally.cold.cells()) {
                cell.store(*number, Ordering::Relaxed);
            }
        }
    }

    fn add_to(&self, sum: &mut Tally) {
        let hot = self.hot.iter().zip(&mut sum.hot.0);
        hot.for_each(|(cell, number)| *number += cell.load(Ordering::Relaxed));
        let cold = self.cold.iter().zip(sum.cold.cells());
        cold.for_each(|(cell, number)| *number += cell.load(Ordering::Relaxed));
    }
}

/// What is counted as connections come and go, by all workers together.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    levels: [AtomicI64; Level::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
}

impl Gauges {
    pub(crate) fn change(&self, level: Level, by: i64) {
        self.levels[level as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// Raises a level that is a maximum.
    pub(crate) fn raise(&self, level: Level, to: u64) {
        self.levels[level as usize].fetch_max(to as i64, Ordering::Relaxed);
    }

    pub(crate) fn note(&self, event: Event) {
        self.events[event as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Reads a level. A level that is read between the two halves of a change may be off by one, and is never below
    /// zero.
    pub(crate) fn level(&self, level: Level) -> u64 {
        u64::try_from(self.levels[level as usize].load(Ordering::Relaxed)).unwrap_or(0)
    }
}

/// The numbers of the data plane at one moment.
#[derive(Clone, Debug)]
pub struct PlaneStats {
    tally: Tally,
    gauges: Vec<PlaneSample>,
    events: Vec<PlaneSample>,
}

impl PlaneStats {
    pub(crate) fn of(workers: &[std::sync::Arc<WorkerCounters>], gauges: &Gauges) -> Self {
        let mut tally = Tally::default();
        workers.iter().for_each(|worker| worker.add_to(&mut tally));
        let events = Event::ALL.iter().zip(&gauges.events);
        Self {
            tally,
            gauges: Level::ALL.iter().map(|level| level.sample(gauges.level(*level))).collect(),
            events: events.map(|(event, cell)| event.sample(cell.load(Ordering::Relaxed))).collect(),
        }
    }

    /// Every number that only grows and has no labels.
    pub fn counters(&self) -> impl Iterator<Item = PlaneSample> {
        let hot = HotCount::ALL.iter().map(|&count| count.sample(self.tally.hot.count(count)));
        let cold =
            ColdCount::ALL.iter().zip(self.tally.cold.counts).map(|(count, value)| count.sample(value));
        hot.chain(cold).chain(self.events.iter().copied())
    }

    /// Every number that grows and shrinks.
    pub fn gauges(&self) -> impl Iterator<Item = PlaneSample> {
        self.gauges.iter().copied()
    }

    /// The number of connections.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.gauges[Level::Connections as usize].value
    }

    /// The number of distinct keys in the region, as far as this relay knows.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.gauges[Level::KeysLocal as usize].value + self.gauges[Level::KeysRemote as usize].value
    }

    /// Packets of a kind from clients.
    #[must_use]
    pub const fn received(&self, kind: PacketKind) -> Traffic {
        self.tally.hot.traffic(HotTraffic::Received(kind))
    }

    /// All packets from clients.
    #[must_use]
    pub fn all_received(&self) -> Traffic {
        sum(&PacketKind::ALL.map(|kind| self.received(kind)))
    }

    /// Packets from other relays.
    #[must_use]
    pub const fn forwarded_in(&self) -> Traffic {
        self.tally.hot.traffic(HotTraffic::ForwardedIn)
    }

    const fn handed_to_links(&self) -> Traffic {
        self.tally.hot.traffic(HotTraffic::HandedToLinks)
    }

    /// Packets that were handed to links and not dropped there.
    #[must_use]
    pub fn forwarded_out(&self) -> Traffic {
        self.handed_to_links().less(self.tally.cold.dropped_on_links)
    }

    /// Packets for clients that were received or forwarded here and neither handed to a link nor dropped.
    #[must_use]
    pub fn sent(&self) -> Traffic {
        let mut came = self.all_received();
        came.merge(self.forwarded_in());
        let dropped_here = self.tally.all_dropped().less(self.tally.cold.dropped_on_links);
        came.less(self.handed_to_links()).less(dropped_here)
    }

    /// Packets of a kind that were dropped for a reason.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason, kind: PacketKind) -> Traffic {
        self.tally.cold.dropped[reason.index()][kind.index()]
    }

    /// Connections that were closed for a reason.
    #[must_use]
    pub const fn closed(&self, reason: Close) -> u64 {
        self.tally.cold.closed[reason.index()]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn published_numbers_add_up() {
        let mut tally = Tally::default();
        tally.set(HotCount::Wakeups, 7);
        tally.received(PacketKind::Disco, 100);
        tally.forwarded_in(10);
        tally.handed_to_link(60);
        tally.dropped(Hop::Client, DropReason::Gone, PacketKind::Other, 5);
        tally.dropped(Hop::Relay, DropReason::QueueAge, PacketKind::Other, 20);
        tally.closed(Close::Shutdown);
        let mut again = tally;
        let workers = [Arc::new(WorkerCounters::default()), Arc::new(WorkerCounters::default())];
        workers[0].publish(&mut tally);
        workers[1].publish(&mut again);
        let sum = PlaneStats::of(&workers, &Gauges::default());
        let bytes = [sum.all_received(), sum.forwarded_in(), sum.forwarded_out(), sum.sent()]
            .map(|traffic| traffic.bytes);
        assert_eq!(bytes, [200, 20, 80, 90]);
        assert_eq!(sum.tally.all_dropped().packets, 4);
        assert_eq!((sum.closed(Close::Shutdown), sum.tally.hot.count(HotCount::Wakeups)), (2, 14));
        tally.add_cold(ColdCount::Holds, 1);
        workers[0].publish(&mut tally);
        let sum = PlaneStats::of(&workers[..1], &Gauges::default());
        assert_eq!((sum.tally.cold(ColdCount::Holds), sum.tally.hot.count(HotCount::Wakeups)), (1, 7));
    }

    #[test]
    fn every_number_has_a_cell() {
        assert_eq!(ColdNumbers::default().cells().count(), ColdNumbers::CELLS);
    }
}
