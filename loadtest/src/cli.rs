//! The command line.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Parser, Subcommand};
use relay_client::leaf_hash;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;

use crate::crew::Setup;
use crate::report::{File, Report, compare, summarize};
use crate::scenario::{idle, pairs, ramp, storm};
use crate::target::{Security, Target, TrustIn};
use crate::worker;

/// Puts load on a DERP relay and says what it costs.
#[derive(Debug, Parser)]
#[command(name = "towpath-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Of each two clients one sends to the other
    Pairs(PairsArgs),
    /// The highest paced rate of pairs at which next to nothing is lost and latency stays low
    Ramp(RampArgs),
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
    /// One figure of the reports of two relays, run in turn: both medians, and the median of the paired ratios
    Compare {
        /// The figure's name, as reports have it
        #[arg(long)]
        figure: String,
        /// Reports of the first relay, in the order of the runs
        #[arg(long, num_args = 1.., required = true)]
        first: Vec<PathBuf>,
        /// Reports of the second relay, as many
        #[arg(long, num_args = 1.., required = true)]
        second: Vec<PathBuf>,
    },
    /// A process of the load, started by the others
    #[command(hide = true)]
    Worker,
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// Where the relay listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: SocketAddr,
    /// What the relay is called in TLS and HTTP
    #[arg(long, default_value = "localhost")]
    server_name: String,
    #[command(flatten)]
    trust: TrustArgs,
    /// Offer TLS 1.2 only
    #[arg(long, conflicts_with = "plain")]
    tls12: bool,
    /// The relay's process: its CPU time and memory are reported
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// CPUs for the processes of the load, one each in turn; not the relay's
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    cpus: Vec<usize>,
    /// Write the report to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TrustArgs {
    /// Trust the certificate in this PEM file
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Trust the certificate with this SHA-256 over its DER
    #[arg(long, value_name = "HEX", value_parser = parse_hash)]
    pin: Option<[u8; 32]>,
    /// Trust whoever answers
    #[arg(long)]
    trust_anyone: bool,
    /// No TLS
    #[arg(long)]
    plain: bool,
}

