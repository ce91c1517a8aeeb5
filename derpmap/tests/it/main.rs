//! Tests of DERP maps: reports word for word, and damaged input.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod golden;
mod malformed;
