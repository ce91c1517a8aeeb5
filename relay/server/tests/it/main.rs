//! Tests of the relay: as a server in this process, and as the real program.
//!
//! Tests that need a process of their own are programs of their own beside this folder: they count what a whole process
//! does (`budgets`, `busy_poll`, `instructions`, `sweep`).

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod addresses;
mod administration;
mod admission;
mod backends;
mod binding;
mod certificates;
mod cli;
#[path = "../common/mod.rs"]
mod common;
mod contested;
mod deployments;
mod derpmap;
mod faults;
mod hand_over;
mod handshake;
mod health_checks;
mod keepalive;
mod key_files;
mod malformed;
mod mesh;
mod neighbours;
mod overload;
mod pages;
mod pending;
mod proxy_protocol;
mod reload;
mod shutdown;
mod stalled_log;
mod token_commands;
mod websocket;
