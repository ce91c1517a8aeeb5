//! What several commands ask for on the command line.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use towpath_relay_client::certificate_pin;
use towpath_wire::pin::CertificatePin;

use crate::protocol::RelayProtocol;
use crate::report::html;
use crate::report::{ReportFile, ScenarioReport};
use crate::scenario::pairs;
use crate::target::{LoadTarget, TargetSecurity, TargetTrust};
use crate::workers::RunConfig;

/// What is to be loaded, and how it is reached.
#[derive(Debug, Args)]
pub(super) struct RelayArgs {
    /// Where the relay listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: SocketAddr,
    /// What the relay is called in TLS and HTTP
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// What the relay speaks
    #[arg(long, value_enum, default_value_t)]
    protocol: RelayProtocol,
    #[command(flatten)]
    trust: TrustArgs,
    /// Offer TLS 1.2 only
    #[arg(long, conflicts_with = "plain")]
    tls12: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Where the load comes from, and where the report goes.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The server's process: its CPU time and memory are reported
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// CPUs for the processes of the load, one each in turn; not the server's
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    cpus: Vec<usize>,
    /// Write the report to this file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report to this file as a page with plots, too
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct TrustArgs {
    /// Trust the certificate in this PEM file
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Trust the certificate with this SHA-256 over its DER
    #[arg(long, value_name = "HEX", value_parser = parse_pin)]
    pin: Option<CertificatePin>,
    /// Trust whoever answers
    #[arg(long)]
    trust_anyone: bool,
    /// No TLS
    #[arg(long)]
    plain: bool,
}

/// How long it takes.
#[derive(Debug, Args)]
pub(super) struct TimeArgs {
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(super) duration: Duration,
    /// How long to send before that
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(super) warm_up: Duration,
}

/// A load of pairs.
#[derive(Debug, Args)]
pub(super) struct PairsArgs {
    #[command(flatten)]
    pub(super) common: RelayArgs,
    /// Pairs of a sender and a receiver
    #[arg(long, default_value_t = 10)]
    pairs: u32,
    /// Bytes of a packet, 28 to 65536; or a mix with weights, such as 64:7,576:4,1400:1
    #[arg(long, default_value = "1400", value_parser = parse_sizes)]
    size: pairs::PacketSizes,
    /// Packets that are due, sealed and written together
    #[arg(long, default_value_t = 8)]
    batch: u32,
    /// Packets a second of all pairs together, whatever the relay does; without it, as many as the relay takes
    #[arg(long, conflicts_with = "window")]
    rate: Option<u64>,
    /// Packets of each pair that may be on their way at a time
    #[arg(long)]
    window: Option<u32>,
    #[command(flatten)]
    time: TimeArgs,
    /// Give no figures when 1 % of the packets could not be sent within this of being due
    #[arg(long, default_value = "2ms", value_parser = parse_duration)]
    max_late: Duration,
    /// Processes that send
    #[arg(long, default_value_t = 1)]
    senders: u32,
    /// Processes that receive
    #[arg(long, default_value_t = 1)]
    receivers: u32,
    /// Log clients in one after the other, so that a fresh relay that gives its workers connections in turn has each
    /// pair within one worker or across two
    #[arg(long, value_enum)]
    placement: Option<pairs::Placement>,
}

impl PairsArgs {
    /// The load.
    pub(super) fn plan(&self) -> pairs::PairsPlan {
        let pace = match (self.rate, self.window) {
            (Some(rate), _) => pairs::Pace::Rate(rate),
            (None, Some(window)) => pairs::Pace::Window(window),
            (None, None) => pairs::Pace::FlatOut,
        };
        pairs::PairsPlan {
            pairs: self.pairs,
            sizes: self.size.clone(),
            batch: self.batch,
            pace,
            warm_up: self.time.warm_up,
            duration: self.time.duration,
            max_late: self.max_late,
            senders: self.senders,
            receivers: self.receivers,
            placement: self.placement,
        }
    }
}

impl RelayArgs {
    /// What all scenarios need to know.
    pub(super) fn config(&self) -> Result<RunConfig> {
        let security = self.security()?;
        let name = self.server_name.clone();
        self.run.config(LoadTarget { address: self.connect, name, security, protocol: self.protocol })
    }

