//! The DERP map: this relay's own or one from a file, printed, checked, or compared with another.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use towpath_derpmap::{Diff, Loaded, MAX_BYTES, MapReport, Severity};
use towpath_relay::config::{Config, KeySource, self_signed_files};
use towpath_relay::derpmap::Advertised;
use towpath_relay::identity;
use towpath_service::command::{Failure, print, warn};
use towpath_service::logs::say;
use towpath_service::visible_path;
use towpath_wire::map::DerpMap;
use towpath_wire::pin::CertificatePin;

use super::settings::Settings;

/// The name of the configuration's map in messages.
const OWN: &str = "the configuration";

/// The name of standard input in messages.
const STDIN: &str = "standard input";

#[derive(Args, Debug)]
pub(super) struct Derpmap {
    /// The reader that the map is for; --check and --diff recognize it from the file if not given [default: json]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Takes the map from a file (JSON, HuJSON, YAML; - is standard input) instead of this relay's configuration. --check
    /// takes several
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["Settings", "ipv4", "ipv6"])]
    from: Vec<PathBuf>,
    /// Lists what clients and Headscale reject or misread in the map. Exits with 1 if they cannot use part of it
    #[arg(long)]
    check: bool,
    /// Lists the clients that lose their connection when the map replaces OLD. Exits with 1 if there are any
    #[arg(long, value_name = "OLD")]
    diff: Option<PathBuf>,
    /// The form of the report of --check and --diff
    #[arg(long, value_enum, default_value_t = Style::Text)]
    report: Style,
    /// The relay's public IPv4 address, so that clients need no DNS look-up
    #[arg(long, value_name = "IP")]
    ipv4: Option<Ipv4Addr>,
    /// The relay's public IPv6 address, so that clients need no DNS look-up
    #[arg(long, value_name = "IP")]
    ipv6: Option<Ipv6Addr>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON, as Tailscale's clients and Headscale's derp.urls read it
    Json,
    /// YAML, a file for Headscale's derp.paths
    Headscale,
    /// The derpMap member of Tailscale's policy file, HuJSON
    TailscalePolicy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Style {
    /// For people
    Text,
    /// For programs
    Json,
}

impl Format {
    fn write(self, map: &DerpMap) -> String {
        match self {
            Self::Json => map.to_json(),
            Self::Headscale => map.to_headscale_yaml(),
            Self::TailscalePolicy => map.to_tailscale_policy(),
        }
    }
}

impl From<Format> for towpath_derpmap::MapFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Json => Self::Json,
            Format::Headscale => Self::Headscale,
            Format::TailscalePolicy => Self::TailscalePolicy,
        }
    }
}

