//! The command line: which command with which settings, and how it went.
//!
//! Exit codes: 0 for success, 1 for a failure while running or a finding of a check, 2 for a wrong configuration or
//! command line (as clap has it) and for a file that cannot be checked. Results go to standard output, everything else
//! to standard error.

mod admin;
mod derper;
mod derpmap;
mod key;
mod settings;
mod token;
mod trial;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use towpath_relay::config::{Config, Log, StunOnly};
use towpath_relay::derpmap::Advertised;
use towpath_relay::{Addresses, ConfigSources, Files, Server, StunServer, identity, secret_file};
use towpath_service::command::{Failure, print, warn};
use towpath_service::config::{Problems, Resolved};
use towpath_service::logs::say;
use towpath_service::signals::Shutdown;
use towpath_service::{limits, logs};
use tracing::field::display;
use zeroize::Zeroizing;

use self::admin::{HealthCheck, Kick, ShowClients, ShowWhy};
use self::derpmap::Derpmap;
use self::key::ShowKey;
use self::settings::Settings;
use self::token::Tokens;
use self::trial::Trial;

/// A DERP relay with STUN for Tailscale and Headscale clients.
///
/// Without a command, runs the relay. Settings come from the file, the environment (TOWPATH_LISTEN, TOWPATH_OUTBOX_AGE
/// and so on) and the command line; each overrides the one before.
#[derive(Debug, Parser)]
#[command(name = "towpath-relay", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    run: Run,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reports everything that is wrong with the configuration, and runs nothing
    CheckConfig(Run),
    /// Prints the configuration as TOML, with the origin of each value; secrets are masked
    PrintConfig(Run),
    /// Makes a node key, or a key for the mesh, and writes it in the format of derper's key files
    Keygen(Keygen),
    /// Prints the public key that a relay shows, as mesh.peers needs it
    Key(ShowKey),
    /// Makes and reads tokens, by which a relay admits clients
    Token(Tokens),
    /// Prints the DERP map by which clients find this relay; checks and compares maps
    Derpmap(Derpmap),
    /// Lists the connections of a running relay
    Clients(ShowClients),
    /// Closes the connections of a key to a running relay
    Kick(Kick),
    /// Says what a running relay knows of a key: its connections, what it has dropped, where it is
    Why(ShowWhy),
    /// Asks a running relay whether it is ready, for images without a shell. Exits with 0 or 1
    Healthcheck(HealthCheck),
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Development mode: loopback only, port 3340, a key and certificate for this run; prints a DERP map to try
    #[arg(long)]
    dev: bool,
    /// STUN without a relay: no TLS listener and no key; reads the settings stun, admin and log only
    #[arg(long, conflicts_with_all = ["dev", "listen", "hostname", "cert", "key", "key_file"])]
    stun_only: bool,
}

#[derive(Args, Debug)]
struct Keygen {
    /// The file to create, readable by its owner only; without it, the key is printed
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A key for the relays of a region to share, or for probers, instead of a node key
    #[arg(long)]
    mesh: bool,
}

/// The exit code for a command line that cannot be understood, as clap has it.
const WRONG_COMMAND_LINE: u8 = 2;

/// Does what the command line asks for.
pub(crate) fn main() -> ExitCode {
    let words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    if let Some(answer) = derper::answer(words) {
        say(&format!("towpath-relay: {answer}"));
        return WRONG_COMMAND_LINE.into();
    }
    let Cli { run, command } = Cli::parse();
    // Before any key is read or made.
    if let Err(error) = limits::forbid_dumps() {
        say(&format!("towpath-relay: warning: cannot keep keys out of core dumps: {error}"));
    }
    let done = match command {
        None => start(&run),
        Some(Command::CheckConfig(run)) => check_config(&run),
        Some(Command::PrintConfig(run)) => print_config(&run),
        Some(Command::Keygen(Keygen { file, mesh: false })) => keygen(file.as_deref()),
        Some(Command::Keygen(Keygen { file, mesh: true })) => mesh_keygen(file.as_deref()),
        Some(Command::Key(key)) => key.run(),
        Some(Command::Token(tokens)) => tokens.run(),
        Some(Command::Derpmap(derpmap)) => derpmap.run(),
        Some(Command::Clients(clients)) => clients.run(),
        Some(Command::Kick(kick)) => kick.run(),
        Some(Command::Why(why)) => why.run(),
        Some(Command::Healthcheck(check)) => check.run(),
    };
    let code = match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Wrong) {
                say(&format!("towpath-relay: {failure}"));
            }
            failure.into()
        }
    };
    logs::flush();
    code
}

impl Run {
    fn read(&self) -> Result<(Config, Resolved), Problems> {
        Config::read(&self.settings.sources(), self.dev)
    }

    fn read_with_files(&self) -> Result<(Config, ConfigSources, Files), Problems> {
        let (sources, dev) = (self.settings.sources(), self.dev);
        let (config, resolved, files) = Config::read_with_files(&sources, dev)?;
        Ok((config, ConfigSources { sources, dev, resolved }, files))
    }

