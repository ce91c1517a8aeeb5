//! STUN: Binding requests from many sockets, each with a limited number of requests outstanding.
//!
//! The loop is closed. It measures how many requests a server answers and at what cost, not how the server behaves when
//! more arrive. A response counts if it answers an outstanding request and names the address that the request came
//! from.

use anyhow::{Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::clock::SECOND;
use crate::histogram::Quantiles;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::KeySeed;
use crate::process::Parent;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::args::{StunServerArgs, TimeArgs};
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::target::LoadTarget;
use crate::workers::{WorkerGroup, divide};

mod client;

use client::{StunJob, StunOutcome};

/// The options of a STUN load.
#[derive(Debug, Args)]
pub(crate) struct StunArgs {
    /// Sockets that send requests
    #[arg(long, default_value_t = 1000)]
    sockets: u32,
    /// Outstanding requests of each socket at most
    #[arg(long, default_value_t = 4)]
    window: u32,
    /// Processes that send requests
    #[arg(long, default_value_t = 1)]
    processes: u32,
    #[command(flatten)]
    time: TimeArgs,
}

/// The report on a STUN load in the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StunReport {
    /// The length of the measured time in nanoseconds.
    pub measured: u64,
    /// Right answers.
    pub answers: u64,
    /// Datagrams that answer no request, or name another address than that of the socket.
    pub wrong: u64,
    /// Right answers to requests that were answered before or given up.
    pub stale: u64,
    /// Requests without an answer in half a second.
    pub lost: u64,
    /// The time from request to answer.
    pub latency: Quantiles,
    /// The usage of each process.
    pub usage: Vec<ThreadUsage>,
    /// The usage of the server.
    pub server: Option<ServerUsage>,
}

/// The scenario `stun`.
pub(crate) struct StunScenario;

impl Scenario for StunScenario {
    const NAME: &'static str = "stun";
    const ABOUT: &'static str = "Sends STUN Binding requests as fast as the server answers";
    type Target = StunServerArgs;
    type Args = StunArgs;
    type Job = StunJob;
    type Outcome = StunOutcome;
    type Report = StunReport;

    fn run(args: &StunArgs, config: &RunConfig) -> Result<StunReport> {
        let StunArgs { window, processes, time: TimeArgs { warm_up, duration }, .. } = *args;
        if processes == 0 || args.sockets < processes || duration.is_zero() {
            bail!("--processes and --duration must not be zero, and --sockets not less than --processes");
        }
        if !(1..=towpath_udp::BATCH_MAX as u32).contains(&window) {
            bail!("--window must be 1 to {}", towpath_udp::BATCH_MAX);
        }
        let seed = KeySeed::new(&config.target)?;
        let jobs = divide(args.sockets, processes).map(|sockets| StunJob {
            seed,
            sockets,
            window,
            warm_up,
            duration,
        });
        let mut workers = WorkerGroup::<Self>::start(config, jobs.collect())?;
        let server = workers.measure(warm_up, duration)?;
        let (mut all, mut usage) = (StunOutcome::default(), Vec::new());
        for outcome in workers.outcomes()? {
            all.add(&outcome);
            usage.push(outcome.usage);
        }
        let StunOutcome { answers, wrong, stale, lost, latency, .. } = all;
        let (measured, latency) = (args.time.measured(), latency.quantiles());
        Ok(StunReport { measured, answers, wrong, stale, lost, latency, usage, server })
    }

    fn work(target: &LoadTarget, job: StunJob, parent: &mut Parent) -> Result<StunOutcome> {
        client::run(target, &job, parent)
    }
}

impl StunReport {
    fn is_too_slow(&self) -> bool {
        self.usage.iter().any(ThreadUsage::is_saturated)
    }

    fn answers_per_second(&self) -> f64 {
        self.answers as f64 * SECOND as f64 / self.measured as f64
    }
}

impl ScenarioReport for StunReport {
    fn rows(&self) -> Vec<Row> {
        let limited = self.is_too_slow();
        let figure = |value: f64| (!limited).then_some(value);
        // A server's CPU time for an answer does not depend on how fast the load generator is.
        let per_cpu =
            self.server.as_ref().map(|server| self.answers as f64 * SECOND as f64 / server.cpu.max(1) as f64);
        let cpu = self.server.as_ref().map(ServerUsage::cpu_percent);
        let busiest = ThreadUsage::busiest(&self.usage).occupancy() * 100.0;
        vec![
            Row::new("answers for the server's CPU", Unit::AnswersPerCpuSecond, per_cpu),
            Row::new("answers", Unit::AnswersPerSecond, Some(self.answers_per_second())).at_least(limited),
            Row::new("time to answer p50", Unit::Time, figure(self.latency.p50 as f64)),
            Row::new("time to answer p99", Unit::Time, figure(self.latency.p99 as f64)),
            Row::count("right answers", self.answers),
            Row::count("wrong answers", self.wrong),
            Row::count("answers too late, or again", self.stale),
            Row::count("requests lost", self.lost),
            Row::new("server CPUs busy", Unit::Percent, cpu),
            Row::new("busiest process", Unit::Percent, Some(busiest)),
        ]
    }

    fn remarks(&self) -> Vec<String> {
        let limited = self.is_too_slow().then(|| {
            let rate = self.answers_per_second();
            format!("THE LOAD GENERATOR WAS THE LIMIT: the server can do more than {rate:.0} a second")
        });
        limited.into_iter().collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_too_slow()).then_some(("time to answer", self.latency));
        svg::of_quantiles("Time from request to answer", shown.as_slice()).into_iter().collect()
    }

    fn is_damaged(&self) -> bool {
        self.wrong > 0
    }
}
