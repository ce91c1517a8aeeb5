//! The command line.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::clock;
use crate::protocol::RelayProtocol;
use crate::report::summary::summarize;
use crate::scenario::{fan_in, idle, latency, own_flood, pairs, ramp, storm, stun};
use crate::target::{LoadTarget, TargetSecurity};
use crate::worker;

mod args;
mod reports;

use args::{PairsArgs, RelayArgs, RunArgs, TimeArgs, parse_duration, parse_sizes, print};

/// Puts load on a relay and says what it costs.
#[derive(Debug, Parser)]
#[command(name = "towpath-loadtest", version)]
struct LoadtestCli {
    #[command(subcommand)]
    command: LoadtestCommand,
}

#[derive(Debug, Subcommand)]
enum LoadtestCommand {
    /// Of each two clients one sends to the other
    Pairs(PairsArgs),
    /// The highest paced rate of pairs at which next to nothing is lost and latency stays low
    Ramp(RampArgs),
    /// Round trips while the relay is at rest or busy
    Latency(LatencyArgs),
    /// What comes to a client that floods its own uplink
    OwnFlood(OwnFloodArgs),
    /// Many senders to few receivers, one of which never reads
    FanIn(FanInArgs),
    /// STUN Binding requests, as many as the server answers
    Stun(StunArgs),
    /// Connections that rest after a little traffic: what memory the relay needs for each
    Idle(IdleArgs),
    /// Connects and logins, as many as the relay takes
    Storm(StormArgs),
    /// The median of each figure of several JSON reports of one scenario
    Summary {
        /// The reports
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// One figure of several servers that were measured in turn, as cells of a table: medians, and medians of the ratios
    Compare(reports::CompareArgs),
    /// A plot of several servers that were measured in turn, as SVG
    Plot(reports::PlotArgs),
    /// A process of the load, started by the others
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct RampArgs {
    #[command(flatten)]
    pairs: PairsArgs,
    /// The first rate, packets a second
    #[arg(long, default_value_t = 20_000)]
    from: u64,
    /// No rate above this
    #[arg(long, default_value_t = 2_000_000)]
    to: u64,
    /// Percent of the packets that may be lost or not taken
    #[arg(long, default_value_t = 0.1)]
    max_loss: f64,
    /// What 99 % of the packets may need from when they are due
    #[arg(long, default_value = "5ms", value_parser = parse_duration)]
    max_latency: Duration,
}

#[derive(Debug, Args)]
struct LatencyArgs {
    /// The load in the background; its rate and duration count
    #[command(flatten)]
    pairs: PairsArgs,
    /// Round trips a second
    #[arg(long, default_value_t = 1000)]
    probes: u64,
    /// Send packets of so many bytes to a peer and back, instead of DERP pings
    #[arg(long, value_name = "BYTES")]
    peer: Option<usize>,
}

#[derive(Debug, Args)]
struct OwnFloodArgs {
    #[command(flatten)]
    common: RelayArgs,
    /// Strangers that send to the flooder, and as many that send to one that only listens
    #[arg(long, default_value_t = 10)]
    strangers: u32,
    /// Packets a second of all strangers together
    #[arg(long, default_value_t = 4000)]
    rate: u64,
    /// Bytes of a packet, or a mix with weights
    #[arg(long, default_value = "1000", value_parser = parse_sizes)]
    size: pairs::PacketSizes,
    #[command(flatten)]
    time: TimeArgs,
    /// Say so when 1 % of the strangers' packets could not be sent within this of being due
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    max_late: Duration,
}

#[derive(Debug, Args)]
struct FanInArgs {
    #[command(flatten)]
    common: RelayArgs,
    /// Clients that send, to the receivers in turn
    #[arg(long, default_value_t = 50)]
    senders: u32,
    /// Clients that are sent to; the first never reads
    #[arg(long, default_value_t = 10)]
    receivers: u32,
    /// Bytes of a packet, or a mix with weights
    #[arg(long, default_value = "1400", value_parser = parse_sizes)]
    size: pairs::PacketSizes,
    /// Packets that are sealed and written together
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// Packets a second of all senders together; without it, as many as the relay takes
    #[arg(long)]
    rate: Option<u64>,
    #[command(flatten)]
    time: TimeArgs,
    /// Where the server's counters are, such as http://127.0.0.1:9090/metrics
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
}

#[derive(Debug, Args)]
struct StunArgs {
    /// Where the server listens, by UDP
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: SocketAddr,
    #[command(flatten)]
    run: RunArgs,
    /// Sockets that ask
    #[arg(long, default_value_t = 1000)]
    sockets: u32,
    /// Requests of each socket that may be on their way at a time
    #[arg(long, default_value_t = 4)]
    window: u32,
    /// Processes that ask
    #[arg(long, default_value_t = 1)]
    processes: u32,
    #[command(flatten)]
    time: TimeArgs,
}

#[derive(Debug, Args)]
struct IdleArgs {
    #[command(flatten)]
    common: RelayArgs,
    /// How many connections there are, step by step
    #[arg(long, value_delimiter = ',', default_value = "1000,4000")]
    steps: Vec<u32>,
    /// How long they rest before the relay's memory is looked at
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    rest: Duration,
}

#[derive(Debug, Args)]
struct StormArgs {
    #[command(flatten)]
    common: RelayArgs,
    /// Connections in total
    #[arg(long, default_value_t = 10_000)]
    connections: u32,
    /// Connections that are being made at a time, in each process
    #[arg(long, default_value_t = 64)]
    concurrency: u32,
    /// Processes that connect
    #[arg(long, default_value_t = 1)]
    processes: u32,
}

/// The main function.
///
/// Exit status 1 means that something went wrong, 2 a bad command line, 3 that the relay duplicated, reordered, changed
/// or misrouted packets.
#[must_use]
pub fn main() -> ExitCode {
    let done = match LoadtestCli::parse().command {
        LoadtestCommand::Worker => return worker::main(),
        LoadtestCommand::Summary { files } => {
            summarize(&files).and_then(|text| print(&text)).map(|()| ExitCode::SUCCESS)
        }
        LoadtestCommand::Compare(args) => reports::print_row(args).map(|()| ExitCode::SUCCESS),
        LoadtestCommand::Plot(args) => reports::write_plot(args).map(|()| ExitCode::SUCCESS),
        LoadtestCommand::Pairs(args) => pairs(&args),
        LoadtestCommand::Ramp(args) => ramp(&args),
        LoadtestCommand::Latency(args) => latency(&args),
        LoadtestCommand::OwnFlood(args) => own_flood(&args),
        LoadtestCommand::FanIn(args) => fan_in(&args),
        LoadtestCommand::Stun(args) => stun(&args),
        LoadtestCommand::Idle(args) => idle(&args),
        LoadtestCommand::Storm(args) => storm(&args),
    };
    done.unwrap_or_else(|error| {
        // Whoever has closed the stream does not want to know.
        let _ = writeln!(io::stderr(), "towpath-loadtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn pairs(args: &PairsArgs) -> Result<ExitCode> {
    args.common.finish(pairs::run(&args.common.config()?, &args.plan())?)
}

fn ramp(args: &RampArgs) -> Result<ExitCode> {
    let plan = ramp::RampPlan {
        step: args.pairs.plan(),
        from: args.from,
        to: args.to,
        max_loss: args.max_loss / 100.0,
        max_latency: clock::nanos(args.max_latency),
    };
    args.pairs.common.finish(ramp::run(&args.pairs.common.config()?, &plan)?)
}

fn latency(args: &LatencyArgs) -> Result<ExitCode> {
    let pairs = args.pairs.plan();
    let plan = latency::LatencyPlan {
        via: args.peer.map_or(latency::RoundTripKind::Ping, latency::RoundTripKind::Peer),
        rate: args.probes,
        warm_up: pairs.warm_up,
        duration: pairs.duration,
        max_late: pairs.max_late,
        background: matches!(pairs.pace, pairs::Pace::Rate(_)).then_some(pairs),
    };
    args.pairs.common.finish(latency::run(&args.pairs.common.config()?, &plan)?)
}

fn own_flood(args: &OwnFloodArgs) -> Result<ExitCode> {
    let plan = own_flood::OwnFloodPlan {
        strangers: args.strangers,
        rate: args.rate,
        sizes: args.size.clone(),
        warm_up: args.time.warm_up,
        duration: args.time.duration,
        max_late: args.max_late,
    };
    args.common.finish(own_flood::run(&args.common.config()?, &plan)?)
}

fn fan_in(args: &FanInArgs) -> Result<ExitCode> {
    let plan = fan_in::FanInPlan {
        senders: args.senders,
        receivers: args.receivers,
        sizes: args.size.clone(),
        batch: args.batch,
        rate: args.rate,
        warm_up: args.time.warm_up,
        duration: args.time.duration,
        metrics: args.metrics.clone(),
    };
    args.common.finish(fan_in::run(&args.common.config()?, &plan)?)
}

fn stun(args: &StunArgs) -> Result<ExitCode> {
    let plan = stun::StunPlan {
        sockets: args.sockets,
        window: args.window,
        processes: args.processes,
        warm_up: args.time.warm_up,
        duration: args.time.duration,
    };
    let target = LoadTarget {
        address: args.connect,
        name: String::new(),
        security: TargetSecurity::Plain,
        protocol: RelayProtocol::Derp,
    };
    args.run.finish(stun::run(&args.run.config(target)?, &plan)?)
}

fn idle(args: &IdleArgs) -> Result<ExitCode> {
    let plan = idle::IdlePlan { steps: args.steps.clone(), rest: args.rest };
    args.common.finish(idle::run(&args.common.config()?, &plan)?)
}

fn storm(args: &StormArgs) -> Result<ExitCode> {
    let plan = storm::StormPlan {
        connections: args.connections,
        concurrency: args.concurrency,
        processes: args.processes,
    };
    args.common.finish(storm::run(&args.common.config()?, &plan)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        LoadtestCli::command().debug_assert();
    }

    #[test]
    fn one_way_of_trust_is_asked_for() {
        let parse = |args: &str| {
            let line = format!("towpath-loadtest storm --connect 127.0.0.1:1 {args}");
            LoadtestCli::try_parse_from(line.split_whitespace()).is_ok()
        };
        assert!(parse("--plain") && parse("--trust-anyone --tls12"));
        assert!(!parse("") && !parse("--plain --trust-anyone") && !parse("--plain --tls12"));
    }
}
