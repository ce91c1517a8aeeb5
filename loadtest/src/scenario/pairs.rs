//! Pairs: of each two clients one sends to the other.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::flow::receiver::{ReceiveJob, ReceiveOutcome};
use crate::flow::schedule::FlowRoutes;
use crate::flow::sender::{SendJob, SendOutcome};
use crate::histogram::{DurationHistogram, Quantiles};
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{KeySeed, LoginOrder};
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::worker::{WorkerJob, WorkerOutcome};
use crate::workers::{RunConfig, WorkerGroup};

pub use crate::flow::packet::PacketSizes;
pub use crate::flow::sender::Pace;
pub use crate::flow::sequence::PacketDamage;

/// A process that sleeps less than this share of the time has no reserve left.
pub(super) const MAX_OCCUPANCY: f64 = 0.97;

/// What load to make.
#[derive(Clone, Debug)]
pub struct PairsPlan {
    /// Pairs of a sender and a receiver.
    pub pairs: u32,
    /// How long packets are.
    pub sizes: PacketSizes,
    /// Packets that are due, sealed and written together.
    pub batch: u32,
    /// How fast.
    pub pace: Pace,
    /// Before figures count.
    pub warm_up: Duration,
    /// While figures count.
    pub duration: Duration,
    /// The load generator is too slow when 1 % of its packets are later than this.
    pub max_late: Duration,
    /// Processes that send.
    pub senders: u32,
    /// Processes that receive.
    pub receivers: u32,
    /// Where the two of a pair are, for a relay that gives its workers connections in turn.
    pub placement: Option<Placement>,
}

/// Where the two clients of each pair are, when a relay gives its workers connections in turn and has been given none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// Both with the same worker, where the pairs are a multiple of the workers.
    Within,
    /// With two workers, where the pairs are a multiple of the workers and these more than one.
    Across,
}

impl Placement {
    /// How receivers log in, after the senders have done so in turn.
    const fn receivers(self) -> LoginOrder {
        LoginOrder::InTurn(match self {
            Self::Within => 0,
            Self::Across => 1,
        })
    }
}

/// What came of it. Packets are those that were due in the measured time, unless said otherwise.
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
    /// Packets that came, at whatever time.
    pub received: u64,
    /// Packets that came in the measured time, whenever they were due.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Over the whole run.
    pub damage: PacketDamage,
    /// PeerGone frames over the whole run.
    pub peers_gone: u64,
    /// Windows that had to be started anew because packets in them were lost.
    pub stalls: u64,
    /// From when a packet was due until it came.
    pub latency: Quantiles,
    /// From when a packet was due until it was written, where its socket was free.
    pub late: Quantiles,
    /// Of each sending process.
    pub sender_usage: Vec<ThreadUsage>,
    /// Of each receiving process.
    pub receiver_usage: Vec<ThreadUsage>,
    /// Of the relay.
    pub server: Option<ServerUsage>,
    /// Whether packets were sent as they were taken, and not by a schedule.
    #[serde(default)]
    pub closed: bool,
    /// Why the load generator was the limit: by a schedule the figures then mean nothing, and otherwise the relay could
    /// have done more.
    pub too_slow: Option<String>,
}

impl PairsReport {
    /// A figure that means nothing if the load generator could not keep to its schedule.
    fn figure(&self, value: f64) -> Option<f64> {
        (!self.is_limited()).then_some(value)
    }

