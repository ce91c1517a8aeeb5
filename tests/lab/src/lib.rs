//! A laboratory of Linux network namespaces: real sockets behind real NATs, with a wire between that delays and loses.
//!
//! A [`Lab`] has sites on its internet. At a site stands a [`Server`], or a [`Nat`] of a class with a [`Host`] or several in
//! its LAN; each is a [`Namespace`] of its own. The NATs are nftables, and each is measured before it is used. The wire is a
//! thread that carries each packet from uplink to uplink, by the model of a link that the simulator has too: every direction
//! between two sites has a [`Link`], which may be changed at any time. [`Stage`] builds a [`Pair`] of the simulator.
//!
//! It takes root, and the programs `ip`, `nft`, `nsenter` and `setpriv`. [`lack`] tells what a machine lacks; a test that is
//! skipped for it says so. Nothing outlives the process: namespaces have no names, links vanish with their namespace, and
//! processes that were started in one are killed.
//!
//! ```no_run
//! use towpath_lab::{Class, Pair, Rebinding, Stage, Timing, Traffic, lack};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! if let Some(lack) = lack() {
//!     println!("skipped: no {lack}");
//!     return Ok(());
//! }
//! let pair = Pair::new(Class::P, Class::S, Timing::NEAR, 7).losing(0.05, Traffic::Udp);
//! let stage = Stage::build(&pair)?;
//! let relay = stage.relay.namespace().command("towpath-relay").arg("--dev").spawn()?;
//! let [here, there] = [stage.hosts[0].namespace().runtime()?, stage.hosts[1].namespace().runtime()?];
//! let answering = there.spawn(async { tokio::net::UdpSocket::bind("0.0.0.0:41641").await });
//! here.block_on(async { tokio::net::UdpSocket::bind("0.0.0.0:41641").await })?;
//! stage.nats[0].rebind(Rebinding::NewPorts)?;
//! stage.lab.change_link(stage.sites[0], stage.sites[1], |link| link.blocked = true);
//! # Ok(())
//! # }
//! ```

#[cfg(not(target_os = "linux"))]
compile_error!("towpath-lab is made of Linux: network namespaces, nftables and TUN");

mod addresses;
mod capability;
mod classify;
mod conntrack;
mod error;
mod host;
mod lab;
mod namespace;
mod nat;
mod runtime;
mod server;
mod site;
mod stage;
#[allow(
    unsafe_code,
    reason = "rustix has no safe form of unshare, nor of the ioctl that makes a TUN interface"
)]
mod sys;
mod tools;
mod wire;

pub use towpath_sim::{Class, Direct, Link, Loss, Pair, Spread, Timing, Traffic, sweep};

pub use crate::capability::{Capability, capabilities, lack};
pub use crate::classify::{Allocation, Behaviour};
pub use crate::error::LabError;
pub use crate::host::Host;
pub use crate::lab::Lab;
pub use crate::namespace::Namespace;
pub use crate::nat::{Nat, Rebinding};
pub use crate::runtime::Runtime;
pub use crate::server::Server;
pub use crate::site::Site;
pub use crate::stage::Stage;
pub use crate::wire::{Counts, Lateness};
