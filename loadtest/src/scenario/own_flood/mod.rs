//! Own flood: what a client receives while its own uplink is full.
//!
//! Other clients, the strangers, send paced packets to two clients, the same number to each. One of the two sends to a
//! sink as fast as the relay lets it, the other only listens. A relay that reads and writes a connection in turn
//! withholds packets from the first. The same is measured before without the flood.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::flow::arrivals::Arrivals;
use crate::flow::job::{FlowJob, FlowOutcome};
use crate::flow::packet::PacketSizes;
use crate::flow::receiver::{ReceiveJob, ReceiverOutcome};
use crate::flow::schedule::FlowRoutes;
use crate::flow::sender::{Pace, SendJob, SenderOutcome};
use crate::flow::sequence::PacketDamage;
use crate::histogram::Quantiles;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{KeySeed, LoginOrder};
use crate::process::Parent;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::args::{RelayArgs, TimeArgs, parse_duration, parse_sizes};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::target::LoadTarget;
use crate::workers::WorkerGroup;

mod clients;

use clients::{FLOODER, FloodJob};

/// The receiver that only listens.
const LISTENER: u32 = 1;

/// The options of a flood.
#[derive(Debug, Args)]
pub(crate) struct OwnFloodArgs {
    /// Clients that send to the flooder; as many send to the listener
    #[arg(long, default_value_t = 10)]
    strangers: u32,
    /// Packets a second of all strangers together
    #[arg(long, default_value_t = 4000)]
    rate: u64,
    /// Bytes of a packet, or a mix with weights
    #[arg(long, default_value = "1000", value_parser = parse_sizes)]
    size: PacketSizes,
    #[command(flatten)]
    time: TimeArgs,
    /// Lateness of the strangers' sending, at the 99th percentile, above which the report is marked
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    max_late: Duration,
}

/// The packets that strangers sent to a client in the measured time, and how many it received.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Packets that were due.
    pub offered: u64,
    /// Packets that arrived, at any time.
    pub received: u64,
    /// The time from when a packet was due until it arrived.
    pub latency: Quantiles,
    /// The time from when a packet was due until it was written, if its socket had room.
    pub late: Quantiles,
}

impl Delivery {
    fn new(sent: &SenderOutcome, received: &ReceiverOutcome) -> Self {
        Self {
            offered: sent.offered,
            received: received.received,
            latency: received.latency.quantiles(),
            late: sent.late.quantiles(),
        }
    }

    /// A percentile of latency; `None` if no packet arrived.
    fn time(&self, nanos: u64) -> Option<f64> {
        (self.latency.count > 0).then_some(nanos as f64)
    }

    fn loss(&self) -> f64 {
        self.offered.saturating_sub(self.received) as f64 / self.offered.max(1) as f64
    }
}

/// One of the two phases of the run: without the flood, and with it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloodPhase {
    /// The packets to the client that floods in the second phase.
    pub flooder: Delivery,
    /// The packets to the client that only listens.
    pub listener: Delivery,
    /// Packets of the flood that arrived in the measured time.
    pub flood: u64,
    /// The bytes of `flood`.
    pub flood_bytes: u64,
    /// Damage over the whole phase.
    pub damage: PacketDamage,
    /// The usage of the processes: both senders, the flooder, the listener, the sink.
    pub usage: Vec<ThreadUsage>,
    /// The usage of the relay.
    pub server: Option<ServerUsage>,
}

/// The report on a flood.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnFloodReport {
    /// The length of the measured time of each phase in nanoseconds.
    pub measured: u64,
    /// The phase without the flood.
    pub rest: FloodPhase,
    /// The phase with the flood.
    pub flood: FloodPhase,
    /// Why the load generator was the limit, so that the figures mean little.
    pub too_slow: Option<String>,
}

/// The job of one worker process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum OwnFloodJob {
    Flow(FlowJob),
    Flood(FloodJob),
    Sink(FloodJob),
}

/// The scenario `own-flood`.
pub(crate) struct OwnFloodScenario;

impl Scenario for OwnFloodScenario {
    const NAME: &'static str = "own-flood";
    const ABOUT: &'static str = "Measures what a client receives while it floods its own uplink";
    type Target = RelayArgs;
    type Args = OwnFloodArgs;
    type Job = OwnFloodJob;
    type Outcome = FlowOutcome;
    type Report = OwnFloodReport;

    fn run(args: &OwnFloodArgs, config: &RunConfig) -> Result<OwnFloodReport> {
        if args.strangers == 0 || args.rate == 0 || args.time.duration.is_zero() {
            bail!("--strangers, --rate and --duration must not be zero");
        }
        let rest = args.run_phase(config, false)?;
        let flood = args.run_phase(config, true)?;
        let late = rest.late().max(flood.late());
        let too_slow = if late > args.max_late {
            Some(format!(
                "1 % of the strangers' packets were sent {late:?} or more after they were due, with room in their \
                 sockets"
            ))
        } else {
            (rest.is_saturated() || flood.is_saturated())
                .then(|| "a process other than the flooder and the sink was busy all the time".to_owned())
        };
        Ok(OwnFloodReport { measured: args.time.measured(), rest, flood, too_slow })
    }

    fn work(target: &LoadTarget, job: OwnFloodJob, parent: &mut Parent) -> Result<FlowOutcome> {
        match job {
            OwnFloodJob::Flow(job) => job.work(target, parent),
            OwnFloodJob::Flood(job) => clients::flood(target, &job, parent).map(FlowOutcome::Received),
            OwnFloodJob::Sink(job) => clients::sink(target, &job, parent).map(FlowOutcome::Received),
        }
    }
}

