//! A DERP relay with STUN: forwards encrypted packets between WireGuard keys.
//!
//! - [`config`]: what can be set. [`identity`]: keys and certificates. [`derpmap`]: what clients are told of the relay.
//! - [`Server`]: binds, runs, stops. [`StunServer`]: the same of STUN alone.
//! - `control`: from an accepted socket to a logged-in connection, by way of a `stream` and an `upgrade`; `pages`: what is
//!   answered over HTTP besides, `bootstrap` among it; `proxies`: who may be in front of it; `hosts`: how many of those who
//!   have not logged in are one host's.
//! - `forward`: the data plane, which moves packets.

mod bootstrap;
pub mod config;
mod control;
pub mod derpmap;
mod forward;
mod hosts;
pub mod identity;
mod mesh;
mod metrics;
mod pages;
mod proxies;
mod server;
mod stream;
mod stun_only;
mod upgrade;

pub use identity::Identity;
pub use server::{Addresses, BindError, RunError, Server};
pub use stun_only::StunServer;
