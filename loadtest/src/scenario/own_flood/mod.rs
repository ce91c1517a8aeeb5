//! Own flood: what comes to a client whose own uplink is full.
//!
//! Strangers send paced packets to two clients, as many to each. One of them sends to a sink as fast as the relay lets it,
//! the other only listens. A relay that reads and writes a connection in turn keeps from the first what it gives the
//! second. The same is measured before without the flood.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::receiver::{ReceiveJob, ReceiveOutcome};
use crate::flow::schedule::FlowRoutes;
use crate::flow::sender::{SendJob, SendOutcome};
use crate::histogram::Quantiles;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{KeySeed, LoginOrder};
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::pairs::{MAX_OCCUPANCY, Pace, PacketDamage, PacketSizes};
use crate::worker::{self, WorkerOutcome};
use crate::workers::{RunConfig, WorkerGroup};

mod clients;

pub(crate) use clients::{FloodJob, flood, sink};

/// The two receivers of the strangers' packets.
const FLOODER: u32 = 0;
const LISTENER: u32 = 1;

/// What load to make.
#[derive(Clone, Debug)]
pub struct OwnFloodPlan {
    /// Strangers that send to each of the two clients.
    pub strangers: u32,
    /// Packets a second of all strangers together.
    pub rate: u64,
    /// How long packets are, those of the flood, too.
    pub sizes: PacketSizes,
    /// Before figures count.
    pub warm_up: Duration,
    /// While figures count.
    pub duration: Duration,
    /// The load generator is too slow when 1 % of the strangers' packets are later than this.
    pub max_late: Duration,
}

/// What came to a client of what strangers sent to it in the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Delivery {
    /// Packets that were due.
    pub offered: u64,
    /// Packets that came, at whatever time.
    pub received: u64,
    /// From when a packet was due until it came.
    pub latency: Quantiles,
    /// From when a packet was due until it was written, where its socket was free.
    pub late: Quantiles,
}

impl Delivery {
    fn new(sent: &SendOutcome, receipts: &ReceiveOutcome) -> Self {
        Self {
            offered: sent.offered,
            received: receipts.received,
            latency: receipts.latency.quantiles(),
            late: sent.late.quantiles(),
        }
    }

    /// A latency; of nothing there is none.
    fn time(&self, nanos: u64) -> Option<f64> {
        (self.latency.count > 0).then_some(nanos as f64)
    }

    fn loss(&self) -> f64 {
        self.offered.saturating_sub(self.received) as f64 / self.offered.max(1) as f64
    }
}

