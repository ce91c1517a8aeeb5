//! Load on a relay, measured honestly.
//!
//! The rules that make a figure worth printing:
//!
//! - The loop is open: packets are due by a schedule that does not wait for the relay, and latency counts from when a
//!   packet was due, not from when it could be sent.
//! - Every packet carries flow, number, time and a checksum: loss, duplication, reordering, corruption and misrouting are
//!   counted apart.
//! - Senders and receivers are processes of their own, which can be pinned to other cores than the relay.
//! - The main figure is the relay's CPU time for each *delivered* packet, from the scheduler's accounts.
//! - Where the load generator was the limit it says so instead of printing a figure.
//!
//! [`scenario`] has a file for each kind of load. The program starts itself again for every process of a scenario
//! ([`worker`]); [`flow`] is what such a process does with packets, [`net`] its connections.

#![forbid(unsafe_code)]

pub mod cli;
mod clock;
mod flow;
mod histogram;
mod host;
mod net;
mod protocol;
pub mod report;
pub mod scenario;
mod target;
mod worker;
mod workers;

pub use protocol::RelayProtocol;
pub use target::{LoadTarget, TargetSecurity, TargetTrust};
pub use workers::RunConfig;
