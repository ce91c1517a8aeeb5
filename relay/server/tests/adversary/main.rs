//! Attackers: each maximises its use of one resource within the protocol, against the real server. Beside it an honest
//! pair loses nothing, what the relay holds stays within a bound that is computed, and no bound is reached without a
//! label in the metrics.
//!
//! The tests are a program of their own because they measure the memory of the process. They run one at a time, with
//! [`alone`].

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod attacker;
mod clones;
#[path = "../common/mod.rs"]
mod common;
mod deaf_receivers;
mod figures;
mod floods;
mod gulps;
mod honest;
mod http_requests;
mod key_updates;
mod logins;
mod memory;
mod mesh_announcements;
mod open_files;
mod pings;
mod refused_clients;
mod returning_clients;
mod routes;
mod silent_connections;
mod unfinished_frames;
mod unfinished_handshakes;
mod watchers;
mod websocket_fragments;

use tokio::sync::{Mutex, MutexGuard};

/// The attack that runs. Two at a time would measure each other.
static ATTACK: Mutex<()> = Mutex::const_new(());

/// Waits until no other test of this program runs.
async fn alone() -> MutexGuard<'static, ()> {
    ATTACK.lock().await
}
