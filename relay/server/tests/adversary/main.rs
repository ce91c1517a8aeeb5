//! Attackers: each maximises its use of one resource within the protocol, against the real server. Beside it an honest
//! pair loses nothing, what the relay holds stays within a bound that is computed, and no bound is reached without a
//! label in the metrics.
//!
//! The tests are a program of their own because they measure the memory of the process. They run one at a time, with
//! [`alone`].

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]
#![allow(
    clippy::await_holding_lock,
    reason = "each test has a thread and a runtime of its own, which may wait for the others"
)]

mod attacker;
#[path = "../common/mod.rs"]
mod common;
mod honest;
mod http_requests;
mod logins;
mod memory;
mod open_files;
mod silent_connections;
mod unfinished_handshakes;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The attack that runs. Two at a time would measure each other.
static ATTACK: Mutex<()> = Mutex::new(());

/// Waits until no other test of this program runs.
fn alone() -> MutexGuard<'static, ()> {
    ATTACK.lock().unwrap_or_else(PoisonError::into_inner)
}