    fn read_stun_only(&self) -> Result<(StunOnly, Resolved), Problems> {
        StunOnly::read(&self.settings.sources())
    }

    /// Resolves the settings of the relay, or of STUN alone.
    fn resolve(&self) -> Result<Resolved, Problems> {
        if self.stun_only { Ok(self.read_stun_only()?.1) } else { Ok(self.read()?.1) }
    }
}

fn check_config(run: &Run) -> Result<(), Failure> {
    let (resolved, to_create) = if run.stun_only {
        (run.read_stun_only()?.1, Vec::new())
    } else {
        let (_, sources, files) = run.read_with_files()?;
        (sources.resolved, files.to_create())
    };
    warn("towpath-relay", &resolved);
    print("the configuration is valid\n")?;
    for file in to_create {
        print(&format!("the start will make {file}\n"))?;
    }
    Ok(())
}

fn print_config(run: &Run) -> Result<(), Failure> {
    let resolved = run.resolve()?;
    warn("towpath-relay", &resolved);
    print(&resolved.to_toml())?;
    Ok(())
}

fn keygen(file: Option<&Path>) -> Result<(), Failure> {
    let key = identity::random_key().context("cannot make a key")?;
    write_key(file, &identity::key_file_text(&key))?;
    say(&format!("public key: {}", key.public()));
    Ok(())
}

fn mesh_keygen(file: Option<&Path>) -> Result<(), Failure> {
    let key = identity::random_mesh_key().context("cannot make a key")?;
    let mut text = Zeroizing::new(key.to_text());
    text.push('\n');
    write_key(file, &text)
}

/// Creates a file with the secret `text`, or prints it if there is no file.
fn write_key(file: Option<&Path>, text: &str) -> Result<(), Failure> {
    match file {
        Some(path) => secret_file::create(path, text.as_bytes()).map_err(anyhow::Error::from)?,
        None => print(text)?,
    }
    Ok(())
}

fn start(run: &Run) -> Result<(), Failure> {
    if run.stun_only {
        let (config, resolved) = run.read_stun_only()?;
        start_logs(&config.log, &resolved)?;
        serve_stun_only(&config)?;
    } else {
        let (config, sources, files) = run.read_with_files()?;
        start_logs(&config.log, &sources.resolved)?;
        serve(&config, sources, files)?;
    }
    Ok(())
}

fn start_logs(log: &Log, resolved: &Resolved) -> anyhow::Result<()> {
    logs::init(log.format, log.level).context("cannot set up logs")?;
    for warning in resolved.warnings() {
        tracing::warn!("{warning}");
    }
    Ok(())
}

fn serve_stun_only(config: &StunOnly) -> anyhow::Result<()> {
    let shutdown = Shutdown::install().context("cannot catch signals")?;
    let server = StunServer::bind(config)?;
    let (version, stun) = (env!("CARGO_PKG_VERSION"), server.stun_addresses());
    let admin = server.admin_address().context("the admin listener has no address")?;
    tracing::info!(version, ?stun, admin = admin.map(display), "listening");
    server.run(shutdown.requested())?;
    tracing::info!("stopped");
    Ok(())
}

fn serve(config: &Config, sources: ConfigSources, files: Files) -> anyhow::Result<()> {
    match limits::raise_open_files() {
        Ok(limit) => tracing::info!(limit, "limit on open files"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit on open files"),
    }
    // Signals are caught first, because one that comes during the start also asks the relay to stop.
    let shutdown = Shutdown::install().context("cannot catch signals")?;
    let identity = files.complete(config)?;
    let (node_public, certificate_pin) = (identity.node_public(), identity.certificate_pin());
    let server = Server::bind(config, identity)?.with_sources(sources).with_hangups(shutdown.hangups());
    let Addresses { tls: listen, http, redirect, stun, admin } = server.addresses();
    let version = env!("CARGO_PKG_VERSION");
    let (listening, http, redirect) = (listen.map(display), http.map(display), redirect.map(display));
    tracing::info!(version, %node_public, listen = listening, http, redirect, ?stun, admin = admin.map(display), "listening");
    if config.dev {
        let advertised = Advertised { listen, stun, certificate_pin, ipv4: None, ipv6: None };
        let text = Trial { config, advertised, admin, node_public }.to_text();
        print(&text)?;
    }
    server.run(shutdown.requested())?;
    tracing::info!("stopped");
    Ok(())
}

#[cfg(test)]
mod tests {
    use towpath_relay::RunError;

    use super::*;

    /// So a supervisor starts the relay again.
    #[test]
    fn a_worker_that_panics_is_a_failure_with_its_reason() {
        let failure = Failure::from(anyhow::Error::from(RunError::Worker));
        let said = "a worker of the data plane panicked; the relay cannot go on without it";
        assert_eq!(failure.to_string(), said);
        // Exit codes can only be printed.
        assert_eq!(format!("{:?}", ExitCode::from(failure)), format!("{:?}", ExitCode::from(1)));
    }
}
