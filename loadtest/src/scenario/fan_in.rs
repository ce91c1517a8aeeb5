//! Fan-in: many senders to few receivers, with more packets than the relay or the receivers take. One receiver never
//! reads.
//!
//! A relay must bound the queue of the receiver that never reads, and still serve the others.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::arrivals::Arrivals;
use crate::flow::job::{FlowJob, FlowOutcome};
use crate::flow::packet::PacketSizes;
use crate::flow::receiver::{ReceiveJob, ReceiverOutcome};
use crate::flow::schedule::{FlowRoutes, Timeline};
use crate::flow::sender::{Pace, SendJob, SenderOutcome};
use crate::flow::sequence::PacketDamage;
use crate::histogram::Quantiles;
use crate::host::prometheus::{self, MetricSamples};
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{self, KeySeed, LoginOrder, RECEIVER};
use crate::net::link::{LinkBuffers, LinkRead};
use crate::process::Parent;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::args::{RelayArgs, TimeArgs, parse_sizes};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::target::LoadTarget;
use crate::workers::WorkerGroup;

/// The receiver that never reads.
const UNREAD: u32 = 0;

/// The options of a fan-in.
#[derive(Debug, Args)]
pub(crate) struct FanInArgs {
    /// Clients that send, to the receivers in turn
    #[arg(long, default_value_t = 50)]
    senders: u32,
    /// Clients that receive; the first never reads
    #[arg(long, default_value_t = 10)]
    receivers: u32,
    /// Bytes of a packet, or a mix with weights
    #[arg(long, default_value = "1400", value_parser = parse_sizes)]
    size: PacketSizes,
    /// Packets of a sender that are sealed and written together
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// Packets a second of all senders together; default: as many as the relay takes
    #[arg(long)]
    rate: Option<u64>,
    #[command(flatten)]
    time: TimeArgs,
    /// URL of the server's metrics, such as http://127.0.0.1:9090/metrics, to report what it dropped
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
}

/// The report on a fan-in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FanInReport {
    /// The length of the measured time in nanoseconds.
    pub measured: u64,
    /// Packets that were due in the measured time.
    pub offered: u64,
    /// Packets of `offered` that were written to a socket.
    pub sent: u64,
    /// Packets that arrived in the measured time, for each receiver that reads.
    pub delivered_to: BTreeMap<u32, u64>,
    /// The bytes of `delivered_to`.
    pub delivered_bytes: u64,
    /// Damage over the whole run.
    pub damage: PacketDamage,
    /// Whether the relay closed the connection of the receiver that never reads.
    pub cut_off: bool,
    /// The time from when a packet was due until it arrived.
    pub latency: Quantiles,
    /// The usage of the sending process and of the receiving process.
    pub usage: Vec<ThreadUsage>,
    /// The usage of the relay.
    pub server: Option<ServerUsage>,
    /// The server's metrics of dropped packets, and by how much they rose over the whole run.
    pub drops: Option<BTreeMap<String, f64>>,
}

/// The job of one worker process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FanInJob {
    Flow(FlowJob),
    Unread(UnreadJob),
}

/// The job of the receiver that never reads.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct UnreadJob {
    seed: KeySeed,
    warm_up: Duration,
    duration: Duration,
}

/// The outcome of a [`FanInJob`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FanInOutcome {
    Flow(FlowOutcome),
    Unread { cut_off: bool },
}

/// The scenario `fan-in`.
pub(crate) struct FanInScenario;

impl Scenario for FanInScenario {
    const NAME: &'static str = "fan-in";
    const ABOUT: &'static str = "Sends from many clients to few, one of which never reads";
    type Target = RelayArgs;
    type Args = FanInArgs;
    type Job = FanInJob;
    type Outcome = FanInOutcome;
    type Report = FanInReport;

    fn run(args: &FanInArgs, config: &RunConfig) -> Result<FanInReport> {
        args.check()?;
        let fetch = || args.metrics.as_deref().map(prometheus::fetch).transpose();
        let mut workers = WorkerGroup::<Self>::start(config, args.jobs(KeySeed::new(&config.target)?))?;
        workers.wait_ready()?;
        let before = fetch()?;
        let server = workers.measure(args.time.warm_up, args.time.duration)?;
        let after = fetch()?;
        let drops: Option<MetricSamples> =
            before.zip(after).map(|(before, after)| prometheus::drops(&before, &after));
        let (mut sent, mut received) = (SenderOutcome::default(), ReceiverOutcome::default());
        let mut closed = false;
        for outcome in workers.outcomes()? {
            match outcome {
                FanInOutcome::Flow(FlowOutcome::Sent(outcome)) => sent = outcome,
                FanInOutcome::Flow(FlowOutcome::Received(outcome)) => received = outcome,
                FanInOutcome::Unread { cut_off } => closed = cut_off,
            }
        }
        Ok(FanInReport {
            measured: args.time.measured(),
            offered: sent.offered,
            sent: sent.sent,
            delivered_to: received.delivered_to,
            delivered_bytes: received.delivered_bytes,
            damage: received.damage,
            cut_off: closed,
            latency: received.latency.quantiles(),
            usage: vec![sent.usage, received.usage],
            server,
            drops,
        })
    }