    /// Packets that were written and never came.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a connection cannot be made or breaks, or a process cannot be started.
pub fn run(config: &RunConfig, plan: &PairsPlan) -> Result<PairsReport> {
    check(plan)?;
    let server = config.server()?;
    let ack_sockets = tempfile::Builder::new().prefix("towpath-loadtest-").tempdir()?;
    let mut jobs = jobs(config, plan, ack_sockets.path().into())?;
    let late = if plan.placement.is_some() { jobs.split_off(plan.senders as usize) } else { Vec::new() };
    let mut workers = WorkerGroup::start(config, jobs)?;
    workers.wait_ready()?;
    workers.spawn(late)?;
    let usage = workers.measure(server, plan.warm_up, plan.duration)?;
    Ok(report(plan, workers.outcomes()?, usage))
}

pub(super) fn check(plan: &PairsPlan) -> Result<()> {
    if [plan.pairs, plan.batch, plan.senders, plan.receivers].contains(&0) || plan.duration.is_zero() {
        bail!("pairs, batch, processes and duration must not be zero");
    }
    if plan.senders.max(plan.receivers) > plan.pairs {
        bail!("more processes than pairs");
    }
    if plan.placement.is_some() && (plan.senders, plan.receivers) != (1, 1) {
        bail!("clients that log in in turn are those of one process that sends and one that receives");
    }
    match plan.pace {
        Pace::Rate(0) | Pace::Window(0) => bail!("a rate or a window of zero sends nothing"),
        Pace::Window(window) if window < plan.batch => bail!("a batch does not fit in the window"),
        _ => Ok(()),
    }
}

pub(super) fn jobs(config: &RunConfig, plan: &PairsPlan, ack_sockets: PathBuf) -> Result<Vec<WorkerJob>> {
    let seed = KeySeed::new(&config.target)?;
    let of = |process, processes| (process..plan.pairs).step_by(processes as usize).collect::<Vec<_>>();
    let ack_sockets: Vec<_> = match plan.pace {
        Pace::Window(_) => (0..plan.senders).map(|sender| ack_sockets.join(sender.to_string())).collect(),
        Pace::Rate(_) | Pace::FlatOut => Vec::new(),
    };
    let senders = (0..plan.senders).map(|process| {
        WorkerJob::Send(SendJob {
            seed,
            flows: of(process, plan.senders),
            routes: FlowRoutes::pairs(plan.pairs),
            sizes: plan.sizes.clone(),
            batch: plan.batch,
            pace: plan.pace,
            warm_up: plan.warm_up,
            duration: plan.duration,
            logins: plan.placement.map_or(LoginOrder::Together, |_| LoginOrder::InTurn(0)),
            ack_socket: ack_sockets.get(process as usize).cloned(),
        })
    });
    let receivers = (0..plan.receivers).map(|process| {
        WorkerJob::Receive(ReceiveJob {
            seed,
            receivers: of(process, plan.receivers),
            routes: FlowRoutes::pairs(plan.pairs),
            warm_up: plan.warm_up,
            duration: plan.duration,
            logins: plan.placement.map_or(LoginOrder::Together, Placement::receivers),
            ack_sockets: ack_sockets.clone(),
        })
    });
    Ok(senders.chain(receivers).collect())
}

pub(super) fn report(
    plan: &PairsPlan,
    outcomes: Vec<WorkerOutcome>,
    server: Option<ServerUsage>,
) -> PairsReport {
    let (mut sendings, mut receipts) = (SendOutcome::default(), ReceiveOutcome::default());
    let (mut sender_usage, mut receiver_usage) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            WorkerOutcome::Sent(sent) => {
                sendings.offered += sent.offered;
                sendings.sent += sent.sent;
                sendings.stalls += sent.stalls;
                sendings.peers_gone += sent.peers_gone;
                sendings.late.add(&sent.late);
                sender_usage.push(sent.usage);
            }
            WorkerOutcome::Received(received) => {
                receipts.received += received.received;
                receipts.delivered += received.delivered;
                receipts.delivered_bytes += received.delivered_bytes;
                receipts.damage.add(&received.damage);
                receipts.latency.add(&received.latency);
                receiver_usage.push(received.usage);
            }
            _ => {}
        }
    }
    let too_slow = too_slow(plan, &sendings.late, &sender_usage, &receiver_usage);
    PairsReport {
        pairs: plan.pairs,
        measured: clock::nanos(plan.duration),
        offered: sendings.offered,
        sent: sendings.sent,
        received: receipts.received,
        delivered: receipts.delivered,
        delivered_bytes: receipts.delivered_bytes,
        damage: receipts.damage,
        peers_gone: sendings.peers_gone,
        stalls: sendings.stalls,
        latency: receipts.latency.quantiles(),
        late: sendings.late.quantiles(),
        sender_usage,
        receiver_usage,
        server,
        closed: !matches!(plan.pace, Pace::Rate(_)),
        too_slow,
    }
}

