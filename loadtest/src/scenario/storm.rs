//! Storm: full handshakes and logins, a fixed number at a time. Each connection is closed after its login.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::clock::{self, SECOND};
use crate::histogram::{DurationHistogram, Quantiles};
use crate::host::open_files;
use crate::host::server::ServerUsage;
use crate::host::usage::ThreadUsage;
use crate::net::connect::{self, KeySeed};
use crate::net::dial::{ConnectError, Connector};
use crate::process::{Parent, WorkerProgress};
use crate::report::svg::{self, Plot};
use crate::report::unit::Unit;
use crate::report::{Row, ScenarioReport};
use crate::scenario::args::RelayArgs;
use crate::scenario::config::RunConfig;
use crate::scenario::interface::Scenario;
use crate::target::LoadTarget;
use crate::workers::{WorkerGroup, divide};

const ROLE: &str = "storm";

/// The options of a storm of connects.
#[derive(Debug, Args)]
pub(crate) struct StormArgs {
    /// Connections in total
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Connections that each process makes at a time
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Processes that connect
    #[arg(long, default_value_t = 1)]
    processes: u32,
}

/// The report on a storm of connects.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StormReport {
    /// Connections that logged in.
    pub connected: u64,
    /// Connections that failed, by step.
    pub failed: BTreeMap<String, u64>,
    /// The error of one of the connections that failed.
    pub failure: Option<String>,
    /// The time from the first connect to the last login in nanoseconds.
    pub took: u64,
    /// The time from connect to confirmed login, of each connection.
    pub latency: Quantiles,
    /// The usage of each process.
    pub usage: Vec<ThreadUsage>,
    /// The usage of the relay.
    pub server: Option<ServerUsage>,
}

/// The job of one process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StormJob {
    seed: KeySeed,
    clients: Range<u32>,
    concurrency: u32,
}

/// The outcome of a [`StormJob`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct StormOutcome {
    connected: u64,
    failed: BTreeMap<String, u64>,
    failure: Option<String>,
    latency: DurationHistogram,
    usage: ThreadUsage,
}

/// The scenario `storm`.
pub(crate) struct StormScenario;

impl Scenario for StormScenario {
    const NAME: &'static str = "storm";
    const ABOUT: &'static str = "Connects and logs in as fast as the relay takes it";
    type Target = RelayArgs;
    type Args = StormArgs;
    type Job = StormJob;
    type Outcome = StormOutcome;
    type Report = StormReport;

    fn run(args: &StormArgs, config: &RunConfig) -> Result<StormReport> {
        let StormArgs { connections, concurrency, processes } = *args;
        if [connections, concurrency, processes].contains(&0) {
            bail!("--connections, --concurrency and --processes must not be zero");
        }
        let server = config.server()?;
        let seed = KeySeed::new(&config.target)?;
        let jobs = divide(connections, processes).map(|clients| StormJob { seed, clients, concurrency });
        let mut workers = WorkerGroup::<Self>::start(config, jobs.collect())?;
        workers.wait_ready()?;
        let before = server.map(|server| server.sample()).transpose()?;
        let begin = clock::now();
        workers.proceed(begin)?;
        let outcomes = workers.outcomes()?;
        let took = clock::now() - begin;
        let server =
            server.zip(before.as_ref()).map(|(server, before)| server.usage_since(before)).transpose()?;
        let usage = outcomes.iter().map(|outcome| outcome.usage).collect();
        let mut all = StormOutcome::default();
        outcomes.into_iter().for_each(|outcome| all.add(outcome));
        let StormOutcome { connected, failed, failure, latency, .. } = all;
        Ok(StormReport { connected, failed, failure, took, latency: latency.quantiles(), usage, server })
    }

    fn work(target: &LoadTarget, job: StormJob, parent: &mut Parent) -> Result<StormOutcome> {
        open_files::allow_connections(job.concurrency.into())?;
        let connector = Connector::new(target)?;
        parent.ready()?;
        parent.wait_to_proceed()?;
        let before = ThreadUsage::of_thread()?;
        let mut outcome = connect::runtime()?.block_on(connect_all(connector, job, parent))?;
        outcome.usage = before.until_now()?;
        Ok(outcome)
    }
}

