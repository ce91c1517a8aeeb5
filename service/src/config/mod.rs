//! Strict configuration: nothing given is ever ignored, and every mistake is reported at once.
//!
//! A setting is a [`SettingKey`] with a type ([`Value`]) and often a rule. It is looked up in four layers, each
//! overriding the one before: the default, the file (TOML), the environment (`TOWPATH_OUTBOX_AGE`), the command line
//! (`--listen`). A program reads its settings from a [`ConfigReader`] in the order in which they should be printed:
//!
//! ```
//! use std::time::Duration;
//! use towpath_service::config::{ConfigReader, SettingKey, Sources};
//!
//! const KEEPALIVE: SettingKey = SettingKey::new("keepalive");
//!
//! let sources = Sources::new("TOWPATH").text("relay.toml", "keepalive = \"90s\"");
//! let mut reader = ConfigReader::new(&sources);
//! let keepalive = reader
//!     .key(KEEPALIVE)
//!     .within(Duration::from_secs(5)..=Duration::from_secs(600))
//!     .or(Duration::from_secs(60));
//! let resolved = reader.finish()?;
//! assert_eq!(keepalive, Duration::from_secs(90));
//! assert_eq!(resolved.to_toml(), "keepalive = \"90s\"  # relay.toml:1\n");
//! # Ok::<(), towpath_service::config::Problems>(())
//! ```
//!
//! Looking a setting up never fails: a mistake is noted, the next lower layer's value is returned, and
//! [`ConfigReader::finish`] reports all mistakes together. All layers are checked, also those that are overridden: a
//! value that would be wrong on its own should not wait for the day on which the override goes away.

mod key;
mod list;
mod lookup;
mod problem;
mod resolved;
mod sources;
mod value;

pub use ipnet::IpNet;
pub use key::{Reloading, SettingKey};
pub use list::{Element, WordOr, Wordy};
pub use lookup::{ConfigReader, Lookup};
pub use problem::{Origin, Problem, Problems};
pub use resolved::{Resolved, Setting};
pub use sources::Sources;
pub use value::{ByteSize, Choice, Value, quote};

#[cfg(test)]
mod tests;
