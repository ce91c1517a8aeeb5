//! Tests of the load generator against the real relay.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod idle_memory;
mod scenarios;
mod storm;
mod support;
