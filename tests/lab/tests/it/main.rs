//! The laboratory proves its own conditions. These tests need root and say `skipped` without.

#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod actions;
mod classes;
mod leftovers;
mod links;
mod load;
mod tools;