impl OwnFloodArgs {
    fn run_phase(&self, config: &RunConfig, flood: bool) -> Result<FloodPhase> {
        let mut workers =
            WorkerGroup::<OwnFloodScenario>::start(config, self.jobs(KeySeed::new(&config.target)?, flood))?;
        let server = workers.measure(self.time.warm_up, self.time.duration)?;
        let outcomes = workers.outcomes()?;
        let [
            FlowOutcome::Sent(to_flooder),
            FlowOutcome::Sent(to_listener),
            FlowOutcome::Received(flooder),
            FlowOutcome::Received(listener),
            FlowOutcome::Received(sink),
        ] = &outcomes[..]
        else {
            bail!("the worker processes have other outcomes than jobs");
        };
        let mut damage = PacketDamage::default();
        [flooder, listener, sink].into_iter().for_each(|received| damage.add(&received.damage));
        Ok(FloodPhase {
            flooder: Delivery::new(to_flooder, flooder),
            listener: Delivery::new(to_listener, listener),
            flood: sink.delivered,
            flood_bytes: sink.delivered_bytes,
            damage,
            usage: vec![to_flooder.usage, to_listener.usage, flooder.usage, listener.usage, sink.usage],
            server,
        })
    }

    /// The jobs of a phase: the senders to each of the two clients, the flooder, the listener, the sink.
    fn jobs(&self, seed: KeySeed, flood: bool) -> Vec<OwnFloodJob> {
        let routes = FlowRoutes { flows: 2 * self.strangers, receivers: 2 };
        let TimeArgs { warm_up, duration } = self.time;
        let send = |receiver| {
            OwnFloodJob::Flow(FlowJob::Send(SendJob {
                seed,
                flows: routes.flows_to(receiver).collect(),
                routes,
                sizes: self.size.clone(),
                batch: 1,
                pace: Pace::Rate { rate: self.rate, arrivals: Arrivals::Even },
                warm_up,
                duration,
                logins: LoginOrder::Together,
                ack_socket: None,
            }))
        };
        let listen = OwnFloodJob::Flow(FlowJob::Receive(ReceiveJob {
            seed,
            receivers: vec![LISTENER],
            routes,
            warm_up,
            duration,
            logins: LoginOrder::Together,
            ack_sockets: Vec::new(),
        }));
        let job = FloodJob { seed, routes, sizes: self.size.clone(), flood, warm_up, duration };
        vec![send(FLOODER), send(LISTENER), OwnFloodJob::Flood(job.clone()), listen, OwnFloodJob::Sink(job)]
    }
}

impl FloodPhase {
    fn late(&self) -> Duration {
        Duration::from_nanos(self.flooder.late.p99.max(self.listener.late.p99))
    }

    /// Whether a process was the limit. The flooder and the sink are busy by design.
    fn is_saturated(&self) -> bool {
        [0, 1, 3].into_iter().filter_map(|job| self.usage.get(job)).any(ThreadUsage::is_saturated)
    }
}

/// The rows on what one of the two clients received.
fn delivery_rows(client: &str, delivery: &Delivery) -> [Row; 3] {
    let time = |name, nanos| Row::new(format!("{client}: {name}"), Unit::Time, delivery.time(nanos));
    [
        Row::new(format!("{client}: lost"), Unit::Percent, Some(delivery.loss() * 100.0)),
        time("latency p50", delivery.latency.p50),
        time("latency p99", delivery.latency.p99),
    ]
}

impl ScenarioReport for OwnFloodReport {
    fn rows(&self) -> Vec<Row> {
        let seconds = self.measured as f64 / SECOND as f64;
        let mut rows = Vec::new();
        rows.extend(delivery_rows("flooder, flooding", &self.flood.flooder));
        rows.extend(delivery_rows("flooder, before", &self.rest.flooder));
        rows.extend(delivery_rows("listener, meanwhile", &self.flood.listener));
        rows.extend(delivery_rows("listener, before", &self.rest.listener));
        let [flooding, before] =
            [&self.flood.flooder, &self.rest.flooder].map(|flooder| flooder.time(flooder.latency.p99));
        let added = flooding.zip(before).map(|(flooding, before)| flooding - before);
        let packets = Some(self.flood.flood as f64 / seconds);
        let bits = Some(self.flood.flood_bytes as f64 * 8.0 / seconds);
        let busiest = self.flood.server.as_ref().map(ServerUsage::busiest_percent);
        rows.extend([
            Row::new("flooder: added to latency p99", Unit::Time, added),
            Row::new("flood delivered", Unit::PacketsPerSecond, packets),
            Row::new("flood delivered", Unit::BitsPerSecond, bits),
            Row::count("packets damaged", self.rest.damage.total() + self.flood.damage.total()),
            Row::new("relay busiest thread", Unit::Percent, busiest),
            Row::new("sent late p99", Unit::Time, Some(self.flood.late().as_nanos() as f64)),
        ]);
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let reason = self.too_slow.iter();
        reason
            .map(|reason| format!("THE LOAD GENERATOR WAS THE LIMIT, latency includes its own: {reason}"))
            .collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let lines = [
            ("flooder, flooding", self.flood.flooder.latency),
            ("flooder, before", self.rest.flooder.latency),
            ("listener, meanwhile", self.flood.listener.latency),
            ("listener, before", self.rest.listener.latency),
        ];
        svg::of_quantiles("Latency from when a packet was due until it arrived", &lines).into_iter().collect()
    }

    fn is_limited(&self) -> bool {
        self.too_slow.is_some()
    }

    fn is_damaged(&self) -> bool {
        self.rest.damage.any() || self.flood.damage.any()
    }
}
