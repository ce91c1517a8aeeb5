//! Pairs: each sender sends to a receiver of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::flow::arrivals::Arrivals;
use crate::flow::job::{FlowJob, FlowOutcome};
use crate::flow::packet::PacketSizes;
use crate::flow::receiver::{ReceiveJob, ReceiverOutcome};
use crate::flow::schedule::FlowRoutes;
use crate::flow::sender::{Pace, SendJob, SenderOutcome};
use crate::histogram::DurationHistogram;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{KeySeed, LoginOrder};
use crate::process::Parent;
use crate::scenario::args::{RelayArgs, TimeArgs, parse_duration, parse_sizes};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::target::LoadTarget;
use crate::workers::WorkerGroup;

mod report;

pub use report::PairsReport;

/// The options of a load of pairs.
#[derive(Clone, Debug, Args)]
pub(crate) struct PairsArgs {
    /// Pairs of a sender and a receiver
    #[arg(long, default_value_t = 10)]
    pairs: u32,
    /// Bytes of a packet, 28 to 65536; or a mix with weights, such as 64:7,576:4,1400:1
    #[arg(long, default_value = "1400", value_parser = parse_sizes)]
    size: PacketSizes,
    /// Packets of a pair that are due, sealed and written together
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// Packets a second of all pairs together, in an open loop; default: as many as the relay takes
    #[arg(long, conflicts_with = "window")]
    pub(super) rate: Option<u64>,
    /// Times at which the batches of a pair are due, with the mean rate of --rate
    #[arg(long, value_enum, default_value_t)]
    arrivals: ArrivalsOption,
    /// Seed of Poisson arrivals; a seed always gives the same times
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Unacknowledged packets of each pair at most, in a closed loop
    #[arg(long)]
    window: Option<u32>,
    #[command(flatten)]
    pub(super) time: TimeArgs,
    /// Lateness of sending, at the 99th percentile, above which no figures are reported
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    pub(super) max_late: Duration,
    /// Processes that send
    #[arg(long, default_value_t = 1)]
    senders: u32,
    /// Processes that receive
    #[arg(long, default_value_t = 1)]
    receivers: u32,
    /// Log clients in one after the other, so that a fresh relay that assigns connections to its workers in turn has
    /// each pair within one worker or across two
    #[arg(long, value_enum)]
    placement: Option<Placement>,
}

/// The value of `--arrivals`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ArrivalsOption {
    /// Evenly spaced, over time and over the pairs
    #[default]
    Even,
    /// At random, independent of the other pairs: a Poisson process
    Poisson,
}

/// The workers that serve the two clients of each pair, in a relay that assigns connections to its workers in turn and
/// had no connection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Placement {
    /// One worker for both clients, if the pairs are a multiple of the workers
    Within,
    /// Two workers, if the pairs are a multiple of the workers and there are several
    Across,
}

impl Placement {
    /// The order in which receivers log in, after the senders have logged in in turn.
    const fn receivers(self) -> LoginOrder {
        LoginOrder::InTurn(match self {
            Self::Within => 0,
            Self::Across => 1,
        })
    }
}

/// The scenario `pairs`.
pub(crate) struct PairsScenario;

impl Scenario for PairsScenario {
    const NAME: &'static str = "pairs";
    const ABOUT: &'static str =
        "Sends packets between pairs of clients, at a rate, within a window or flat out";
    type Target = RelayArgs;
    type Args = PairsArgs;
    type Job = FlowJob;
    type Outcome = FlowOutcome;
    type Report = PairsReport;

    fn run(args: &PairsArgs, config: &RunConfig) -> Result<PairsReport> {
        args.run::<Self>(config)
    }

    fn work(target: &LoadTarget, job: FlowJob, parent: &mut Parent) -> Result<FlowOutcome> {
        job.work(target, parent)
    }
}

impl PairsArgs {
    /// Runs the load in worker processes of the scenario `S`.
    pub(super) fn run<S>(&self, config: &RunConfig) -> Result<PairsReport>
    where
        S: Scenario<Job = FlowJob, Outcome = FlowOutcome>,
    {
        self.check()?;
        let ack_sockets = tempfile::Builder::new().prefix("towpath-loadtest-").tempdir()?;
        let mut jobs = self.jobs(config, ack_sockets.path())?;
        // Receivers log in after the senders where the order decides on the placement.
        let receivers =
            if self.placement.is_some() { jobs.split_off(self.senders as usize) } else { Vec::new() };
        let mut workers = WorkerGroup::<S>::start(config, jobs)?;
        workers.wait_ready()?;
        workers.spawn(receivers)?;
        let server = workers.measure(self.time.warm_up, self.time.duration)?;
        Ok(self.report(workers.outcomes()?, server))
    }

    /// This load at another rate.
    pub(super) fn at_rate(&self, rate: u64) -> Self {
        Self { rate: Some(rate), window: None, ..self.clone() }
    }

    /// The arrival process of the load, if it has a rate.
    pub(super) const fn arrivals(&self) -> Arrivals {
        match self.arrivals {
            ArrivalsOption::Even => Arrivals::Even,
            ArrivalsOption::Poisson => Arrivals::Poisson { seed: self.seed },
        }
    }

