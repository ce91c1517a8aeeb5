//! What every Towpath server needs: strict configuration, logs, metrics, an admin listener, signals.

pub mod admin;
pub mod config;
pub mod limits;
pub mod logs;
pub mod metrics;
pub mod signals;