/// One of the two halves of the run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloodPhase {
    /// What came to the client that floods in the second half.
    pub flooder: Delivery,
    /// What came to the one that only listens.
    pub listener: Delivery,
    /// Packets of the flood that came in the measured time.
    pub flood: u64,
    /// Their bytes.
    pub flood_bytes: u64,
    /// Over the whole half.
    pub damage: PacketDamage,
    /// Of the processes: those that send, the flooder, the listener, the sink.
    pub usage: Vec<ThreadUsage>,
    /// Of the relay.
    pub server: Option<ServerUsage>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OwnFloodReport {
    /// The length of the measured time of each half in nanoseconds.
    pub measured: u64,
    /// Without the flood.
    pub rest: FloodPhase,
    /// With it.
    pub flood: FloodPhase,
    /// Why the load generator was the limit, and the figures mean little.
    pub too_slow: Option<String>,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a connection cannot be made or breaks, or a process cannot be started.
pub fn run(config: &RunConfig, plan: &OwnFloodPlan) -> Result<OwnFloodReport> {
    if plan.strangers == 0 || plan.rate == 0 || plan.duration.is_zero() {
        bail!("strangers, rate and duration must not be zero");
    }
    let rest = half(config, plan, false)?;
    let flood = half(config, plan, true)?;
    let late = rest.late().max(flood.late());
    // The flooder and its sink are busy by design.
    let busiest = rest.occupancy().max(flood.occupancy());
    let too_slow = if late > plan.max_late {
        Some(format!(
            "1 % of the strangers' packets were sent {late:?} late or more, with their sockets free"
        ))
    } else {
        (busiest > MAX_OCCUPANCY)
            .then(|| "a process besides the flooder and its sink had no time left".to_owned())
    };
    Ok(OwnFloodReport { measured: clock::nanos(plan.duration), rest, flood, too_slow })
}

fn half(config: &RunConfig, plan: &OwnFloodPlan, flood: bool) -> Result<FloodPhase> {
    let seed = KeySeed::new(&config.target)?;
    let routes = FlowRoutes { flows: 2 * plan.strangers, receivers: 2 };
    let OwnFloodPlan { warm_up, duration, .. } = *plan;
    let send = |receiver| {
        worker::WorkerJob::Send(SendJob {
            seed,
            flows: routes.to(receiver).collect(),
            routes,
            sizes: plan.sizes.clone(),
            batch: 1,
            pace: Pace::Rate(plan.rate),
            warm_up,
            duration,
            logins: LoginOrder::Together,
            ack_socket: None,
        })
    };
    let job = FloodJob { seed, routes, sizes: plan.sizes.clone(), flood, warm_up, duration };
    let listen = worker::WorkerJob::Receive(ReceiveJob {
        seed,
        receivers: vec![LISTENER],
        routes,
        warm_up,
        duration,
        logins: LoginOrder::Together,
        ack_sockets: Vec::new(),
    });
    let jobs = vec![
        send(FLOODER),
        send(LISTENER),
        worker::WorkerJob::Flood(job.clone()),
        listen,
        worker::WorkerJob::Sink(job),
    ];
    let mut workers = WorkerGroup::start(config, jobs)?;
    let server = workers.measure(config.server()?, warm_up, duration)?;
    let outcomes: [WorkerOutcome; 5] = workers
        .outcomes()?
        .try_into()
        .map_err(|outcomes: Vec<_>| anyhow::anyhow!("{} outcomes of five jobs", outcomes.len()))?;
    let [
        WorkerOutcome::Sent(to_flooder),
        WorkerOutcome::Sent(to_listener),
        WorkerOutcome::Received(flooder),
        WorkerOutcome::Received(listener),
        WorkerOutcome::Received(sink),
    ] = outcomes
    else {
        bail!("outcomes of other jobs");
    };
    let mut damage = PacketDamage::default();
    [&flooder, &listener, &sink].into_iter().for_each(|receipts| damage.add(&receipts.damage));
    Ok(FloodPhase {
        flooder: Delivery::new(&to_flooder, &flooder),
        listener: Delivery::new(&to_listener, &listener),
        flood: sink.delivered,
        flood_bytes: sink.delivered_bytes,
        damage,
        usage: vec![to_flooder.usage, to_listener.usage, flooder.usage, listener.usage, sink.usage],
        server,
    })
}

impl FloodPhase {
    fn late(&self) -> Duration {
        Duration::from_nanos(self.flooder.late.p99.max(self.listener.late.p99))
    }

    /// Of the busiest process that neither makes nor takes the flood.
    fn occupancy(&self) -> f64 {
        [0, 1, 3]
            .into_iter()
            .filter_map(|job| self.usage.get(job))
            .map(ThreadUsage::occupancy)
            .fold(0.0, f64::max)
    }
}

impl ScenarioReport for OwnFloodReport {
    fn scenario(&self) -> &'static str {
        "own-flood"
    }

    fn rows(&self) -> Vec<Row> {
        let seconds = self.measured as f64 / SECOND as f64;
        let mut rows = Vec::new();
        let mut deliveries = |who, delivery: &Delivery| {
            let time = |what, nanos| Row::new(format!("{who}: {what}"), Unit::Time, delivery.time(nanos));
            let loss = Some(delivery.loss() * 100.0);
            rows.push(Row::new(format!("{who}: lost"), Unit::Percent, loss));
            rows.push(time("latency p50", delivery.latency.p50));
            rows.push(time("latency p99", delivery.latency.p99));
        };
        deliveries("flooder, flooding", &self.flood.flooder);
        deliveries("flooder, before", &self.rest.flooder);
        deliveries("listener, meanwhile", &self.flood.listener);
        deliveries("listener, before", &self.rest.listener);
        let [flooding, before] =
            [&self.flood.flooder, &self.rest.flooder].map(|flooder| flooder.time(flooder.latency.p99));
        let added = flooding.zip(before).map(|(flooding, before)| flooding - before);
        rows.push(Row::new("flooder: added to latency p99", Unit::Time, added));
        let server = |value: fn(&ServerUsage) -> f64| self.flood.server.as_ref().map(value);
        rows.extend([
            Row::new("flood delivered", Unit::PacketsPerSecond, Some(self.flood.flood as f64 / seconds)),
            Row::new(
                "flood delivered",
                Unit::BitsPerSecond,
                Some(self.flood.flood_bytes as f64 * 8.0 / seconds),
            ),
            Row::new(
                "packets damaged",
                Unit::Count,
                Some((self.rest.damage.total() + self.flood.damage.total()) as f64),
            ),
            Row::new(
                "relay busiest thread",
                Unit::Percent,
                server(|server| server.busiest as f64 / server.wall as f64 * 100.0),
            ),
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
        svg::of_quantiles("From when a packet was due until it came", &lines).into_iter().collect()
    }

    fn is_limited(&self) -> bool {
        self.too_slow.is_some()
    }

    fn is_damaged(&self) -> bool {
        self.rest.damage.any() || self.flood.damage.any()
    }
}
