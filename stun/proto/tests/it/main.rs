//! Tests of the STUN codec against golden vectors and a codec written by others.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod answers;
mod golden;
mod oracle;
mod recorded;
