//! The settings that the command line takes.

use std::path::{Path, PathBuf};

use clap::Args;
use towpath_relay::config::{CONFIG_VARIABLE, VARIABLE_PREFIX, keys};
use towpath_service::config::Sources;

/// Settings are text here and read by the configuration, which reports a wrong one with all others.
#[derive(Args, Debug)]
pub(super) struct Settings {
    /// The configuration file, TOML [env: TOWPATH_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// TCP address for TLS [env: TOWPATH_LISTEN] [default: port 443, every address]
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// DNS name or IP address that clients dial [env: TOWPATH_HOSTNAME]
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Certificate chain, PEM; self-signed if not given [env: TOWPATH_CERT]
    #[arg(long, value_name = "FILE")]
    cert: Option<String>,
    /// Private key of the certificate, PEM [env: TOWPATH_KEY]
    #[arg(long, value_name = "FILE")]
    key: Option<String>,
    /// UDP address for STUN; repeat or separate by commas, "" for none [env: TOWPATH_STUN_LISTEN] [default: port 3478]
    #[arg(long, value_name = "IP:PORT")]
    stun_listen: Vec<String>,
    /// Node key, created if missing [env: TOWPATH_KEY_FILE] [default: /var/lib/towpath/relay.key]
    #[arg(long, value_name = "FILE")]
    key_file: Option<String>,
    /// Let every client use the relay [env: TOWPATH_ADMISSION=open]
    #[arg(long)]
    open: bool,
}

/// The environment, and the file that is given or that the environment names.
pub(super) fn base_sources(config: Option<&Path>) -> Sources {
    let sources = Sources::new(VARIABLE_PREFIX).variables(std::env::vars_os());
    let from_variable = || std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from);
    match config.map(Path::to_owned).or_else(from_variable) {
        Some(path) => sources.file(&path),
        None => sources,
    }
}

impl Settings {
    pub(super) fn sources(&self) -> Sources {
        let sources = base_sources(self.config.as_deref());
        let stun_listen = (!self.stun_listen.is_empty()).then(|| self.stun_listen.join(","));
        sources
            .flag(keys::LISTEN, self.listen.clone())
            .flag(keys::HOSTNAME, self.hostname.clone())
            .flag(keys::CERT, self.cert.clone())
            .flag(keys::KEY, self.key.clone())
            .flag(keys::STUN_LISTEN, stun_listen)
            .flag(keys::KEY_FILE, self.key_file.clone())
            .flag(keys::ADMISSION, self.open.then(|| "open".into()))
    }
}