    /// Checks what the command line parser cannot check.
    pub(super) fn check(&self) -> Result<()> {
        self.check_arrivals()?;
        let counts = [self.pairs, self.batch, self.senders, self.receivers];
        if counts.contains(&0) || self.time.duration.is_zero() {
            bail!("--pairs, --batch, --senders, --receivers and --duration must not be zero");
        }
        if self.senders.max(self.receivers) > self.pairs {
            bail!("--senders and --receivers must not be more than --pairs");
        }
        if self.placement.is_some() && (self.senders, self.receivers) != (1, 1) {
            bail!("--placement needs one sending and one receiving process");
        }
        match self.pace() {
            Pace::Rate { rate: 0, .. } | Pace::Window(0) => bail!("--rate and --window must not be zero"),
            Pace::Window(window) if window < self.batch => bail!("--window must not be less than --batch"),
            _ => Ok(()),
        }
    }

    /// Checks that Poisson arrivals have a rate.
    pub(super) fn check_arrivals(&self) -> Result<()> {
        if self.arrivals == ArrivalsOption::Poisson && self.rate.is_none() {
            bail!(
                "--arrivals poisson needs --rate: without a rate, packets are sent when there is room for them"
            );
        }
        Ok(())
    }

    fn pace(&self) -> Pace {
        match (self.rate, self.window) {
            (Some(rate), _) => Pace::Rate { rate, arrivals: self.arrivals() },
            (None, Some(window)) => Pace::Window(window),
            (None, None) => Pace::FlatOut,
        }
    }

    /// The jobs of the sending processes, then those of the receiving processes.
    pub(super) fn jobs(&self, config: &RunConfig, ack_folder: &Path) -> Result<Vec<FlowJob>> {
        let seed = KeySeed::new(&config.target)?;
        let ack_sockets: Vec<_> = match self.pace() {
            Pace::Window(_) => (0..self.senders).map(|sender| ack_folder.join(sender.to_string())).collect(),
            Pace::Rate { .. } | Pace::FlatOut => Vec::new(),
        };
        let senders = (0..self.senders)
            .map(|process| self.send_job(seed, process, ack_sockets.get(process as usize).cloned()));
        let receivers =
            (0..self.receivers).map(|process| self.receive_job(seed, process, ack_sockets.clone()));
        Ok(senders.chain(receivers).collect())
    }

    fn send_job(&self, seed: KeySeed, process: u32, ack_socket: Option<PathBuf>) -> FlowJob {
        FlowJob::Send(SendJob {
            seed,
            flows: (process..self.pairs).step_by(self.senders as usize).collect(),
            routes: FlowRoutes::pairs(self.pairs),
            sizes: self.size.clone(),
            batch: self.batch,
            pace: self.pace(),
            warm_up: self.time.warm_up,
            duration: self.time.duration,
            logins: self.placement.map_or(LoginOrder::Together, |_| LoginOrder::InTurn(0)),
            ack_socket,
        })
    }

    fn receive_job(&self, seed: KeySeed, process: u32, ack_sockets: Vec<PathBuf>) -> FlowJob {
        FlowJob::Receive(ReceiveJob {
            seed,
            receivers: (process..self.pairs).step_by(self.receivers as usize).collect(),
            routes: FlowRoutes::pairs(self.pairs),
            warm_up: self.time.warm_up,
            duration: self.time.duration,
            logins: self.placement.map_or(LoginOrder::Together, Placement::receivers),
            ack_sockets,
        })
    }

    /// Makes the report from the outcomes of all [`jobs`](Self::jobs).
    pub(super) fn report(&self, outcomes: Vec<FlowOutcome>, server: Option<ServerUsage>) -> PairsReport {
        let (mut sent, mut received) = (SenderOutcome::default(), ReceiverOutcome::default());
        let (mut sender_usage, mut receiver_usage) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            match outcome {
                FlowOutcome::Sent(outcome) => {
                    sent.add(&outcome);
                    sender_usage.push(outcome.usage);
                }
                FlowOutcome::Received(outcome) => {
                    received.add(&outcome);
                    receiver_usage.push(outcome.usage);
                }
            }
        }
        let too_slow = self.too_slow(&sent.late, &sender_usage, &receiver_usage);
        PairsReport {
            pairs: self.pairs,
            measured: self.time.measured(),
            offered: sent.offered,
            sent: sent.sent,
            received: received.received,
            delivered: received.delivered,
            delivered_bytes: received.delivered_bytes,
            damage: received.damage,
            peers_gone: sent.peers_gone,
            stalls: sent.stalls,
            // Without a schedule, packets that were not sent were not lost.
            latency: received.latency.quantiles_with_lost(if self.rate.is_some() {
                sent.offered.saturating_sub(received.received)
            } else {
                0
            }),
            late: sent.late.quantiles(),
            sender_usage,
            receiver_usage,
            server,
            closed: self.rate.is_none(),
            arrivals: self.rate.is_some().then(|| self.arrivals()),
            too_slow,
        }
    }

    /// Why the load generator was the limit, if it was.
    fn too_slow(
        &self,
        late: &DurationHistogram,
        senders: &[ThreadUsage],
        receivers: &[ThreadUsage],
    ) -> Option<String> {
        let late = Duration::from_nanos(late.quantiles().p99);
        let busy = |process, usage: ThreadUsage| {
            format!("a {process} process was busy for {:.0} % of the time", usage.occupancy() * 100.0)
        };
        let (sender, receiver) = (ThreadUsage::busiest(senders), ThreadUsage::busiest(receivers));
        if receiver.is_saturated() {
            Some(busy("receiving", receiver))
        } else if sender.is_saturated() {
            Some(busy("sending", sender))
        } else {
            (late > self.max_late).then(|| {
                format!("1 % of the packets were sent {late:?} or more after they were due, with room in their sockets")
            })
        }
    }
}
