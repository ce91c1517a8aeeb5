//! What upstream's tests check of its path machine, at the edge of a node whose peers are stock clients.
//! docs/differences.md says what differs on purpose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod acceptance;
mod addresses;
mod lab;
mod owners;
mod path;
mod peers;
