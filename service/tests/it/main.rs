//! Tests of the admin listener and of signals, over real sockets and processes.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod admin;
mod signals;
