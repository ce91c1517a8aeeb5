//! What every Towpath server needs: strict configuration, logs, metrics, an admin listener, signals.

pub mod admin;
pub mod command;
pub mod config;
pub mod limits;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod repeated;
pub mod signals;
mod visible;

pub use towpath_wire::ErrorChain;
pub use visible::{Visible, visible_path};
