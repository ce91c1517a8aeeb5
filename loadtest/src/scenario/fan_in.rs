//! Fan-in: many senders to few receivers, more than the relay or the receivers take; and one of these never reads.
//!
//! A relay must bound what waits for the deaf one, and give those that read their share nevertheless.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::receiver::{ReceiveJob, ReceiveOutcome};
use crate::flow::schedule::{FlowRoutes, Timeline};
use crate::flow::sender::{RECEIVER, SendJob, SendOutcome};
use crate::histogram::Quantiles;
use crate::host::prometheus::{self, MetricSamples};
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{self, KeySeed, LoginOrder};
use crate::net::link::{LinkBuffers, LinkRead};
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::pairs::{MAX_OCCUPANCY, Pace, PacketDamage, PacketSizes};
use crate::target::LoadTarget;
use crate::worker::{self, Parent, WorkerOutcome};
use crate::workers::{RunConfig, WorkerGroup, WorkerMessage};

/// The receiver that never reads.
const DEAF: u32 = 0;

/// What load to make.
#[derive(Clone, Debug)]
pub struct FanInPlan {
    /// Clients that send, to the receivers in turn.
    pub senders: u32,
    /// Clients that are sent to, the deaf one included; 2 or more.
    pub receivers: u32,
    /// How long packets are.
    pub sizes: PacketSizes,
    /// Packets that are due, sealed and written together.
    pub batch: u32,
    /// Packets a second of all senders together; without it, as many as the relay takes.
    pub rate: Option<u64>,
    /// Before figures count.
    pub warm_up: Duration,
    /// While figures count.
    pub duration: Duration,
    /// Where the server's counters are.
    pub metrics: Option<String>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FanInReport {
    /// The length of the measured time in nanoseconds.
    pub measured: u64,
    /// Packets that were due in it.
    pub offered: u64,
    /// Those that were written to a socket.
    pub sent: u64,
    /// Packets that came in the measured time to each of the receivers that read.
    pub delivered_to: BTreeMap<u32, u64>,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Over the whole run.
    pub damage: PacketDamage,
    /// Whether the relay has closed on the one that never reads.
    pub cut_off: bool,
    /// From when a packet was due until it came.
    pub latency: Quantiles,
    /// Of the processes: that which sends, and that which receives.
    pub usage: Vec<ThreadUsage>,
    /// Of the relay.
    pub server: Option<ServerUsage>,
    /// What the server says it dropped over the whole run.
    pub drops: Option<BTreeMap<String, f64>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct UnreadJob {
    seed: KeySeed,
    warm_up: Duration,
    duration: Duration,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a connection cannot be made or breaks, a process cannot be started, or the counters cannot be had.
pub fn run(config: &RunConfig, plan: &FanInPlan) -> Result<FanInReport> {
    if plan.receivers < 2 || plan.senders < plan.receivers {
        bail!("there must be two receivers, and a sender for each");
    }
    if plan.batch == 0 || plan.rate == Some(0) || plan.duration.is_zero() {
        bail!("batch, rate and duration must not be zero");
    }
    let seed = KeySeed::new(&config.target)?;
    let routes = FlowRoutes { flows: plan.senders, receivers: plan.receivers };
    let FanInPlan { warm_up, duration, .. } = *plan;
    let send = SendJob {
        seed,
        flows: (0..plan.senders).collect(),
        routes,
        sizes: plan.sizes.clone(),
        batch: plan.batch,
        pace: plan.rate.map_or(Pace::FlatOut, Pace::Rate),
        warm_up,
        duration,
        logins: LoginOrder::Together,
        ack_socket: None,
    };
    let receivers = (0..plan.receivers).filter(|receiver| *receiver != DEAF).collect();
    let (logins, ack_sockets) = (LoginOrder::Together, Vec::new());
    let receive = ReceiveJob { seed, receivers, routes, warm_up, duration, logins, ack_sockets };
    let jobs = vec![
        worker::WorkerJob::Send(send),
        worker::WorkerJob::Receive(receive),
        worker::WorkerJob::Deaf(UnreadJob { seed, warm_up, duration }),
    ];
    let fetch = || plan.metrics.as_deref().map(prometheus::fetch).transpose();
    let mut workers = WorkerGroup::start(config, jobs)?;
    workers.wait_ready()?;
    let before = fetch()?;
    let server = workers.measure(config.server()?, warm_up, duration)?;
    let after = fetch()?;
    let (mut sent, mut received, mut cut_off) = (SendOutcome::default(), ReceiveOutcome::default(), false);
    for outcome in workers.outcomes()? {
        match outcome {
            WorkerOutcome::Sent(sendings) => sent = sendings,
            WorkerOutcome::Received(receipts) => received = receipts,
            WorkerOutcome::Deaf(closed) => cut_off = closed,
            _ => {}
        }
    }
    Ok(FanInReport {
        measured: clock::nanos(plan.duration),
        offered: sent.offered,
        sent: sent.sent,
        delivered_to: received.delivered_to,
        delivered_bytes: received.delivered_bytes,
        damage: received.damage,
        cut_off,
        latency: received.latency.quantiles(),
        usage: vec![sent.usage, received.usage],
        server,
        drops: before
            .zip(after)
            .map(|(before, after): (MetricSamples, _)| prometheus::drops(&before, &after)),
    })
}

/// The part of the one that never reads; whether the relay has closed on it.
pub(crate) fn be_deaf(target: &LoadTarget, job: &UnreadJob, parent: &mut Parent) -> Result<bool> {
    let mut links = connect::connect_all(target, vec![job.seed.key(RECEIVER, DEAF)], LoginOrder::Together)?;
    parent.send(&WorkerMessage::Ready)?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    while clock::now() < timeline.end {
        clock::sleep_until(timeline.end);
    }
    // Only now, to see how it ends: behind what the kernel holds, which is little.
    let mut buffers = LinkBuffers::new();
    let give_up = clock::now() + SECOND;
    while clock::now() < give_up {
        match links[0].read(&mut buffers, |_| {}) {
            Ok(LinkRead::More) => {}
            Ok(LinkRead::Drained) => clock::sleep_until(clock::now() + SECOND / 100),
            Ok(LinkRead::Closed) | Err(_) => return Ok(true),
        }
    }
    Ok(false)
}

impl FanInReport {
    fn is_too_slow(&self) -> bool {
        self.usage.get(1).is_some_and(|receiver| receiver.occupancy() > MAX_OCCUPANCY)
    }
}

impl ScenarioReport for FanInReport {
    fn scenario(&self) -> &'static str {
        "fan-in"
    }

    fn rows(&self) -> Vec<Row> {
        let a_second = |count: f64| Some(count * SECOND as f64 / self.measured as f64);
        let packets = |name, count: u64| Row::new(name, Unit::PacketsPerSecond, a_second(count as f64));
        let server = |value: fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        let each = || self.delivered_to.values().copied();
        let mut rows = vec![
            packets("delivered to those that read", each().sum()).at_least(self.is_too_slow()),
            Row::new(
                "delivered to those that read",
                Unit::BitsPerSecond,
                a_second(self.delivered_bytes as f64 * 8.0),
            ),
            packets("to the one with the least", each().min().unwrap_or_default()),
            packets("to the one with the most", each().max().unwrap_or_default()),
            packets("offered to all", self.offered),
            packets("taken by the relay", self.sent),
            Row::new("latency p50", Unit::Time, Some(self.latency.p50 as f64)),
            Row::new("latency p99", Unit::Time, Some(self.latency.p99 as f64)),
            Row::new("relay memory", Unit::Bytes, server(|server| server.resident as f64)),
            Row::new("relay memory at its peak", Unit::Bytes, server(|server| server.peak as f64)),
            Row::new(
                "relay busiest thread",
                Unit::Percent,
                server(|server| server.busiest as f64 / server.wall as f64 * 100.0),
            ),
            Row::new("packets damaged", Unit::Count, Some(self.damage.total() as f64)),
        ];
        let drops = self.drops.iter().flatten();
        rows.extend(drops.map(|(name, count)| Row::new(name.as_str(), Unit::Count, Some(*count))));
        let busy = self.usage.iter().map(|usage| Some(usage.occupancy() * 100.0));
        let names = ["busy sending", "busy receiving"];
        rows.extend(names.into_iter().zip(busy).map(|(name, busy)| Row::new(name, Unit::Percent, busy)));
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let limited = self.is_too_slow().then(|| {
            "THE LOAD GENERATOR WAS THE LIMIT: the relay can deliver at least as much as its receivers took".to_owned()
        });
        let cut_off = self
            .cut_off
            .then(|| "the relay closed on the one that never reads; since then it had no load".to_owned());
        limited.into_iter().chain(cut_off).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let line = [("latency", self.latency)];
        svg::of_quantiles("From when a packet was due until it came", &line).into_iter().collect()
    }

    fn is_damaged(&self) -> bool {
        self.damage.any()
    }
}
