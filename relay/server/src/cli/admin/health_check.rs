//! `healthcheck`: whether the relay is ready for traffic, for images without a shell.

use anyhow::anyhow;
use clap::Args;
use towpath_service::admin::ask::{AskError, AskedService, HttpAnswer};
use towpath_service::command::{Failure, print};
use towpath_service::logs::say;

use super::RelayArgs;

/// The page that says whether a relay is ready.
const READY: &str = "/readyz";

#[derive(Args, Debug)]
pub(in crate::cli) struct HealthCheck {
    #[command(flatten)]
    relay: RelayArgs,
}

impl HealthCheck {
    /// Prints one line. Whatever is wrong ends with 1, because Docker knows no other code.
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        match self.look() {
            Ok(HttpAnswer { status: 200, .. }) => Ok(print("ready\n")?),
            Ok(HttpAnswer { status, text }) => {
                let reason = text.lines().next().unwrap_or_default();
                say(&format!("towpath-relay: not ready: {reason} (status {status})"));
                Err(Failure::Wrong)
            }
            Err(failure) => {
                let line = failure.to_string().replace("\n  ", "; ");
                say(&format!("towpath-relay: {line}"));
                Err(Failure::Wrong)
            }
        }
    }

    /// Asks the relay at the first of its addresses at which it can be asked.
    fn look(&self) -> Result<HttpAnswer, Failure> {
        let (first, others) = self.find()?;
        let mut asked = first.request("GET", READY);
        for other in others {
            if matches!(asked, Err(AskError::Connect(..))) {
                asked = other.request("GET", READY);
            }
        }
        Ok(asked?)
    }

    /// The socket if there is one, or else the admin listener.
    fn find(&self) -> Result<(AskedService, Vec<AskedService>), Failure> {
        if self.relay.socket.is_some() {
            return Ok((self.relay.socket()?, Vec::new()));
        }
        let settings = self.relay.settings()?;
        if let Some(path) = settings.socket {
            return Ok((AskedService::socket("relay", path), Vec::new()));
        }
        let mut addresses = settings
            .nearest()
            .into_iter()
            .filter(|address| address.port() != 0)
            .map(|address| AskedService::listener("relay", address));
        let first = addresses.next().ok_or_else(|| {
            anyhow!(
                "the configuration has neither an admin.socket nor an admin.listen with a port, so that the relay cannot be \
                 asked"
            )
        })?;
        Ok((first, addresses.collect()))
    }
}