/// Why the load generator was the limit, if it was.
fn too_slow(
    plan: &PairsPlan,
    late: &DurationHistogram,
    senders: &[ThreadUsage],
    receivers: &[ThreadUsage],
) -> Option<String> {
    let busiest = |usage: &[ThreadUsage]| usage.iter().map(ThreadUsage::occupancy).fold(0.0, f64::max);
    let (sender, receiver) = (busiest(senders), busiest(receivers));
    let late = Duration::from_nanos(late.quantiles().p99);
    if receiver > MAX_OCCUPANCY {
        return Some(format!(
            "a receiving process has no time left: it was busy for {:.0} %",
            receiver * 100.0
        ));
    }
    if sender > MAX_OCCUPANCY {
        return Some(format!("a sending process has no time left: it was busy for {:.0} %", sender * 100.0));
    }
    if late > plan.max_late {
        return Some(format!("1 % of the packets were sent {late:?} late or more, with their sockets free"));
    }
    None
}

impl ScenarioReport for PairsReport {
    fn scenario(&self) -> &'static str {
        "pairs"
    }

    fn rows(&self) -> Vec<Row> {
        let seconds = self.measured as f64 / SECOND as f64;
        let figure = |value: f64| self.figure(value);
        let bound = self.closed && self.too_slow.is_some();
        let busiest =
            |usage: &[ThreadUsage]| usage.iter().map(ThreadUsage::occupancy).fold(0.0, f64::max) * 100.0;
        let server = |value: fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        let latency = |name, nanos: u64| Row::new(name, Unit::Time, figure(nanos as f64));
        let count = |name, count: u64| Row::new(name, Unit::Count, Some(count as f64));
        vec![
            Row::new(
                "relay CPU per delivered packet",
                Unit::Time,
                server(|server| server.cpu as f64)
                    .filter(|_| self.delivered > 0)
                    .and_then(|cpu| figure(cpu / self.delivered as f64)),
            ),
            Row::new("offered", Unit::PacketsPerSecond, figure(self.offered as f64 / seconds)),
            Row::new("delivered", Unit::PacketsPerSecond, figure(self.delivered as f64 / seconds))
                .at_least(bound),
            Row::new("delivered", Unit::BitsPerSecond, figure(self.delivered_bytes as f64 * 8.0 / seconds))
                .at_least(bound),
            latency("latency p50", self.latency.p50),
            latency("latency p99", self.latency.p99),
            latency("latency p99.9", self.latency.p999),
            latency("latency max", self.latency.max),
            count("packets not taken by the relay", self.offered.saturating_sub(self.sent)),
            count("packets lost", self.lost()),
            count("packets duplicated", self.damage.duplicated),
            count("packets reordered", self.damage.reordered),
            count("packets corrupted", self.damage.corrupted),
            count("packets misrouted", self.damage.misrouted),
            count("peers reported gone", self.peers_gone),
            count("windows started anew", self.stalls),
            Row::new(
                "relay busiest thread",
                Unit::Percent,
                server(|server| server.busiest as f64 / server.wall as f64 * 100.0),
            ),
            Row::new("relay memory", Unit::Bytes, server(|server| server.resident as f64)),
            Row::new("sent late p99", Unit::Time, Some(self.late.p99 as f64)),
            Row::new("busiest sender", Unit::Percent, Some(busiest(&self.sender_usage))),
            Row::new("busiest receiver", Unit::Percent, Some(busiest(&self.receiver_usage))),
        ]
    }

    fn remarks(&self) -> Vec<String> {
        let consequence =
            if self.closed { "the relay can do at least as much" } else { "so there are no figures" };
        let too_slow = self.too_slow.iter();
        too_slow.map(|reason| format!("THE LOAD GENERATOR WAS THE LIMIT, {consequence}: {reason}")).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_limited()).then_some(("latency", self.latency));
        svg::of_quantiles("From when a packet was due until it came", shown.as_slice()).into_iter().collect()
    }

    fn is_limited(&self) -> bool {
        self.too_slow.is_some() && !self.closed
    }

    fn is_damaged(&self) -> bool {
        self.damage.any()
    }
}
