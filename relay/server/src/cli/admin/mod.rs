//! Commands that ask a running relay: `clients`, `kick`, `why` and `healthcheck`.
//!
//! They find the relay by the configuration that it runs with, by file and environment, of which they read `admin` only; or by
//! the path of its socket.

mod clients;
mod health_check;
mod key;
mod kick;
mod table;
mod units;
mod why;

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use towpath_relay::config::AdminSettings;
use towpath_service::admin::ask::AskedService;
use towpath_service::command::Failure;

use super::settings::base_sources;

pub(super) use self::clients::ShowClients;
pub(super) use self::health_check::HealthCheck;
pub(super) use self::kick::Kick;
pub(super) use self::why::ShowWhy;

/// The relay to ask.
#[derive(Args, Debug)]
struct RelayArgs {
    /// The configuration file of the relay, TOML [env: TOWPATH_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The socket of the relay, in place of the configuration's admin.socket [env: TOWPATH_ADMIN_SOCKET]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl RelayArgs {
    /// The socket of the relay.
    fn socket(&self) -> Result<AskedService, Failure> {
        if let Some(path) = &self.socket {
            return Ok(AskedService::socket("relay", path.clone()));
        }
        let socket = self.settings()?.socket.map(|path| AskedService::socket("relay", path));
        socket.ok_or_else(|| {
            Failure::Unreadable(anyhow!(
                "the configuration has no admin.socket, by which a running relay is asked: name its configuration by --config, \
                 its socket by --socket, or set admin.socket, which takes a restart of the relay"
            ))
        })
    }

    fn settings(&self) -> Result<AdminSettings, Failure> {
        Ok(AdminSettings::locate(&base_sources(self.config.as_deref()))?)
    }
}
