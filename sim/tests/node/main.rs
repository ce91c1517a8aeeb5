//! The node of `towpath-disco` in the simulated internet, both sides unchanged.
//!
//! `TOWPATH_SIM_SEEDS` is the number of runs of each pair, 100 unless given. Each run has a seed of its own; a pair that fails
//! is printed as one line, which the test `one_pair` runs again with a trace: `TOWPATH_SIM_PAIR="P P* 80 40 50 0.05 udp 12"`.
//! Besides these, 2,000 pairs are drawn anew each time; `TOWPATH_SIM_FRESH` is the seed of the draw.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]
#![allow(clippy::print_stdout, reason = "a test prints what it has measured")]

mod blocked;
mod cold;
mod driver;
mod fresh;
mod gaps;
mod gateways;
mod homes;
mod lab;
mod loss;
mod malice;
mod met;
mod quiet;
mod regions;
mod relayed;
mod report;
mod restart;
mod run;
mod scenarios;
mod stock;
mod traps;
