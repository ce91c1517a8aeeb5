//! A storm of connects: full handshakes and logins, one after the other on so many at a time, each closed at once.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::clock::{self, SECOND};
use crate::histogram::{DurationHistogram, Quantiles};
use crate::host::open_files;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{self, KeySeed};
use crate::net::dial::Connector;
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::target::LoadTarget;
use crate::worker::{self, Parent, WorkerOutcome};
use crate::workers::{RunConfig, WorkerCommand, WorkerGroup, WorkerMessage, WorkerProgress, divide};

/// A process that sleeps less than this share of the time could not have made more connections.
const MAX_OCCUPANCY: f64 = 0.97;

const ROLE: &str = "storm";

/// What load to make.
#[derive(Clone, Debug)]
pub struct StormPlan {
    /// Connections in total.
    pub connections: u32,
    /// Connections that are being made at a time, in each process.
    pub concurrency: u32,
    /// Processes.
    pub processes: u32,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StormReport {
    /// Connections that logged in.
    pub connected: u64,
    /// Connections that did not, by the step that failed.
    pub failed: BTreeMap<String, u64>,
    /// What one of the failures said.
    pub failure: Option<String>,
    /// From the first connect until the last login, in nanoseconds.
    pub took: u64,
    /// Of each connection, from the connect until the relay has confirmed the login.
    pub latency: Quantiles,
    /// Of each process.
    pub usage: Vec<ThreadUsage>,
    /// Of the relay.
    pub server: Option<ServerUsage>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StormJob {
    seed: KeySeed,
    clients: Range<u32>,
    concurrency: u32,
}

/// What a process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct StormOutcome {
    connected: u64,
    failed: BTreeMap<String, u64>,
    failure: Option<String>,
    latency: DurationHistogram,
    usage: ThreadUsage,
}

/// Makes the load and says what came of it.
///
/// # Errors
///
/// If a process cannot be started. Connections that fail are part of the report.
pub fn run(config: &RunConfig, plan: &StormPlan) -> Result<StormReport> {
    if [plan.connections, plan.concurrency, plan.processes].contains(&0) {
        bail!("connections, concurrency and processes must not be zero");
    }
    let server = config.server()?;
    let seed = KeySeed::new(&config.target)?;
    let jobs = divide(plan.connections, plan.processes)
        .map(|clients| worker::WorkerJob::Storm(StormJob { seed, clients, concurrency: plan.concurrency }));
    let mut workers = WorkerGroup::start(config, jobs.collect())?;
    workers.wait_ready()?;
    let before = server.map(|server| server.sample()).transpose()?;
    let begin = clock::now();
    workers.tell(WorkerCommand::Proceed(begin))?;
    let outcomes = workers.outcomes()?;
    let took = clock::now() - begin;
    let usage = server.zip(before.as_ref()).map(|(server, before)| server.usage_since(before)).transpose()?;
    Ok(report(outcomes, took, usage))
}

/// The part of one process.
pub(crate) fn work(target: &LoadTarget, job: &StormJob, parent: &mut Parent) -> Result<StormOutcome> {
    open_files::allow_connections(job.concurrency.into())?;
    let dialer = Arc::new(Connector::new(target)?);
    parent.send(&WorkerMessage::Ready)?;
    parent.wait_to_proceed()?;
    let meter = ThreadUsage::of_thread()?;
    let mut did = StormOutcome::default();
    connect::runtime()?.block_on(async {
        let (mut logins, mut clients) = (JoinSet::new(), job.clients.clone());
        loop {
            while logins.len() < job.concurrency as usize
                && let Some(client) = clients.next()
            {
                let (dialer, key) = (dialer.clone(), job.seed.key(ROLE, client));
                logins.spawn(async move {
                    let begun = clock::now();
                    let connected = dialer.connect(&key).await;
                    (clock::now() - begun, connected.map(drop))
                });
            }
            let Some(login) = logins.join_next().await else { return anyhow::Ok(()) };
            match login? {
                (nanos, Ok(())) => {
                    did.connected += 1;
                    did.latency.record(nanos);
                }
                (_, Err(failure)) => {
                    *did.failed.entry(failure.step.label().to_owned()).or_default() += 1;
                    did.failure.get_or_insert_with(|| format!("{:#}", failure.error));
                }
            }
            let now = clock::now();
            parent.report(now, || WorkerProgress { connections: did.connected, ..Default::default() })?;
        }
    })?;
    did.usage = meter.until_now()?;
    Ok(did)
}

fn report(outcomes: Vec<WorkerOutcome>, took: u64, server: Option<ServerUsage>) -> StormReport {
    let mut all = StormOutcome::default();
    let mut usage = Vec::new();
    for outcome in outcomes {
        let WorkerOutcome::Stormed(did) = outcome else { continue };
        all.connected += did.connected;
        all.latency.add(&did.latency);
        all.failure = all.failure.or(did.failure);
        for (step, count) in did.failed {
            *all.failed.entry(step).or_default() += count;
        }
        usage.push(did.usage);
    }
    let StormOutcome { connected, failed, failure, latency, .. } = all;
    StormReport { connected, failed, failure, took, latency: latency.quantiles(), usage, server }
}

impl StormReport {
    fn occupancy(&self) -> f64 {
        self.usage.iter().map(ThreadUsage::occupancy).fold(0.0, f64::max)
    }

