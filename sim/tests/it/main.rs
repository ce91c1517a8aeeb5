//! The simulator by itself, with machines that do what a test says.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod flows;
mod hosts;
mod links;
mod measured;
mod naive;
mod oracle;
mod paths;
mod puppet;
mod relays;
mod traces;
