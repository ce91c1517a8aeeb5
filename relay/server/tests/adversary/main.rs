//! Attackers: each maximises its use of one resource within the protocol, against the real server. Beside it an honest
//! pair loses nothing, what the relay holds stays within a bound that is computed, and no bound is reached without a
//! label in the metrics.
//!
//! The tests are a program of their own because they measure the memory of the process. They run one at a time, with
//! [`alone`].

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

#[path = "../common/mod.rs"]
mod common;
mod honest;
mod memory;
mod silent_connections;

use tokio::sync::{Mutex, MutexGuard};

/// The attack that runs. Two at a time would measure each other.
static ATTACK: Mutex<()> = Mutex::const_new(());

/// Waits until no other test of this program runs.
async fn alone() -> MutexGuard<'static, ()> {
    ATTACK.lock().await
}