async fn connect_all(connector: Connector, job: StormJob, parent: &mut Parent) -> Result<StormOutcome> {
    let connector = Arc::new(connector);
    let mut outcome = StormOutcome::default();
    let (mut logins, mut clients) = (JoinSet::new(), job.clients);
    loop {
        while logins.len() < job.concurrency as usize
            && let Some(client) = clients.next()
        {
            let (connector, key) = (connector.clone(), job.seed.key(ROLE, client));
            logins.spawn(async move {
                let begin = clock::now();
                let connected = connector.connect(&key).await;
                connected.map(|_link| clock::now() - begin)
            });
        }
        let Some(login) = logins.join_next().await else { return Ok(outcome) };
        outcome.count(login?);
        let connections = outcome.connected;
        parent.report(clock::now(), || WorkerProgress { connections, ..Default::default() })?;
    }
}

impl StormOutcome {
    /// Counts a connection: the nanoseconds that it took, or why it failed.
    fn count(&mut self, login: Result<u64, ConnectError>) {
        match login {
            Ok(nanos) => {
                self.connected += 1;
                self.latency.record(nanos);
            }
            Err(error) => {
                *self.failed.entry(error.step.label().to_owned()).or_default() += 1;
                self.failure.get_or_insert_with(|| format!("{:#}", error.error));
            }
        }
    }

    /// Adds the counts of another process, without its usage.
    fn add(&mut self, other: Self) {
        self.connected += other.connected;
        self.latency.add(&other.latency);
        self.failure = self.failure.take().or(other.failure);
        for (step, count) in other.failed {
            *self.failed.entry(step).or_default() += count;
        }
    }
}

impl StormReport {
    fn is_too_slow(&self) -> bool {
        self.usage.iter().any(ThreadUsage::is_saturated)
    }

    fn connected_per_second(&self) -> f64 {
        self.connected as f64 * SECOND as f64 / self.took.max(1) as f64
    }
}

impl ScenarioReport for StormReport {
    fn rows(&self) -> Vec<Row> {
        let time = |name, nanos| {
            let nanos = (!self.is_too_slow()).then_some(nanos as f64);
            Row::new(name, Unit::Time, nanos)
        };
        // The relay's CPU time for a connection does not depend on how fast the load generator is.
        let per_connection =
            self.server.as_ref().map(|server| server.cpu as f64 / self.connected.max(1) as f64);
        let rate = Some(self.connected_per_second());
        let mut rows = vec![
            Row::new("relay CPU per connection", Unit::Time, per_connection),
            Row::count("connected", self.connected),
            Row::new("connected", Unit::ConnectionsPerSecond, rate).at_least(self.is_too_slow()),
            time("time to connect p50", self.latency.p50),
            time("time to connect p99", self.latency.p99),
            time("time to connect max", self.latency.max),
        ];
        let failed = self.failed.iter();
        rows.extend(failed.map(|(step, count)| Row::count(format!("failed at the step {step}"), *count)));
        let cpu = self.server.as_ref().map(ServerUsage::cpu_percent);
        rows.push(Row::new("relay CPUs busy", Unit::Percent, cpu));
        let busiest = ThreadUsage::busiest(&self.usage).occupancy() * 100.0;
        rows.push(Row::new("busiest process", Unit::Percent, Some(busiest)));
        rows
    }

    fn remarks(&self) -> Vec<String> {
        let limited = self.is_too_slow().then(|| {
            let rate = self.connected_per_second();
            format!("THE LOAD GENERATOR WAS THE LIMIT: the relay can do more than {rate:.0} a second")
        });
        let failure = self.failure.as_ref().map(|failure| format!("one of the failures: {failure}"));
        limited.into_iter().chain(failure).collect()
    }

    fn plots(&self) -> Vec<Plot> {
        let shown = (!self.is_too_slow()).then_some(("time to connect", self.latency));
        svg::of_quantiles("Time from connect to confirmed login", shown.as_slice()).into_iter().collect()
    }

    fn is_damaged(&self) -> bool {
        false
    }
}
