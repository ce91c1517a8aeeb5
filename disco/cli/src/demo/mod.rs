//! The demo: two peers behind simulated NATs and two relays, all in this process, and a timeline of what happens.
//!
//! Peers and relays are the real ones. Simulated are the NATs, the distances, and the STUN servers (`towpath_live`).

mod cast;
mod story;
mod tap;
mod timeline;
mod traffic;

use clap::Args;
use towpath_service::command::Failure;
use towpath_sim::{Class, UnknownClass};

use self::story::Story;

/// The classes of NATs that can be chosen, with what they do.
const CLASSES: &str = "\
Classes of NATs (RFC 4787):
  O   no NAT, a public address
  F   endpoint-independent mapping and filtering: a full cone
  A   endpoint-independent mapping, address-dependent filtering
  P   endpoint-independent mapping, address- and port-dependent filtering: most home routers
  P*  as P, and an unsolicited datagram may spoil a later mapping: a plain Linux gateway
  S   a mapping for each destination, ports in sequence: strict office firewalls
  B   a mapping for each destination, random ports of a block: some carriers
  R   a mapping for each destination, random ports
  X   UDP is blocked";

/// The command `demo`.
#[derive(Args, Debug)]
#[command(after_help = CLASSES)]
pub(crate) struct Demo {
    /// The class of the NAT in front of the first peer
    #[arg(long, value_name = "CLASS", default_value = "P", value_parser = class)]
    nat: Class,
    /// The class of the NAT in front of the second peer
    #[arg(long, value_name = "CLASS", default_value = "P", value_parser = class)]
    peer_nat: Class,
}

/// A class of NATs for IPv4, which the demo has alone.
fn class(text: &str) -> Result<Class, UnknownClass> {
    text.parse().ok().filter(|class| *class != Class::V6).ok_or(UnknownClass)
}

impl Demo {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(anyhow::Error::from)?;
        runtime.block_on(Story { classes: [self.nat, self.peer_nat] }.tell())?;
        Ok(())
    }
}
