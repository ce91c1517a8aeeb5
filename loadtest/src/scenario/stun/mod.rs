//! STUN: Binding requests from many sockets, so many of each on their way at a time.
//!
//! The loop is closed: what is measured is how many a server answers and what that costs it, not how it behaves when it
//! is asked for more. An answer counts when it is for a request that waits and names the address that asked.

use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::clock::{self, SECOND};
use crate::histogram::Quantiles;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::KeySeed;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::pairs::MAX_OCCUPANCY;
use crate::worker::{self, WorkerOutcome};
use crate::workers::{RunConfig, WorkerGroup, divide};

mod client;

pub(crate) use client::{StunJob, StunOutcome, work};

/// What load to make.
#[derive(Clone, Debug)]
pub struct StunPlan {
    /// Sockets that ask.
    pub sockets: u32,
    /// Requests of each on their way at a time, 1 to 64.
    pub window: u32,
    /// Processes that ask, the sockets divided among them.
    pub processes: u32,
    /// Before figures count.
    pub warm_up: Duration,
    /// While figures count.
    pub duration: Duration,
}

/// What came of it, in the measured time.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StunReport {
    /// The length of the measured time in nanoseconds.
    pub measured: u64,
    /// Right answers.
    pub answers: u64,
    /// Datagrams that are no answer to any request, or name another address than that which asked.
    pub wrong: u64,
    /// Right answers to requests that were answered before, or given up.
    pub stale: u64,
    /// Requests without an answer in half a second.
    pub lost: u64,
    /// From request to answer.
    pub latency: Quantiles,
    /// Of each process.
    pub usage: Vec<ThreadUsage>,
    /// Of the server.
    pub server: Option<ServerUsage>,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a process cannot be started or a socket not be bound.
pub fn run(config: &RunConfig, plan: &StunPlan) -> Result<StunReport> {
    if plan.processes == 0 || plan.sockets < plan.processes || plan.duration.is_zero() {
        bail!("there must be a process, a socket for each, and a duration");
    }
    if !(1..=towpath_udp::BATCH_MAX as u32).contains(&plan.window) {
        bail!("a window is of 1 to {} requests", towpath_udp::BATCH_MAX);
    }
    let seed = KeySeed::new(&config.target)?;
    let jobs = divide(plan.sockets, plan.processes).map(|sockets| {
        let StunPlan { window, warm_up, duration, .. } = *plan;
        worker::WorkerJob::Stun(StunJob { seed, sockets, window, warm_up, duration })
    });
    let mut workers = WorkerGroup::start(config, jobs.collect())?;
    let server = workers.measure(config.server()?, plan.warm_up, plan.duration)?;
    let (mut all, mut usage) = (StunOutcome::default(), Vec::new());
    for outcome in workers.outcomes()? {
        let WorkerOutcome::Asked(did) = outcome else { continue };
        all.answers += did.answers;
        all.wrong += did.wrong;
        all.stale += did.stale;
        all.lost += did.lost;
        all.latency.add(&did.latency);
        usage.push(did.usage);
    }
    let StunOutcome { answers, wrong, stale, lost, latency, .. } = all;
    let measured = clock::nanos(plan.duration);
    Ok(StunReport { measured, answers, wrong, stale, lost, latency: latency.quantiles(), usage, server })
}

impl ScenarioReport for StunReport {
    fn scenario(&self) -> &'static str {
        "stun"
    }

    fn rows(&self) -> Vec<Row> {
        let limited = self.is_too_slow();
        let figure = |value: f64| (!limited).then_some(value);
        let rate = self.answers as f64 * SECOND as f64 / self.measured as f64;
        let server = |value: &dyn Fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        vec![
            // Not subject to who was the limit: CPU time is spent for an answer, however long it waits.
            Row::new(
                "answers for the server's CPU",
                Unit::AnswersPerCpuSecond,
                server(&|server| self.answers as f64 * SECOND as f64 / server.cpu.max(1) as f64),
            ),
            Row::new("answers", Unit::AnswersPerSecond, Some(rate)).at_least(limited),
            Row::new("time to answer p50", Unit::Time, figure(self.latency.p50 as f64)),
            Row::new("time to answer p99", Unit::Time, figure(self.latency.p99 as f64)),
            Row::new("right answers", Unit::Count, Some(self.answers as f64)),
            Row::new("wrong answers", Unit::Count, Some(self.wrong as f64)),
            Row::new("answers too late, or again", Unit::Count, Some(self.stale as f64)),
            Row::new("requests lost", Unit::Count, Some(self.lost as f64)),
            Row::new(
                "server CPUs busy",
                Unit::Percent,
                server(&|server| server.cpu as f64 / server.wall.max(1) as f64 * 100.0),
            ),
            Row::new("busiest process", Unit::Percent, Some(self.occupancy() * 100.0)),
        ]
    }

    fn remarks(&self) -> Vec<String> {
        let rate = self.answers as f64 * SECOND as f64 / self.measured as f64;
        let limited = self.is_too_slow().then(|| {
            format!("THE LOAD GENERATOR WAS THE LIMIT: the server can do more than {rate:.0} a second")
        });
        limited.into_iter().collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_too_slow()).then_some(("time to answer", self.latency));
        svg::of_quantiles("From request to answer", shown.as_slice()).into_iter().collect()
    }

    fn is_damaged(&self) -> bool {
        self.wrong > 0
    }
}

impl StunReport {
    fn occupancy(&self) -> f64 {
        self.usage.iter().map(ThreadUsage::occupancy).fold(0.0, f64::max)
    }

    fn is_too_slow(&self) -> bool {
        self.occupancy() > MAX_OCCUPANCY
    }
}