impl Derpmap {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if self.check || self.diff.is_some() {
            return self.report();
        }
        let map = match &*self.from {
            [] => self.own()?,
            [path] => from_file(path)?,
            _ => return Err(anyhow!("--from takes one file, but with --check").into()),
        };
        print(&self.format.unwrap_or(Format::Json).write(&map))?;
        Ok(())
    }

    /// Returns the map of the configured relay.
    fn own(&self) -> Result<DerpMap, Failure> {
        let (config, resolved) = Config::read(&self.settings.sources(), false)?;
        warn("towpath-relay", &resolved);
        // A map has room for real ports only.
        if config.listen.is_some_and(|listen| listen.port() == 0)
            || config.stun.listen.first().is_some_and(|address| address.port() == 0)
        {
            return Err(anyhow!(
                "listen and stun.listen need ports other than 0, which is a new one at each start"
            )
            .into());
        }
        let mut advertised = Advertised::of(&config);
        advertised.certificate_pin = certificate_pin(&config)?;
        advertised.ipv4 = self.ipv4;
        advertised.ipv6 = self.ipv6;
        Ok(advertised.derp_map(&config))
    }

    fn report(&self) -> Result<(), Failure> {
        let is_stdin = |path: &&PathBuf| path.as_path() == Path::new("-");
        let from_stdin = self.from.iter().filter(is_stdin).count();
        if from_stdin > 0 && self.diff.iter().any(|path| is_stdin(&path)) {
            return Err(Failure::Unreadable(anyhow!("--from and --diff cannot both read standard input")));
        }
        if from_stdin > 1 {
            return Err(Failure::Unreadable(anyhow!("--from names standard input more than once")));
        }
        match &*self.from {
            [] => self.report_of(self.loaded_own()?),
            [path] => self.report_of(load(path, self.format)?),
            _ if self.diff.is_some() => {
                Err(anyhow!("--diff compares with one map; --from has several").into())
            }
            paths => self.reports(paths),
        }
    }

    /// Reports on each file, and ends as the worst of them does.
    fn reports(&self, paths: &[PathBuf]) -> Result<(), Failure> {
        let (mut is_wrong, mut unreadable) = (false, 0);
        for path in paths {
            match load(path, self.format).and_then(|loaded| self.report_of(loaded)) {
                Ok(()) => {}
                Err(Failure::Wrong) => is_wrong = true,
                Err(Failure::Unreadable(error)) => {
                    unreadable += 1;
                    match self.report {
                        Style::Text => say(&format!("towpath-relay: {error:#}")),
                        Style::Json => print(&unreadable_json(path, &error))?,
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match (unreadable, is_wrong) {
            (0, false) => Ok(()),
            (0, true) => Err(Failure::Wrong),
            (count, _) => {
                Err(Failure::Unreadable(anyhow!("{count} of {} files cannot be read", paths.len())))
            }
        }
    }

    fn report_of(&self, (name, loaded): (String, Loaded)) -> Result<(), Failure> {
        let findings = self.check.then(|| loaded.check());
        // A map that its reader refuses changes nothing, so there is nothing to compare. --check reports why it is
        // refused.
        let comparable = loaded.refusal().is_none();
        let diff = match &self.diff {
            Some(old) if comparable || !self.check => {
                let (old_name, old) = load(old, None)?;
                taken(&old_name, &old)?;
                taken(&name, &loaded)?;
                Some((old_name, Diff::between(&old.map, &loaded.map)))
            }
            _ => None,
        };
        let report = MapReport {
            file: &name,
            format: loaded.format(),
            findings: findings.as_deref(),
            map: findings.is_some().then_some(&loaded.map).filter(|_| comparable),
            diff: diff.as_ref().map(|(old_name, diff)| (&**old_name, diff)),
        };
        print(&match self.report {
            Style::Text => report.to_text(),
            Style::Json => report.to_json(),
        })?;
        if report.is_bad() { Err(Failure::Wrong) } else { Ok(()) }
    }

    /// Returns the map of the configured relay, as its reader takes it, and its name.
    fn loaded_own(&self) -> Result<(String, Loaded), Failure> {
        let format = self.format.unwrap_or(Format::Json);
        let text = format.write(&self.own()?);
        let loaded = Loaded::read(OWN, text.as_bytes(), Some(format.into()))
            .context("cannot read what derpmap prints")?;
        Ok((OWN.to_owned(), loaded))
    }
}

/// The report for programs on a file that has none.
fn unreadable_json(path: &Path, error: &anyhow::Error) -> String {
    format!(
        "{:#}\n",
        serde_json::json!({ "file": path.display().to_string(), "error": format!("{error:#}") })
    )
}

/// Returns the map in a file, as its reader takes it, to print it in another form.
fn from_file(path: &Path) -> Result<DerpMap, Failure> {
    let (name, loaded) = load(path, None)?;
    taken(&name, &loaded)?;
    if loaded.check().iter().any(|finding| finding.severity == Severity::Error) {
        say(&format!(
            "towpath-relay: warning: there are errors in {name}, which --check shows; this is \
            what clients make of it"
        ));
    }
    Ok(loaded.map.to_wire().with_context(|| format!("cannot print the map of {name}"))?)
}

/// Checks that the reader of the file does not refuse it.
fn taken(name: &str, loaded: &Loaded) -> Result<(), Failure> {
    let Some(finding) = loaded.refusal() else { return Ok(()) };
    let line = finding.line.map_or(String::new(), |line| format!(":{line}"));
    Err(Failure::Unreadable(anyhow!(
        "{name}{line}: {}: {}; --from {name} --check says more",
        finding.message,
        finding.effect
    )))
}

fn load(path: &Path, format: Option<Format>) -> Result<(String, Loaded), Failure> {
    let (name, bytes) = if path == Path::new("-") {
        (STDIN.to_owned(), read(io::stdin().lock()))
    } else {
        (visible_path(path), File::open(path).and_then(read))
    };
    let read = || -> anyhow::Result<Loaded> {
        Ok(Loaded::read(&name, &bytes.context("cannot be read")?, format.map(Into::into))?)
    };
    let loaded = read().map_err(|error| Failure::Unreadable(error.context(name.clone())))?;
    Ok((name, loaded))
}

/// Reads to the end, or to the first byte beyond the largest map.
fn read(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the pin of the self-signed certificate, if the relay serves one.
///
/// The relay makes the certificate when it first starts. A certificate made here would belong to the user that runs
/// this command, often root, and the relay could then not read it.
fn certificate_pin(config: &Config) -> anyhow::Result<Option<CertificatePin>> {
    if config.listen.is_none() {
        return Ok(None);
    }
    let cert = match (&config.cert, &config.node_key) {
        (Some(files), _) => files.cert.clone(),
        (None, KeySource::File(key_file)) => self_signed_files(key_file).cert,
        (None, KeySource::Inline(_) | KeySource::Ephemeral) => return Ok(None),
    };
    if config.cert.is_none()
        && !cert.try_exists().with_context(|| format!("cannot look for {}", visible_path(&cert)))?
    {
        bail!("there is no {} yet: start the relay once, it makes its certificate then", visible_path(&cert));
    }
    Ok(identity::pin_of_file(&cert)?)
}