    fn work(target: &LoadTarget, job: FanInJob, parent: &mut Parent) -> Result<FanInOutcome> {
        Ok(match job {
            FanInJob::Flow(job) => FanInOutcome::Flow(job.work(target, parent)?),
            FanInJob::Unread(job) => FanInOutcome::Unread { cut_off: is_cut_off(target, &job, parent)? },
        })
    }
}

impl FanInArgs {
    fn check(&self) -> Result<()> {
        if self.receivers < 2 || self.senders < self.receivers {
            bail!("--receivers must be 2 or more, and --senders not less");
        }
        if self.batch == 0 || self.rate == Some(0) || self.time.duration.is_zero() {
            bail!("--batch, --rate and --duration must not be zero");
        }
        Ok(())
    }

    /// The jobs of the process that sends, the process that receives, and the process that never reads.
    fn jobs(&self, seed: KeySeed) -> Vec<FanInJob> {
        let routes = FlowRoutes { flows: self.senders, receivers: self.receivers };
        let TimeArgs { warm_up, duration } = self.time;
        let send = SendJob {
            seed,
            flows: (0..self.senders).collect(),
            routes,
            sizes: self.size.clone(),
            batch: self.batch,
            pace: self.rate.map_or(Pace::FlatOut, |rate| Pace::Rate { rate, arrivals: Arrivals::Even }),
            warm_up,
            duration,
            logins: LoginOrder::Together,
            ack_socket: None,
        };
        let receive = ReceiveJob {
            seed,
            receivers: (0..self.receivers).filter(|receiver| *receiver != UNREAD).collect(),
            routes,
            warm_up,
            duration,
            logins: LoginOrder::Together,
            ack_sockets: Vec::new(),
        };
        vec![
            FanInJob::Flow(FlowJob::Send(send)),
            FanInJob::Flow(FlowJob::Receive(receive)),
            FanInJob::Unread(UnreadJob { seed, warm_up, duration }),
        ]
    }
}

/// Connects and does not read until the measured time is over. Returns whether the relay has closed the connection by
/// then.
fn is_cut_off(target: &LoadTarget, job: &UnreadJob, parent: &mut Parent) -> Result<bool> {
    let mut links = connect::connect_all(target, vec![job.seed.key(RECEIVER, UNREAD)], LoginOrder::Together)?;
    parent.ready()?;
    let timeline = Timeline::new(parent.wait_to_proceed()?, job.warm_up, job.duration);
    while clock::now() < timeline.end {
        clock::sleep_until(timeline.end);
    }
    // A close shows only behind the packets that the kernel holds, which are few.
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
        self.usage.get(1).is_some_and(ThreadUsage::is_saturated)
    }
}

impl ScenarioReport for FanInReport {
    fn rows(&self) -> Vec<Row> {
        let a_second = |count: f64| Some(count * SECOND as f64 / self.measured as f64);
        let packets = |name, count: u64| Row::new(name, Unit::PacketsPerSecond, a_second(count as f64));
        let server = |value: fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        let each = || self.delivered_to.values().copied();
        let bits = a_second(self.delivered_bytes as f64 * 8.0);
        let mut rows = vec![
            packets("delivered to those that read", each().sum()).at_least(self.is_too_slow()),
            Row::new("delivered to those that read", Unit::BitsPerSecond, bits),
            packets("to the one with the least", each().min().unwrap_or_default()),
            packets("to the one with the most", each().max().unwrap_or_default()),
            packets("offered to all", self.offered),
            packets("taken by the relay", self.sent),
            Row::new("latency p50", Unit::Time, Some(self.latency.p50 as f64)),
            Row::new("latency p99", Unit::Time, Some(self.latency.p99 as f64)),
            Row::new("relay memory", Unit::Bytes, server(|server| server.resident as f64)),
            Row::new("relay memory at its peak", Unit::Bytes, server(|server| server.peak as f64)),
            Row::new("relay busiest thread", Unit::Percent, server(ServerUsage::busiest_percent)),
            Row::count("packets damaged", self.damage.total()),
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
        let cut_off = self.cut_off.then(|| {
            "the relay closed the connection of the receiver that never reads, and had less load from then on".to_owned()
        });
        limited.into_iter().chain(cut_off).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let line = [("latency", self.latency)];
        svg::of_quantiles("Latency from when a packet was due until it arrived", &line).into_iter().collect()
    }

    fn is_damaged(&self) -> bool {
        self.damage.any()
    }
}
