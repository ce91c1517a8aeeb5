//! Tests of the client against relays of this process.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod addresses;
mod binding;
mod dial;
mod frames;
mod names;
mod proxy;
mod support;
mod websocket;