#[derive(Debug, Args)]
struct PairsArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Pairs of a sender and a receiver
    #[arg(long, default_value_t = 10)]
    pairs: u32,
    /// Bytes of a packet, 28 to 65536; or a mix with weights, such as 64:7,576:4,1400:1
    #[arg(long, default_value = "1400", value_parser = parse_sizes)]
    size: pairs::Sizes,
    /// Packets that are due, sealed and written together
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// Packets a second of all pairs together, whatever the relay does; without it, as many as the relay takes
    #[arg(long, conflicts_with = "window")]
    rate: Option<u64>,
    /// Packets of each pair that may be on their way at a time
    #[arg(long)]
    window: Option<u32>,
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long to send before that
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// Give no figures when 1 % of the packets could not be sent within this of being due
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    max_late: Duration,
    /// Processes that send
    #[arg(long, default_value_t = 1)]
    senders: u32,
    /// Processes that receive
    #[arg(long, default_value_t = 1)]
    receivers: u32,
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
struct IdleArgs {
    #[command(flatten)]
    common: CommonArgs,
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
    common: CommonArgs,
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
    let done = match Cli::parse().command {
        Command::Worker => return worker::main(),
        Command::Summary { files } => {
            summarize(&files).and_then(|text| print(&text)).map(|()| ExitCode::SUCCESS)
        }
        Command::Compare { figure, first, second } => {
            compare(&figure, &first, &second).and_then(|text| print(&text)).map(|()| ExitCode::SUCCESS)
        }
        Command::Pairs(args) => pairs(&args),
        Command::Ramp(args) => ramp(&args),
        Command::Idle(args) => idle(&args),
        Command::Storm(args) => storm(&args),
    };
    done.unwrap_or_else(|error| {
        // Whoever has closed the stream does not want to know.
        let _ = writeln!(io::stderr(), "towpath-loadtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn pairs(args: &PairsArgs) -> Result<ExitCode> {
    finish(&args.common, pairs::run(&args.common.setup()?, &args.plan())?)
}

fn ramp(args: &RampArgs) -> Result<ExitCode> {
    let plan = ramp::Plan {
        step: args.pairs.plan(),
        from: args.from,
        to: args.to,
        max_loss: args.max_loss / 100.0,
        max_latency: u64::try_from(args.max_latency.as_nanos())?,
    };
    finish(&args.pairs.common, ramp::run(&args.pairs.common.setup()?, &plan)?)
}

fn idle(args: &IdleArgs) -> Result<ExitCode> {
    let plan = idle::Plan { steps: args.steps.clone(), rest: args.rest };
    finish(&args.common, idle::run(&args.common.setup()?, &plan)?)
}

fn storm(args: &StormArgs) -> Result<ExitCode> {
    let plan = storm::Plan {
        connections: args.connections,
        concurrency: args.concurrency,
        processes: args.processes,
    };
    finish(&args.common, storm::run(&args.common.setup()?, &plan)?)
}

fn finish(args: &CommonArgs, report: impl Report + Serialize) -> Result<ExitCode> {
    let status = if report.is_damaged() { ExitCode::from(3) } else { ExitCode::SUCCESS };
    let file = File::new(report);
    if let Some(path) = &args.json {
        fs::write(path, serde_json::to_vec_pretty(&file)?)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    print(&file.to_string())?;
    Ok(status)
}

fn print(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

impl PairsArgs {
    fn plan(&self) -> pairs::Plan {
        let pace = match (self.rate, self.window) {
            (Some(rate), _) => pairs::Pace::Rate(rate),
            (None, Some(window)) => pairs::Pace::Window(window),
            (None, None) => pairs::Pace::FlatOut,
        };
        pairs::Plan {
            pairs: self.pairs,
            sizes: self.size.clone(),
            batch: self.batch,
            pace,
            warm_up: self.warm_up,
            duration: self.duration,
            max_late: self.max_late,
            senders: self.senders,
            receivers: self.receivers,
        }
    }
}

impl CommonArgs {
    fn setup(&self) -> Result<Setup> {
        let target =
            Target { address: self.connect, name: self.server_name.clone(), security: self.security()? };
        let program = std::env::current_exe().context("finding this program")?;
        Ok(Setup { target, server_pid: self.server_pid, cpus: self.cpus.clone(), program })
    }

    fn security(&self) -> Result<Security> {
        let trust = match &self.trust {
            TrustArgs { plain: true, .. } => return Ok(Security::Plain),
            TrustArgs { certificate: Some(path), .. } => TrustIn::Pin(hash_of(path)?),
            TrustArgs { pin: Some(hash), .. } => TrustIn::Pin(*hash),
            TrustArgs { .. } => TrustIn::Anyone,
        };
        Ok(if self.tls12 { Security::Tls12(trust) } else { Security::Tls(trust) })
    }
}

fn hash_of(path: &Path) -> Result<[u8; 32]> {
    let certificate = CertificateDer::from_pem_file(path)
        .map_err(|error| anyhow!("no certificate in {}: {error}", path.display()))?;
    Ok(leaf_hash(&certificate))
}

fn parse_hash(text: &str) -> Result<[u8; 32]> {
    let digits = text.strip_prefix("sha256-raw:").unwrap_or(text);
    wire::key::NodePublic::from_hex(digits)
        .map(|hash| *hash.as_bytes())
        .ok_or_else(|| anyhow!("expected 64 hexadecimal digits"))
}

fn parse_sizes(text: &str) -> Result<pairs::Sizes> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (len, weight) = part.split_once(':').unwrap_or((part, "1"));
        mix.push((len.parse().context("a length")?, weight.parse().context("a weight")?));
    }
    pairs::Sizes::new(&mix)
}

fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().context("a whole number and a unit, such as 10s")?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => bail!("the unit must be ms, s or m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn values_are_read() {
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert!(
            parse_duration("2").is_err() && parse_duration("s").is_err() && parse_duration("2h").is_err()
        );
        assert_eq!(parse_sizes("1400").unwrap(), pairs::Sizes::new(&[(1400, 1)]).unwrap());
        assert_eq!(parse_sizes("64:7,1400:3").unwrap(), pairs::Sizes::new(&[(64, 7), (1400, 3)]).unwrap());
        assert!(parse_sizes("64:").is_err() && parse_sizes("").is_err());
        let hex = "ab".repeat(32);
        assert_eq!(parse_hash(&format!("sha256-raw:{hex}")).unwrap(), [0xab; 32]);
        assert!(parse_hash("abab").is_err());
    }

    #[test]
    fn one_way_of_trust_is_asked_for() {
        let parse = |args: &str| {
            let line = format!("towpath-loadtest storm --connect 127.0.0.1:1 {args}");
            Cli::try_parse_from(line.split_whitespace()).is_ok()
        };
        assert!(parse("--plain") && parse("--trust-anyone --tls12"));
        assert!(!parse("") && !parse("--plain --trust-anyone") && !parse("--plain --tls12"));
    }
}
