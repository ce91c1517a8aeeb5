//! Latency: round trips by a schedule, while the relay is idle or forwards a load of [`pairs`](super::pairs).
//!
//! A round trip is a DERP ping, which the relay answers, or a packet to a peer, which sends it back. It counts from
//! when it was due. So a relay that stops for a while delays every round trip that was due in the meantime.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::flow::job::{FlowJob, FlowOutcome};
use crate::flow::packet::PacketSizes;
use crate::flow::sequence::PacketDamage;
use crate::histogram::Quantiles;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::KeySeed;
use crate::process::Parent;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Parameter, Row, ScenarioReport};
use crate::scenario::args::RelayArgs;
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::scenario::pairs::{PairsArgs, PairsReport};
use crate::target::LoadTarget;
use crate::workers::WorkerGroup;

mod prober;

use prober::{ProbeJob, ProbeOutcome, RoundTripKind};

/// The options of a measurement of latency.
#[derive(Debug, Args)]
pub(crate) struct LatencyArgs {
    /// The load in the background, if it has a rate
    #[command(flatten)]
    pairs: PairsArgs,
    /// Round trips a second
    #[arg(long, default_value_t = 1000)]
    probes: u64,
    /// Send packets of this many bytes to a peer and back, instead of DERP pings
    #[arg(long, value_name = "BYTES")]
    peer: Option<usize>,
}

/// The report on latency. Its round trips are those that were due in the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LatencyReport {
    /// Round trips that were due.
    pub offered: u64,
    /// Round trips that were completed, at any time.
    pub completed: u64,
    /// Damage over the whole run.
    pub damage: PacketDamage,
    /// The time from when a round trip was due until it was completed.
    pub round_trip: Quantiles,
    /// The time from when a round trip was due until it began.
    pub late: Quantiles,
    /// The usage of the process that makes round trips.
    pub usage: ThreadUsage,
    /// The usage of the relay.
    pub server: Option<ServerUsage>,
    /// The report on the load in the background.
    pub background: Option<PairsReport>,
    /// Why the load generator was the limit, so that the figures mean nothing.
    pub too_slow: Option<String>,
}

/// The job of one worker process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LatencyJob {
    Probe(ProbeJob),
    Background(FlowJob),
}

/// The outcome of a [`LatencyJob`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum LatencyOutcome {
    Probed(ProbeOutcome),
    Background(FlowOutcome),
}

/// The scenario `latency`.
pub(crate) struct LatencyScenario;

impl Scenario for LatencyScenario {
    const NAME: &'static str = "latency";
    const ABOUT: &'static str = "Measures round trips while the relay is idle or forwards a load of pairs";
    type Target = RelayArgs;
    type Args = LatencyArgs;
    type Job = LatencyJob;
    type Outcome = LatencyOutcome;
    type Report = LatencyReport;

    fn run(args: &LatencyArgs, config: &RunConfig) -> Result<LatencyReport> {
        args.check()?;
        let time = &args.pairs.time;
        let background = args.background();
        let ack_sockets = tempfile::Builder::new().prefix("towpath-loadtest-").tempdir()?;
        let mut jobs = vec![LatencyJob::Probe(args.probe_job(config)?)];
        if let Some(pairs) = background {
            jobs.extend(pairs.jobs(config, ack_sockets.path())?.into_iter().map(LatencyJob::Background));
        }
        let mut workers = WorkerGroup::<Self>::start(config, jobs)?;
        let server = workers.measure(time.warm_up, time.duration)?;
        let (mut probed, mut flows) = (None, Vec::new());
        for outcome in workers.outcomes()? {
            match outcome {
                LatencyOutcome::Probed(outcome) => probed = Some(outcome),
                LatencyOutcome::Background(outcome) => flows.push(outcome),
            }
        }
        let probed = probed.context("the process that makes round trips has no outcome")?;
        Ok(LatencyReport {
            too_slow: too_slow(&probed, args.pairs.max_late),
            offered: probed.offered,
            completed: probed.completed,
            damage: probed.damage,
            round_trip: probed
                .round_trip
                .quantiles_with_lost(probed.offered.saturating_sub(probed.completed)),
            late: probed.late.quantiles(),
            usage: probed.usage,
            server,
            background: background.map(|pairs| pairs.report(flows, server)),
        })
    }

