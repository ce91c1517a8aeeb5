//! A DERP relay with STUN: forwards encrypted packets between WireGuard keys.
//!
//! - [`config`]: the settings. [`Files`]: the files that they name. [`identity`]: keys and certificates, in files of
//!   [`secret_file`]. [`derpmap`]: the map by which clients find the relay.
//! - `admission`: which clients may use the relay.
//! - `certificate`: the certificate that TLS shows, as clients judge it.
//! - `reload`: what is read again while the relay runs, and when. `reconfiguration`: the settings among it. `bounds`: the bounds
//!   that they set.
//! - [`Server`]: binds, runs and stops a relay. [`StunServer`]: binds, runs and stops STUN alone.
//! - `control`: from an accepted socket to a connection of the data plane, which is `towpath_relay_forward`.
//! - `mesh`: the links to other relays of the region. `metrics`: the export to Prometheus.
//! - [`administration`]: what an operator may ask of a running relay.
//! - [`shown_key`]: the key that another relay shows.
//! - `tls`: the configuration of rustls. `socket`: TCP listeners. `bind_error`, `start_error`: why an address cannot be bound,
//!   and why a relay cannot be started. `unix_time`: the time of day.

pub mod administration;
mod admission;
mod bind_error;
mod bounds;
mod certificate;
pub mod config;
mod control;
pub mod derpmap;
#[cfg(test)]
mod documents;
mod files;
pub mod identity;
mod mesh;
mod metrics;
mod reconfiguration;
mod reload;
pub mod secret_file;
mod server;
pub mod shown_key;
mod socket;
mod start_error;
mod stun_only;
mod tls;
mod unix_time;

pub use admission::{AllowListError, TokenFileError, VerifySetupError, read_token_keys};
pub use bind_error::BindError;
pub use certificate::CertificateError;
pub use files::Files;
pub use identity::Identity;
pub use reconfiguration::ConfigSources;
pub use server::{Addresses, RunError, Server};
pub use start_error::StartError;
pub use stun_only::StunServer;
pub use unix_time::unix_now;
