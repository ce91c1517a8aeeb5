//! The key that a relay shows, for `mesh.peers`.

use anyhow::Context;
use clap::Args;
use towpath_relay::shown_key::{ShownKey, Target, ask};
use towpath_service::command::{Failure, print};
use towpath_service::logs::say;

#[derive(Args, Debug)]
pub(super) struct ShowKey {
    /// The relay, a derper or one of these: a DNS name or an IP address, with a port unless it is 443. http://HOST:PORT asks
    /// without TLS
    #[arg(value_name = "HOST[:PORT]")]
    relay: Target,
}

impl ShowKey {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start a runtime")?;
        let ShownKey { key, pin, doubt } = runtime.block_on(ask(&self.relay)).map_err(anyhow::Error::from)?;
        print(&format!("{key}\n"))?;
        if let Some(doubt) = doubt {
            say(&format!(
                "towpath-relay: warning: {doubt}. So whatever is on the way could have answered in its place: compare the key \
                 with what the relay itself says"
            ));
        }
        if let Some(pin) = pin {
            say(&format!("pin of its certificate: {pin}"));
        }
        Ok(())
    }
}