    fn work(target: &LoadTarget, job: LatencyJob, parent: &mut Parent) -> Result<LatencyOutcome> {
        Ok(match job {
            LatencyJob::Probe(job) => LatencyOutcome::Probed(prober::run(target, &job, parent)?),
            LatencyJob::Background(job) => LatencyOutcome::Background(job.work(target, parent)?),
        })
    }
}

impl LatencyArgs {
    fn check(&self) -> Result<()> {
        if self.probes == 0 || self.pairs.time.duration.is_zero() {
            bail!("--probes and --duration must not be zero");
        }
        if let Some(len) = self.peer {
            PacketSizes::new(&[(len, 1)])?;
        }
        self.background().map_or_else(|| self.pairs.check_arrivals(), PairsArgs::check)
    }

    fn background(&self) -> Option<&PairsArgs> {
        self.pairs.rate.is_some().then_some(&self.pairs)
    }

    fn probe_job(&self, config: &RunConfig) -> Result<ProbeJob> {
        Ok(ProbeJob {
            seed: KeySeed::new(&config.target)?,
            kind: self.peer.map_or(RoundTripKind::Ping, RoundTripKind::Peer),
            rate: self.probes,
            warm_up: self.pairs.time.warm_up,
            duration: self.pairs.time.duration,
        })
    }
}

/// Why the load generator was the limit, if it was.
fn too_slow(probed: &ProbeOutcome, max_late: Duration) -> Option<String> {
    let late = Duration::from_nanos(probed.late.quantiles().p99);
    if probed.usage.is_saturated() {
        let busy = probed.usage.occupancy() * 100.0;
        return Some(format!("the process that makes round trips was busy for {busy:.0} % of the time"));
    }
    (late > max_late).then(|| format!("1 % of the round trips began {late:?} or more after they were due"))
}

impl ScenarioReport for LatencyReport {
    fn parameters(&self) -> Vec<Parameter> {
        let arrivals = self.background.iter().filter_map(|pairs| pairs.arrivals);
        arrivals.map(|arrivals| Parameter::new("background arrivals", arrivals)).collect()
    }

    fn rows(&self) -> Vec<Row> {
        let time =
            |name, nanos: u64| Row::new(name, Unit::Time, self.too_slow.is_none().then_some(nanos as f64));
        let busiest = self.server.as_ref().map(ServerUsage::busiest_percent);
        let mut rows = vec![
            time("round trip p50", self.round_trip.p50),
            time("round trip p99", self.round_trip.p99),
            time("round trip p99.9", self.round_trip.p999),
            time("round trip max", self.round_trip.max),
            Row::count("round trips", self.offered),
            Row::count("round trips lost", self.offered - self.completed),
            Row::count("answers damaged", self.damage.total()),
        ];
        if let Some(pairs) = &self.background {
            let rate = Some(pairs.delivered_per_second());
            rows.push(Row::new("background delivered", Unit::PacketsPerSecond, rate));
            rows.push(Row::count("background packets lost", pairs.offered.saturating_sub(pairs.received)));
        }
        rows.extend([
            Row::new("relay busiest thread", Unit::Percent, busiest),
            Row::new("begun late p99", Unit::Time, Some(self.late.p99 as f64)),
            Row::new("busy making round trips", Unit::Percent, Some(self.usage.occupancy() * 100.0)),
        ]);
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let limited = self
            .too_slow
            .iter()
            .map(|reason| format!("THE LOAD GENERATOR WAS THE LIMIT, so there are no figures: {reason}"));
        let background = self.background.iter().filter_map(|pairs| pairs.too_slow.as_ref());
        limited.chain(background.map(|reason| format!("in the background: {reason}"))).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = self.too_slow.is_none().then_some(("round trip", self.round_trip));
        svg::of_quantiles("Time from when a round trip was due until it was completed", shown.as_slice())
            .into_iter()
            .collect()
    }

    fn is_limited(&self) -> bool {
        self.too_slow.is_some()
    }

    fn is_damaged(&self) -> bool {
        self.damage.any() || self.background.as_ref().is_some_and(|pairs| pairs.damage.any())
    }
}
