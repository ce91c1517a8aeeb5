//! The two sides of a session: what the bytes of a logged-in connection ask for.
//!
//! [`Session`] is the relay's side and gives [`Action`]s. [`ClientSession`] is the client's side and gives frames.

mod client;
mod server;

pub use client::{ClientSession, StreamError};
pub use server::{Action, Close, PacketKind, Relayed, Session};
