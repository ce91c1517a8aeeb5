//! The command `netcheck`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use towpath::{RelayMap, netcheck};
use towpath_service::command::{Failure, print};

/// The command `netcheck`.
#[derive(Args, Debug)]
pub(crate) struct NetCheck {
    /// The relay map: a DERP map as JSON or YAML, or Tailscale's policy file
    #[arg(value_name = "MAP")]
    map: PathBuf,
    /// JSON for programs in place of the text
    #[arg(long)]
    json: bool,
}

impl NetCheck {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let map = RelayMap::from_file(&self.map).map_err(|error| Failure::Unreadable(error.into()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        let report = runtime.block_on(netcheck(&map)).context("cannot look at the network")?;
        let text = if self.json {
            serde_json::to_string_pretty(&report).context("cannot write JSON")? + "\n"
        } else {
            report.to_string()
        };
        Ok(print(&text)?)
    }
}
