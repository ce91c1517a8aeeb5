//! DERP maps as their readers take them: what is wrong with a map, and which clients a change of the map disconnects.
//!
//! A map is read three times by three kinds of reader, each with its own idea of names and types: Tailscale's clients
//! and Headscale's `derp.urls` take JSON by Go's rules, Headscale's `derp.paths` take YAML by other rules of Go's, and
//! Tailscale's policy file is HuJSON. Each ignores unknown names without a word. So a [`ParsedMap`] is what the reader
//! has in memory afterwards, and decoding is part of what is checked:
//!
//! ```text
//! bytes ── document ──▶ tree with lines ── decode ──┬──▶ as meant ── check ──▶ findings
//!                                                   └──▶ as read ─── Diff ───▶ changes
//! ```
//!
//! The rules follow Tailscale 1.104.6 (`tailcfg`, `derphttp`, `netcheck`, `magicsock`) and Headscale 0.27.1 and 0.29.1
//! (`hscontrol/derp`); `tests/interop` holds them against that code. Nothing here touches a file or a socket, and
//! everything is in a fixed order: equal files give equal reports.

mod check;
mod code;
mod decode;
mod diff;
mod document;
mod finding;
mod format;
mod loaded;
mod map;
mod report;

pub use code::{Difference, FindingCode};
pub use diff::{Diff, Impact, MapChange};
pub use document::{MAX_BYTES, ReadError};
pub use finding::{Finding, Severity};
pub use format::MapFormat;
pub use loaded::Loaded;
pub use map::{ParsedMap, Unwritable};
pub use report::MapReport;
