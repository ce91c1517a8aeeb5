//! `kick`: closes the connections of a key.

use clap::Args;
use towpath_relay::administration::schema::Kicked;
use towpath_service::command::{Failure, print};
use towpath_service::logs::say;

use super::RelayArgs;
use super::key::KeyText;
use super::units::count;

#[derive(Args, Debug)]
pub(in crate::cli) struct Kick {
    /// The node key of the client, or its first digits
    key: KeyText,
    #[command(flatten)]
    relay: RelayArgs,
}

impl Kick {
    pub(in crate::cli) fn run(&self) -> Result<(), Failure> {
        let relay = self.relay.socket()?;
        let key = self.key.resolve(&relay)?;
        let Kicked { closed, .. } = relay.ask("POST", &format!("/kick?key={key}"))?;
        if closed == 0 {
            say(&format!("towpath-relay: {key} has no connection to this relay"));
            return Err(Failure::Wrong);
        }
        print(&format!("closing {} of {key}\n", count(closed as u64, "connection")))?;
        Ok(())
    }
}
