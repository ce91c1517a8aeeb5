//! A load generator for relays, which measures their CPU time, memory, latency and loss.
//!
//! The rules that make its figures comparable:
//!
//! - The loop is open: packets are due at times that do not depend on the relay, evenly spaced or at random, and latency
//!   counts from when a packet was due, not from when it could be sent.
//! - Every packet carries flow, number, time and a checksum: loss, duplication, reordering, corruption and misrouting are
//!   counted separately.
//! - Senders and receivers are processes of their own, which can run on other CPUs than the relay.
//! - The main figure is the relay's CPU time for each *delivered* packet, from the scheduler's accounts.
//! - If the load generator was the limit, the report says so instead of showing a figure.
//!
//! [`scenario`] has a file or a folder for each kind of load. The program starts itself again for every process of a
//! scenario: [`workers`] is the side of the parent and [`process`] that of the worker. [`flow`] is what most workers
//! do, [`net`] their connections, [`report`] what becomes of their outcomes.

#![forbid(unsafe_code)]

pub mod cli;
mod clock;
mod flow;
mod histogram;
mod host;
mod net;
mod process;
mod protocol;
pub mod report;
pub mod scenario;
mod target;
mod workers;

pub use flow::arrivals::Arrivals;
pub use flow::sequence::PacketDamage;
