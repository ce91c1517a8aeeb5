//! WebSocket (RFC 6455) as the server of a byte stream speaks it: binary messages, with boundaries that mean nothing.
//!
//! Neither direction ever holds a message. [`Decoder`] takes slices of the stream as they come, unmasks payload where
//! it lies, and hands it on piece by piece; all that it keeps is a header, or a ping, that was cut. [`Messages`] wraps
//! what is written to it in as few messages as possible, in one buffer that a thread reuses for all its connections.
//!
//! Pure: no sockets, no clock, no runtime. Extensions are never negotiated, so a reserved bit is an error.

#![forbid(unsafe_code)]

mod control;
mod decode;
mod encode;
mod handshake;
mod opcode;

pub use control::{CloseCode, PingPayload};
pub use decode::{Decoder, MAX_RECEIVED, Piece, Violation};
pub use encode::{MAX_SENT, Messages};
pub use handshake::accept_key;
