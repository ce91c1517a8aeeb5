//! Tests of the STUN server over loopback.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod common;
mod loopback;
mod rules;
