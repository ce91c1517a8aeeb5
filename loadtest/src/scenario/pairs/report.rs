//! The report on a load of pairs.

use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::flow::arrivals::Arrivals;
use crate::flow::sequence::PacketDamage;
use crate::histogram::Quantiles;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Parameter, Row, ScenarioReport};

/// The report on a load of pairs. Its packets are those that were due in the measured time, unless a field says
/// otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PairsReport {
    /// Pairs of a sender and a receiver.
    pub pairs: u32,
    /// The length of the measured time in nanoseconds.
    pub measured: u64,
    /// Packets that were due.
    pub offered: u64,
    /// Packets that were written to a socket.
    pub sent: u64,
    /// Packets that arrived, at any time.
    pub received: u64,
    /// Packets that arrived in the measured time, whenever they were due.
    pub delivered: u64,
    /// The bytes of `delivered`.
    pub delivered_bytes: u64,
    /// Damage over the whole run.
    pub damage: PacketDamage,
    /// PeerGone frames over the whole run.
    pub peers_gone: u64,
    /// Windows that were reset because packets in them were lost.
    pub stalls: u64,
    /// The time from when a packet was due until it arrived. Of packets with a schedule, a lost one is infinitely late, which is
    /// an hour here.
    pub latency: Quantiles,
    /// The time from when a packet was due until it was written, if its socket had room.
    pub late: Quantiles,
    /// The usage of each sending process.
    pub sender_usage: Vec<ThreadUsage>,
    /// The usage of each receiving process.
    pub receiver_usage: Vec<ThreadUsage>,
    /// The usage of the relay.
    pub server: Option<ServerUsage>,
    /// Whether packets were sent when there was room for them, and not by a schedule.
    #[serde(default)]
    pub closed: bool,
    /// The arrival process of the packets, if they were sent by a schedule.
    #[serde(default)]
    pub arrivals: Option<Arrivals>,
    /// Why the load generator was the limit. With a schedule the figures then mean nothing; without one they are lower
    /// bounds.
    pub too_slow: Option<String>,
}

impl PairsReport {
    /// Packets that were written and never arrived.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// Packets delivered per second.
    pub(crate) fn delivered_per_second(&self) -> f64 {
        self.delivered as f64 * SECOND as f64 / self.measured as f64
    }

    /// The CPU time of the relay for a delivered packet, in nanoseconds.
    pub(crate) fn cpu_per_packet(&self) -> Option<f64> {
        let server = self.server.as_ref().filter(|_| self.delivered > 0)?;
        Some(server.cpu as f64 / self.delivered as f64)
    }

    /// A figure that means nothing if the load generator could not keep to its schedule.
    fn figure(&self, value: f64) -> Option<f64> {
        (!self.is_limited()).then_some(value)
    }

    fn rates(&self) -> Vec<Row> {
        let seconds = self.measured as f64 / SECOND as f64;
        let is_bound = self.closed && self.too_slow.is_some();
        let cpu = self.cpu_per_packet().and_then(|cpu| self.figure(cpu));
        let offered = self.figure(self.offered as f64 / seconds);
        let packets = self.figure(self.delivered_per_second());
        let bits = self.figure(self.delivered_bytes as f64 * 8.0 / seconds);
        vec![
            Row::new("relay CPU per delivered packet", Unit::Time, cpu),
            Row::new("offered", Unit::PacketsPerSecond, offered),
            Row::new("delivered", Unit::PacketsPerSecond, packets).at_least(is_bound),
            Row::new("delivered", Unit::BitsPerSecond, bits).at_least(is_bound),
        ]
    }

    fn latencies(&self) -> [Row; 4] {
        let latency = |name, nanos: u64| Row::new(name, Unit::Time, self.figure(nanos as f64));
        [
            latency("latency p50", self.latency.p50),
            latency("latency p99", self.latency.p99),
            latency("latency p99.9", self.latency.p999),
            latency("latency max", self.latency.max),
        ]
    }
}

impl ScenarioReport for PairsReport {
    fn parameters(&self) -> Vec<Parameter> {
        self.arrivals.iter().map(|arrivals| Parameter::new("arrivals", arrivals)).collect()
    }

    fn rows(&self) -> Vec<Row> {
        let server = |value: fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        let busiest = |of: &[ThreadUsage]| Some(ThreadUsage::busiest(of).occupancy() * 100.0);
        let mut rows = self.rates();
        rows.extend(self.latencies());
        rows.extend([
            Row::count("packets not taken by the relay", self.offered.saturating_sub(self.sent)),
            Row::count("packets lost", self.lost()),
            Row::count("packets duplicated", self.damage.duplicated),
            Row::count("packets reordered", self.damage.reordered),
            Row::count("packets corrupted", self.damage.corrupted),
            Row::count("packets misrouted", self.damage.misrouted),
            Row::count("peers reported gone", self.peers_gone),
            Row::count("windows started anew", self.stalls),
            Row::new("relay busiest thread", Unit::Percent, server(ServerUsage::busiest_percent)),
            Row::new("relay memory", Unit::Bytes, server(|server| server.resident as f64)),
            Row::new("sent late p99", Unit::Time, Some(self.late.p99 as f64)),
            Row::new("busiest sender", Unit::Percent, busiest(&self.sender_usage)),
            Row::new("busiest receiver", Unit::Percent, busiest(&self.receiver_usage)),
        ]);
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let consequence =
            if self.closed { "the relay can do at least as much" } else { "so there are no figures" };
        let too_slow = self.too_slow.iter();
        too_slow.map(|reason| format!("THE LOAD GENERATOR WAS THE LIMIT, {consequence}: {reason}")).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_limited()).then_some(("latency", self.latency));
        svg::of_quantiles("Latency from when a packet was due until it arrived", shown.as_slice())
            .into_iter()
            .collect()
    }

    fn is_limited(&self) -> bool {
        self.too_slow.is_some() && !self.closed
    }

    fn is_damaged(&self) -> bool {
        self.damage.any()
    }
}