    /// Says what came of it.
    pub(super) fn finish(&self, report: impl ScenarioReport + Serialize) -> Result<ExitCode> {
        self.run.finish(report)
    }

    fn security(&self) -> Result<TargetSecurity> {
        let trust = match &self.trust {
            TrustArgs { plain: true, .. } => return Ok(TargetSecurity::Plain),
            TrustArgs { certificate: Some(path), .. } => TargetTrust::Pin(pin_of(path)?),
            TrustArgs { pin: Some(pin), .. } => TargetTrust::Pin(*pin),
            TrustArgs { .. } => TargetTrust::Anyone,
        };
        Ok(if self.tls12 { TargetSecurity::Tls12(trust) } else { TargetSecurity::Tls(trust) })
    }
}

impl RunArgs {
    /// What all scenarios need to know.
    pub(super) fn config(&self, target: LoadTarget) -> Result<RunConfig> {
        let program = std::env::current_exe().context("finding this program")?;
        Ok(RunConfig { target, server_pid: self.server_pid, cpus: self.cpus.clone(), program })
    }

    /// Says what came of it.
    pub(super) fn finish(&self, report: impl ScenarioReport + Serialize) -> Result<ExitCode> {
        let status = if report.is_damaged() { ExitCode::from(3) } else { ExitCode::SUCCESS };
        let file = ReportFile::new(report);
        let write = |path: &Path, text: &[u8]| {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        };
        if let Some(path) = &self.json {
            write(path, &serde_json::to_vec_pretty(&file)?)?;
        }
        if let Some(path) = &self.html {
            write(path, html::page(&file).as_bytes())?;
        }
        print(&file.to_string())?;
        Ok(status)
    }
}

/// Says something on the standard output.
pub(super) fn print(text: &str) -> Result<()> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}

fn pin_of(path: &Path) -> Result<CertificatePin> {
    let certificate = CertificateDer::from_pem_file(path)
        .map_err(|error| anyhow!("no certificate in {}: {error}", path.display()))?;
    Ok(certificate_pin(&certificate))
}

/// Parses a pin, with or without its prefix.
fn parse_pin(text: &str) -> Result<CertificatePin> {
    let digits = text.strip_prefix(CertificatePin::PREFIX).unwrap_or(text);
    CertificatePin::from_hex(digits).ok_or_else(|| anyhow!("expected 64 hexadecimal digits"))
}

/// A length, or a mix with weights.
pub(super) fn parse_sizes(text: &str) -> Result<pairs::PacketSizes> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (len, weight) = part.split_once(':').unwrap_or((part, "1"));
        mix.push((len.parse().context("a length")?, weight.parse().context("a weight")?));
    }
    pairs::PacketSizes::new(&mix)
}

/// A whole number and a unit.
pub(super) fn parse_duration(text: &str) -> Result<Duration> {
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

    #[test]
    fn values_are_read() {
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert!(
            parse_duration("2").is_err() && parse_duration("s").is_err() && parse_duration("2h").is_err()
        );
        assert_eq!(parse_sizes("1400").unwrap(), pairs::PacketSizes::new(&[(1400, 1)]).unwrap());
        assert_eq!(
            parse_sizes("64:7,1400:3").unwrap(),
            pairs::PacketSizes::new(&[(64, 7), (1400, 3)]).unwrap()
        );
        assert!(parse_sizes("64:").is_err() && parse_sizes("").is_err());
        let pin = CertificatePin::from_sha256([0xab; 32]);
        assert_eq!(parse_pin(&pin.to_string()).unwrap(), pin);
        assert_eq!(parse_pin(&"ab".repeat(32)).unwrap(), pin);
        assert!(parse_pin("abab").is_err());
    }
}
