//! WebSocket (RFC 6455) as the two ends of a byte stream speak it: binary messages, with boundaries that mean nothing.
//!
//! Neither direction ever holds a message. [`Decoder`] takes slices of the stream as they come, unmasks payload where
//! it lies, and hands it on piece by piece; all that it keeps is a header, or a ping, that was cut. [`Messages`] wraps
//! what a server writes to it in as few messages as possible, in one buffer that a thread reuses for all its connections.
//! [`MaskedFrame`] is what a client sends.
//!
//! The two sides differ in their masks alone ([`Role`]). A side is a type and not a value, so that the decoder of a server
//! asks nothing that it knows already.
//!
//! Pure: no sockets, no clock, no runtime, no source of randomness; masks are handed in. Extensions are never negotiated, so a
//! reserved bit is an error.

#![forbid(unsafe_code)]

mod control;
mod decode;
mod encode;
mod frame;
mod handshake;
mod opcode;
mod role;

pub use control::{CloseCode, PingPayload};
pub use decode::{Decoder, MAX_RECEIVED, Piece, Violation};
pub use encode::{MAX_MASKED_PAYLOAD, MAX_SENT, MaskedFrame, Messages};
pub use handshake::{accept_key, handshake_key};
pub use role::{Client, Role, Server};