    fn is_too_slow(&self) -> bool {
        self.occupancy() > MAX_OCCUPANCY
    }
}

impl ScenarioReport for StormReport {
    fn scenario(&self) -> &'static str {
        "storm"
    }

    fn rows(&self) -> Vec<Row> {
        let figure = |value: f64| (!self.is_too_slow()).then_some(value);
        let rate = self.connected as f64 * SECOND as f64 / self.took.max(1) as f64;
        let server = |value: &dyn Fn(&ServerUsage) -> f64| self.server.as_ref().map(value);
        let mut rows = vec![
            // Not subject to who was the limit: CPU time is spent for a connection, however long it waits.
            Row::new(
                "relay CPU per connection",
                Unit::Time,
                server(&|server| server.cpu as f64 / self.connected.max(1) as f64),
            ),
            Row::new("connected", Unit::Count, Some(self.connected as f64)),
            Row::new("connected", Unit::ConnectionsPerSecond, Some(rate)).at_least(self.is_too_slow()),
            Row::new("time to connect p50", Unit::Time, figure(self.latency.p50 as f64)),
            Row::new("time to connect p99", Unit::Time, figure(self.latency.p99 as f64)),
            Row::new("time to connect max", Unit::Time, figure(self.latency.max as f64)),
        ];
        rows.extend(self.failed.iter().map(|(step, count)| {
            Row::new(format!("failed at the step {step}"), Unit::Count, Some(*count as f64))
        }));
        rows.push(Row::new(
            "relay CPUs busy",
            Unit::Percent,
            server(&|server| server.cpu as f64 / server.wall.max(1) as f64 * 100.0),
        ));
        rows.push(Row::new("busiest process", Unit::Percent, Some(self.occupancy() * 100.0)));
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.is_too_slow() {
            let rate = self.connected as f64 * SECOND as f64 / self.took.max(1) as f64;
            remarks.push(format!(
                "THE LOAD GENERATOR WAS THE LIMIT: the relay can do more than {rate:.0} a second"
            ));
        }
        remarks.extend(self.failure.iter().map(|failure| format!("one of the failures: {failure}")));
        remarks
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_too_slow()).then_some(("time to connect", self.latency));
        svg::of_quantiles("From the connect until the login is confirmed", shown.as_slice())
            .into_iter()
            .collect()
    }

    fn is_damaged(&self) -> bool {
        false
    }
}
