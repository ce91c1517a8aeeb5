//! The options that scenarios have in common.

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

use crate::clock;
use crate::flow::packet::PacketSizes;
use crate::protocol::RelayProtocol;
use crate::report::{ReportFile, ScenarioReport, html};
use crate::scenario::config::RunConfig;
use crate::target::{LoadTarget, TargetSecurity, TargetTrust};

/// Options that choose the server.
pub(crate) trait TargetArgs: Args {
    /// The server that the options choose.
    fn target(&self) -> Result<LoadTarget>;
}

/// The options that choose a relay.
#[derive(Debug, Args)]
pub(crate) struct RelayArgs {
    /// The address that the relay listens on
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: SocketAddr,
    /// The relay's name in TLS and HTTP
    #[arg(long, default_value = "localhost")]
    server_name: String,
    /// The protocol that the relay speaks
    #[arg(long, value_enum, default_value_t)]
    protocol: RelayProtocol,
    #[command(flatten)]
    trust: TrustArgs,
    /// Offer TLS 1.2 only
    #[arg(long, conflicts_with = "plain")]
    tls12: bool,
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
    /// Trust any certificate
    #[arg(long)]
    trust_anyone: bool,
    /// Connect without TLS
    #[arg(long)]
    plain: bool,
}

impl TargetArgs for RelayArgs {
    fn target(&self) -> Result<LoadTarget> {
        let (name, security) = (self.server_name.clone(), self.security()?);
        Ok(LoadTarget { address: self.connect, name, security, protocol: self.protocol })
    }
}

impl RelayArgs {
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

/// The option that chooses a STUN server.
#[derive(Debug, Args)]
pub(crate) struct StunServerArgs {
    /// The UDP address that the server listens on
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: SocketAddr,
}

impl TargetArgs for StunServerArgs {
    fn target(&self) -> Result<LoadTarget> {
        Ok(LoadTarget {
            address: self.connect,
            name: String::new(),
            security: TargetSecurity::Plain,
            protocol: RelayProtocol::Derp,
        })
    }
}

/// The options for the processes of a run and for its report.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The process id of the server, to report its CPU time and memory
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// CPUs for the processes of the load, one each in turn; none of them should be the server's
    #[arg(long, value_delimiter = ',', value_name = "CPU")]
    cpus: Vec<usize>,
    /// Also write the report to this file, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the report to this file, as an HTML page with plots
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

impl RunArgs {
    /// The configuration of a run against `target`.
    pub(crate) fn config(&self, target: LoadTarget) -> Result<RunConfig> {
        let program =
            std::env::current_exe().context("finding the program to start worker processes with")?;
        Ok(RunConfig { target, server_pid: self.server_pid, cpus: self.cpus.clone(), program })
    }

    /// Prints a report and writes it to the files that were asked for. The exit code is 3 if the report shows damage.
    pub(crate) fn publish(&self, file: &ReportFile<impl ScenarioReport + Serialize>) -> Result<ExitCode> {
        let write = |path: &Path, text: &[u8]| {
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        };
        if let Some(path) = &self.json {
            write(path, &serde_json::to_vec_pretty(file)?)?;
        }
        if let Some(path) = &self.html {
            write(path, html::page(file).as_bytes())?;
        }
        io::stdout().write_all(file.to_string().as_bytes())?;
        Ok(if file.detail.is_damaged() { ExitCode::from(3) } else { ExitCode::SUCCESS })
    }
}

/// The options for the length of a run.
#[derive(Clone, Debug, Args)]
pub(crate) struct TimeArgs {
    /// How long to measure
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub(crate) duration: Duration,
    /// How long to send before that
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub(crate) warm_up: Duration,
}

impl TimeArgs {
    /// The length of the measured time in nanoseconds.
    pub(crate) fn measured(&self) -> u64 {
        clock::nanos(self.duration)
    }
}

fn pin_of(path: &Path) -> Result<CertificatePin> {
    let certificate = CertificateDer::from_pem_file(path)
        .map_err(|error| anyhow!("cannot read a certificate from {}: {error}", path.display()))?;
    Ok(certificate_pin(&certificate))
}

/// Parses a pin, with or without its prefix.
fn parse_pin(text: &str) -> Result<CertificatePin> {
    let digits = text.strip_prefix(CertificatePin::PREFIX).unwrap_or(text);
    CertificatePin::from_hex(digits).ok_or_else(|| anyhow!("expected 64 hexadecimal digits"))
}

/// Parses a packet length, or a mix of lengths with weights.
pub(crate) fn parse_sizes(text: &str) -> Result<PacketSizes> {
    let mut mix = Vec::new();
    for part in text.split(',') {
        let (len, weight) = part.split_once(':').unwrap_or((part, "1"));
        let len = len.parse().context("expected a packet length in bytes")?;
        mix.push((len, weight.parse().context("expected a weight")?));
    }
    PacketSizes::new(&mix)
}

/// Parses a whole number and a unit.
pub(crate) fn parse_duration(text: &str) -> Result<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().context("expected a whole number and a unit, such as 10s")?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => bail!("expected a unit of ms, s or m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_values_are_parsed() {
        assert_eq!(parse_duration("1500ms").unwrap(), Duration::from_millis(1500));
        assert_eq!(parse_duration("2m").unwrap(), Duration::from_secs(120));
        assert!(
            parse_duration("2").is_err() && parse_duration("s").is_err() && parse_duration("2h").is_err()
        );
        assert_eq!(parse_sizes("1400").unwrap(), PacketSizes::new(&[(1400, 1)]).unwrap());
        assert_eq!(parse_sizes("64:7,1400:3").unwrap(), PacketSizes::new(&[(64, 7), (1400, 3)]).unwrap());
        assert!(parse_sizes("64:").is_err() && parse_sizes("").is_err());
        let pin = CertificatePin::from_sha256([0xab; 32]);
        assert_eq!(parse_pin(&pin.to_string()).unwrap(), pin);
        assert_eq!(parse_pin(&"ab".repeat(32)).unwrap(), pin);
        assert!(parse_pin("abab").is_err());
    }
}
